"""The text of an error of ours for people: what happened, where the value came from, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from tony.errors import Problem, Refused, TonyError, UsageError
from tony.text import safe

_KEY_WIDTH = 43
_MOST_PROBLEMS = 20
_WIDTH = 78


def error_lines(error: TonyError) -> list[str]:
    """The lines, without colours; the first begins with ``error:``."""
    if isinstance(error, (UsageError, Refused)):
        return list(_problem_lines(error.problems, isinstance(error, Refused)))
    first, *rest = safe(error.message).splitlines() or [""]
    lines = [f"error: {first}", *(f"  {line}" for line in rest)]
    return lines + [f"  {line}" for line in safe(error.hint or "").splitlines()]


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
