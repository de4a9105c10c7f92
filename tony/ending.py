"""How a job ended: the lines for people, and the document ``tony.job/1`` for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tony.client import SubmitRecord
from tony.outcome import Outcome
from tony.snapshot import SCHEMA, Failure, TaskSnapshot
from tony.spec import TaskId
from tony.state import JobState, TaskState
from tony.text import safe
from tony.units import format_duration

Style = Callable[[str, str], str]

_MOST_EVIDENCE = 3
_MOST_NAMED = 4


def _plain(text: str, _: str) -> str:
    return text


def seconds_taken(outcome: Outcome, record: SubmitRecord | None) -> float | None:
    """From the job's acceptance, as far as that is known, to its end."""
    verdict = outcome.verdict
    begun_at = record.accepted_at if record is not None else (verdict.started_at if verdict is not None else 0.0)
    if verdict is None or not verdict.timeline.finished or not begun_at:
        return None
    return max(0.0, verdict.timeline.finished - begun_at)


def ending_lines(
    application_id: str, outcome: Outcome, seconds: float | None, style: Style = _plain
) -> Iterator[str]:
    """At most eight lines: what happened, which task, evidence, what followed, where the log is.

    `style` colours a word, by name. `seconds`: how long the job took.
    """
    good = outcome.state is JobState.SUCCEEDED
    after = f" after {format_duration(seconds)}" if seconds is not None else ""
    state = style(outcome.state.value, "green" if good else "red")
    reason = "" if good else f"  ({outcome.reason.value})"
    yield f"job {application_id} {state}{after}{reason}"
    if good:
        yield f"  logs         tony logs {application_id}"
        return
    yield ""
    failure = outcome.first_failure
    if failure is None:
        for line in _evidence(outcome.message):
            yield f"  {line}"
        yield f"  logs         tony logs {application_id}"
        return
    yield f"  root cause   {_where(failure)}"
    for line in _evidence(failure.message or outcome.message):
        yield f"      {line}"
    if outcome.verdict is not None:
        then = [_named(outcome.verdict.collateral, "failed too")]
        stopped = [
            task.task
            for task in outcome.verdict.tasks
            if task.state is TaskState.STOPPED and task.task != failure.task
        ]
        then.append(_named(stopped, "stopped by tony"))
        if any(then):
            yield f"  then         {'; '.join(words for words in then if words)}"
    yield f"  logs         {_logs_command(application_id, failure)}"


def _named(tasks: Sequence[str], what: str) -> str:
    more = f" and {len(tasks) - _MOST_NAMED} more" if len(tasks) > _MOST_NAMED else ""
    return f"{', '.join(tasks[:_MOST_NAMED])}{more} {what}" if tasks else ""


def _where(failure: Failure) -> str:
    parts = [failure.task + (f" on {safe(failure.host)}" if failure.host else "")]
    if failure.generation:
        parts.append(f"generation {failure.generation}")
    if failure.signal:
        parts.append(f"signal {failure.signal}")
    elif failure.exit_code is not None:
        parts.append(f"exit code {failure.exit_code}")
    if failure.at:
        parts.append(time.strftime("%H:%M:%S", time.localtime(failure.at)))
    return ", ".join(parts)


def _logs_command(application_id: str, failure: Failure) -> str:
    try:
        task = TaskId.parse(failure.task)
    except ValueError:
        return f"tony logs {application_id}"
    return f"tony logs {application_id} --role {task.role} --rank {task.index}"


def _evidence(text: str) -> list[str]:
    lines = [line for line in safe(text).splitlines() if line.strip()]
    return [line if len(line) <= 400 else line[:397] + "..." for line in lines[-_MOST_EVIDENCE:]]


def ending_document(
    application_id: str, outcome: Outcome, record: SubmitRecord | None, tracking_url: str = ""
) -> dict[str, Any]:
    """``tony.job/1``, the end of ``submit --json`` and ``wait --json``. Times are seconds since the command."""
    verdict = outcome.verdict
    tasks = verdict.tasks if verdict else ()
    return {
        "schema": SCHEMA,
        "application_id": application_id,
        "name": verdict.name if verdict else (record.name if record else ""),
        "state": outcome.state.value,
        "reason": outcome.reason.value,
        "exit_code": outcome.exit_code,
        "message": outcome.message,
        "first_failure": _failure(outcome.first_failure),
        "generations": verdict.generations if verdict else 0,
        "tasks": [_task(task) for task in tasks],
        "timeline": _timeline(outcome, record),
        "uploaded_bytes": record.uploaded_bytes if record else 0,
        "tracking_url": tracking_url,
    }


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "task": failure.task,
        "host": failure.host,
        "exit_code": failure.exit_code,
        "signal": failure.signal,
        "reason": failure.reason.value,
        "message": failure.message,
        "tail": list(failure.tail),
        "generation": failure.generation,
    }


def _task(task: TaskSnapshot) -> dict[str, Any]:
    return {
        "task": task.task,
        "state": task.state.value,
        "host": task.host,
        "container": task.container,
        "incarnations": task.incarnation,
        "exit_code": task.exit_code,
        "gpus": list(task.gpus),
    }


def _timeline(outcome: Outcome, record: SubmitRecord | None) -> dict[str, float | None]:
    verdict = outcome.verdict
    begin = record.command_at if record else (verdict.started_at if verdict else 0.0)

    def since(at: float) -> float | None:
        return round(at - begin, 3) if at and begin else None

    moments = {
        "command": record.command_at if record else 0.0,
        "uploaded": record.uploaded_at if record else 0.0,
        "accepted": record.accepted_at if record else 0.0,
    }
    for name in ("am_started", "allocated", "released", "first_output", "last_exit", "finished"):
        moments[name] = getattr(verdict.timeline, name) if verdict else 0.0
    return {name: since(at) for name, at in moments.items()}
