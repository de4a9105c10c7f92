"""The text and the JSON of an error: what happened, where the value came from, what to do."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Iterator, Sequence

import click

from tony.cli.invocation import Invocation
from tony.cli.output import safe
from tony.errors import Problem, Refused, TonyError, UsageError

_NOTHING = "Nothing was uploaded or submitted."
_KEY_WIDTH = 43
_MOST_PROBLEMS = 20
_WIDTH = 78
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
    if isinstance(error, (UsageError, Refused)):
        lines = list(_problem_lines(error.problems, isinstance(error, Refused)))
    elif isinstance(error, (KeyboardInterrupt, click.Abort)):
        lines = ["interrupted"]
    elif isinstance(error, click.UsageError):
        lines = [f"error: {safe(error.format_message())}"]
        if error.ctx is not None:
            lines.append(f"  {error.ctx.command_path} --help shows what it takes.")
    elif isinstance(error, click.ClickException):
        lines = [f"error: {safe(error.format_message())}"]
    elif isinstance(error, TonyError):
        first, *rest = safe(error.message).splitlines() or [""]
        lines = [f"error: {first}", *(f"  {line}" for line in rest)]
        lines += [f"  {line}" for line in safe(error.hint or "").splitlines()]
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


def _problem_lines(problems: Sequence[Problem], refused: bool) -> Iterator[str]:
    if len(problems) == 1 and not problems[0].key and problems[0].origin is None:
        yield f"error: {safe(problems[0].message)}"
        yield from (f"  {line}" for line in safe(problems[0].hint or "").splitlines())
        return
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    file = next((p.origin.rpartition(":")[0] for p in problems if p.origin and _in_file(p.origin)), None)
    where = f" in {safe(file)}" if file else ""
    yield f"error: the cluster could never run this: {count}" if refused else f"error: {count}{where}"
    yield ""
    for problem in problems[:_MOST_PROBLEMS]:
        yield from _one(problem)
    if len(problems) > _MOST_PROBLEMS:
        yield f"  and {len(problems) - _MOST_PROBLEMS} more"


def _one(problem: Problem) -> Iterator[str]:
    left = safe(problem.key) + (f" = {_quoted(problem.value)}" if problem.value is not None else "")
    origin = safe(problem.origin or "")
    if left or origin:
        yield f"  {left:<{_KEY_WIDTH}}  {origin}".rstrip()
    message, hint = safe(problem.message), safe(problem.hint or "")
    if "\n" in hint:
        yield from textwrap.wrap(message, _WIDTH, initial_indent="      ", subsequent_indent="      ")
        yield from (f"      {line}" for line in hint.splitlines())
    else:
        text = f"{message} {hint}".strip()
        yield from textwrap.wrap(text, _WIDTH, initial_indent="      ", subsequent_indent="      ")


def _quoted(value: str) -> str:
    """Numbers as they are, everything else in quotes, on one line."""
    text = safe(value).replace("\n", "\\n")
    return text if value.isascii() and value.isdigit() else f'"{text}"'


def _in_file(origin: str) -> bool:
    file, separator, line = origin.rpartition(":")
    return bool(separator) and line.isdigit() and bool(file)
