"""Flags of `tony submit` and its relatives, made from `config.keys`, and the `Request` that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.config.key import Key, Kind
from tony.config.keys import GROUPS, flags
from tony.config.layers import Request

_METAVARS = {Kind.INTEGER: "N", Kind.SIZE: "SIZE", Kind.DURATION: "TIME", Kind.TEXT: "TEXT", Kind.WORDS: "TEXT"}


class JobCommand(TonyCommand):
    """A command that describes a job: flags, then SCRIPT, then ``--`` and the script's own arguments, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            args, after = args[:cut], args[cut + 1 :]
        else:
            after = []
        ctx.meta["tony.arguments"] = tuple(after)
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            words = [word for word in args if word.endswith(".py")]
            if words and args.index(words[0]) < _index(args, error.option_name):
                raise click.UsageError(
                    f"{error.format_message()} The script's own arguments go behind --, like: "
                    f"{words[0]} -- {error.option_name} ...",
                    ctx,
                ) from error
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_group: dict[str, list[tuple[str, str]]] = {}
        own = {key.flag: key for key in flags()}
        others = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            key = own.get(parameter.opts[0])
            by_group.setdefault(GROUPS[key.group], []).append(record) if key else others.append(record)
        for title, records in by_group.items():
            with formatter.section(title):
                formatter.write_dl(records)
        with formatter.section("Other options"):
            formatter.write_dl(others)


def job_parameters() -> list[click.Parameter]:
    """The flags of every key, the job file, and SCRIPT with its arguments."""
    options: list[click.Parameter] = [_option(key) for key in flags()]
    options.append(click.Option(["-f", "--file", "job_file"], metavar="FILE", help="A job file, YAML or JSON."))
    options.append(click.Argument(["words"], nargs=-1, metavar="[SCRIPT] [-- ARGS]", type=click.UNPROCESSED))
    return options


def _option(key: Key) -> click.Option:
    assert key.flag is not None
    if key.kind is Kind.SWITCH or key.constant is not None:
        return click.Option([key.flag], is_flag=True, help=key.help, default=False)
    metavar = key.metavar or ("|".join(key.choices) if key.choices else _METAVARS.get(key.kind, "TEXT"))
    return click.Option([key.flag], metavar=metavar, multiple=key.repeats, help=key.help, type=click.UNPROCESSED)


def _index(args: Sequence[str], option: str) -> int:
    return next((i for i, word in enumerate(args) if word == option or word.startswith(option + "=")), len(args))


def request_of(context: click.Context, values: Mapping[str, Any]) -> Request:
    """What the command line says, nothing decided yet."""
    invocation = context.find_object(Invocation)
    assert invocation is not None
    texts: dict[str, Sequence[str]] = {}
    for key in flags():
        value = values.get(key.parameter)
        if value in (None, False, ()):
            continue
        if value is True:
            texts[key.name] = [key.constant or "true"]
        else:
            texts[key.name] = list(value) if key.repeats else [value]
    words: tuple[str, ...] = tuple(values["words"])
    after: tuple[str, ...] = context.meta["tony.arguments"]
    job_file = Path(values["job_file"]) if values.get("job_file") else None
    script = words[0] if words else None
    arguments = (*words[1:], *after)
    if script is None and after and job_file is None:
        script, arguments = after[0], after[1:]
    return Request(
        flags=texts,
        sets=tuple(invocation.sets),
        job_file=job_file,
        script=script,
        arguments=arguments,
        user_file=invocation.conf,
    )
