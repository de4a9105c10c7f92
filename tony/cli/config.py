"""``tony config show``: every setting with its value and, on request, where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.config import keys
from tony.config.document import as_yaml
from tony.config.layers import Given, Request, Settings, files_used, gather
from tony.errors import UsageError
from tony.text import safe

SCHEMA = "tony.config/1"
_DEFAULT = "default"


@click.group()
def config() -> None:
    """Show settings and where they come from."""


@config.command(cls=TonyCommand)
@click.option("--origin", is_flag=True, help="Also where each value came from.")
@click.option("-f", "--file", "job_file", metavar="FILE", help="With the settings of this job file.")
@click.pass_obj
def show(invocation: Invocation, origin: bool, job_file: str | None) -> int:
    """Every setting with its value: yours, or the default."""
    request = Request(
        sets=tuple(invocation.sets), job_file=Path(job_file) if job_file else None, user_file=invocation.conf
    )
    settings = gather(request)
    if settings.problems:
        raise UsageError(settings.problems)
    rows = list(_rows(settings))
    output = invocation.output
    if output.json:
        shown = [{"key": name, "value": value, "origin": where} for name, value, where in rows]
        output.document({"schema": SCHEMA, "settings": shown})
        return 0
    if origin:
        for called, path, exists in files_used(request):
            output.say(f"# {called} file: {path}{'' if exists else ' (not there)'}")
    for name, value, where in rows:
        text = f"{name}: {as_yaml(value)}"
        output.data(safe(f"{text:<44}  # {where}" if origin else text).rstrip())
    return 0


def _rows(settings: Settings) -> list[tuple[str, Any, str]]:
    """Every key of a job, then the keys of roles that some layer sets."""
    rows: list[tuple[str, Any, str]] = []
    for key in keys.KEYS:
        if key.name == "role":
            continue
        given = settings.get(key.name)
        if given is None:
            rows.append((key.name, key.default, _DEFAULT))
        elif isinstance(given.value, dict):
            merged = settings.merged(key.name)
            origins = ", ".join(dict.fromkeys(one.origin for one in merged.values()))
            rows.append((key.name, {name: one.value for name, one in merged.items()}, origins))
        else:
            rows.append((key.name, _shown(given), given.origin))
    for name in settings.names():
        given = settings.get(name)
        if name.startswith("roles.") and name.count(".") == 2 and given is not None:
            rows.append((name, _shown(given), given.origin))
    return rows


def _shown(given: Given) -> Any:
    """Sizes and durations as they were written; lists, maps and switches as what they mean."""
    return given.value if isinstance(given.value, (tuple, dict, bool)) else given.text
