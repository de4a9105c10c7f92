"""What one call of the command line was asked for: the global flags, and the output that follows from them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from tony.cli.output import Output


@dataclass
class Invocation:
    """Filled by the global flags wherever they stand. `nothing_submitted`: an error may say so."""

    output: Output = field(default_factory=Output)
    conf: Path | None = None
    sets: list[str] = field(default_factory=list)
    nothing_submitted: bool = False
    started_at: float = field(default_factory=time.time)


def _set(change: Callable[[Invocation, Any], None]) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False, ()):
            change(context.find_object(Invocation) or context.ensure_object(Invocation), value)

    return callback


def _json(invocation: Invocation, value: bool) -> None:
    invocation.output.json = True


def _quiet(invocation: Invocation, value: bool) -> None:
    invocation.output.quiet = True


def _verbose(invocation: Invocation, value: bool) -> None:
    invocation.output.verbose = True


def _plain(invocation: Invocation, value: bool) -> None:
    invocation.output.color = False


def _conf(invocation: Invocation, value: str) -> None:
    invocation.conf = Path(value)


def _sets(invocation: Invocation, value: Sequence[str]) -> None:
    invocation.sets += value


def global_options() -> list[click.Parameter]:
    """Fresh copies of the flags that every command takes, before or after its name."""

    def option(names: list[str], change: Callable[[Invocation, Any], None], **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_set(change), **more)

    return [
        option(["--json"], _json, is_flag=True, help="One JSON document on stdout; streams as JSON Lines."),
        option(["-q", "--quiet"], _quiet, is_flag=True, help="Only errors and the result."),
        option(["-v", "--verbose"], _verbose, is_flag=True, help="More detail; tracebacks of errors."),
        option(["--no-color"], _plain, is_flag=True, help="No colours; NO_COLOR does the same."),
        option(["--conf"], _conf, metavar="FILE", help="Your settings, instead of ~/.config/tony/config.yaml."),
        option(["-c"], _sets, multiple=True, metavar="KEY=VALUE", help="Set any key of a job file."),
    ]


class TonyCommand(click.Command):
    """A command that takes the global flags, too, and finds the `Invocation` in its context."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params.extend(global_options())


def environment_flags(invocation: Invocation) -> None:
    """``TONY_JSON``, ``TONY_QUIET``, ``TONY_VERBOSE``, ``TONY_NO_COLOR``, ``TONY_CONF``: the flags as variables."""

    def on(variable: str) -> bool:
        return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")

    output = invocation.output
    output.json, output.quiet, output.verbose = on("TONY_JSON"), on("TONY_QUIET"), on("TONY_VERBOSE")
    output.color = False if on("TONY_NO_COLOR") else None
    invocation.conf = Path(os.environ["TONY_CONF"]) if os.environ.get("TONY_CONF") else None
