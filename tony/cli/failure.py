"""The text and the JSON of an error: what happened, where the value came from, what to do."""

from __future__ import annotations

import traceback

import click

from tony.cli.invocation import Invocation
from tony.errors import Refused, TonyError, UsageError
from tony.problems import error_lines
from tony.text import safe

_NOTHING = "Nothing was uploaded or submitted."
SCHEMA = "tony.error/1"


def show_failure(invocation: Invocation, error: BaseException, code: int) -> None:
    """Print the error for people on stderr, and with --json as the one document on stdout."""
    output = invocation.output
    output.bar_done()
    if output.verbose and not isinstance(error, (click.ClickException, KeyboardInterrupt, click.Abort)):
        output.tell(safe("".join(traceback.format_exception(error))).rstrip())
    for line in failure_lines(error, invocation.nothing_submitted):
        output.tell(output.style(line, "red") if line.startswith("error:") else line)
    if output.json:
        output.document(failure_document(error, code))


def failure_document(error: BaseException, code: int) -> dict[str, object]:
    """``tony.error/1``."""
    problems = error.problems if isinstance(error, (UsageError, Refused)) else ()
    return {
        "schema": SCHEMA,
        "exit_code": code,
        "error": type(error).__name__,
        "message": _message(error),
        "problems": [
            {"key": one.key, "value": one.value, "origin": one.origin, "message": one.message, "hint": one.hint}
            for one in problems
        ],
    }


def failure_lines(error: BaseException, nothing_submitted: bool = False) -> list[str]:
    """The lines for people, without colours."""
    if isinstance(error, TonyError):
        lines = error_lines(error)
    elif isinstance(error, (KeyboardInterrupt, click.Abort)):
        lines = ["interrupted"]
    elif isinstance(error, click.UsageError):
        lines = [f"error: {safe(error.format_message())}"]
        if error.ctx is not None:
            lines.append(f"  {error.ctx.command_path} --help shows what it takes.")
    elif isinstance(error, click.ClickException):
        lines = [f"error: {safe(error.format_message())}"]
    else:
        lines = [
            f"error: unexpected {type(error).__name__}: {safe(str(error))}",
            "  This is a defect of tony. With -v it shows where; please report that.",
        ]
    if nothing_submitted:
        lines += ["", _NOTHING] if len(lines) > 2 else [_NOTHING]
    return lines


def _message(error: BaseException) -> str:
    if isinstance(error, TonyError):
        return error.message
    if isinstance(error, click.ClickException):
        return error.format_message()
    return (
        "interrupted" if isinstance(error, (KeyboardInterrupt, click.Abort)) else f"{type(error).__name__}: {error}"
    )
