"""What a job leaves behind in Airflow: a small document for XCom, the story for the log, and the right exception."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tony.client import SubmitRecord
from tony.ending import ending_document, ending_lines, seconds_taken
from tony.errors import NotPermitted, Problem, Refused, TonyError, UsageError
from tony.gradient_numbers import without_gradients
from tony.outcome import Outcome
from tony.problems import error_lines
from tony.snapshot import TaskSnapshot
from tony.state import Fault, JobState, Reason
from tony.text import safe

RETRIED = (Fault.INFRASTRUCTURE.value, Fault.TIME.value, Fault.OURS.value)
"""What is worth another try: faults (all their reasons), or single reasons."""

_NEVER = (UsageError, Refused, NotPermitted)
_XCOM_BYTES = 4000
_TAIL_LINES = 10
_LINE_CHARACTERS = 200
_MOST_TASKS = 8
_FIRST_ROLES = ("chief", "master")


def check_retried(names: Collection[str]) -> None:
    """Raises UsageError for a name that is neither a fault nor a reason."""
    known = {*Fault.__members__, *Reason.__members__}
    wrong = [name for name in names if name not in known]
    if wrong:
        hint = f"Faults: {', '.join(Fault.__members__)}; reasons: {', '.join(Reason.__members__)}."
        raise UsageError([Problem("retry_on", "neither a fault nor a reason.", name, hint=hint) for name in wrong])


def retried(outcome: Outcome, retry_on: Collection[str]) -> bool:
    """Whether a job that ended so is worth another try."""
    return outcome.reason.value in retry_on or outcome.reason.fault.value in retry_on


def failure(application_id: str, outcome: Outcome, retry_on: Collection[str]) -> AirflowException:
    """The exception for a job that did not succeed: `AirflowFailException` where no retry can help."""
    first = outcome.first_failure
    # Of a task the last line says it, as of a traceback; of YARN's own words the first.
    said = safe(first.message if first is not None and first.message else outcome.message).strip().splitlines()
    words = said[-1 if first is not None else 0][:_LINE_CHARACTERS] if said else ""
    where = f"{first.task}: " if first is not None else ""
    text = f"{application_id} {outcome.state.value} ({outcome.reason.value}): {where}{words}"
    kind = AirflowException if retried(outcome, retry_on) else AirflowFailException
    return kind(text)


def translated(error: TonyError) -> AirflowException:
    """An error of ours as Airflow should take it; what is wrong with the request is never tried again."""
    kind = AirflowFailException if isinstance(error, _NEVER) else AirflowException
    return kind("\n".join(error_lines(error)).removeprefix("error: "))


def story(application_id: str, outcome: Outcome, record: SubmitRecord | None) -> Iterator[str]:
    """How the job ended, line by line; of a failure with the traceback, or the last lines, of the task that began."""
    yield from ending_lines(application_id, outcome, seconds_taken(outcome, record))
    first = outcome.first_failure
    if first is None or outcome.state is JobState.SUCCEEDED:
        return
    told = first.traceback.splitlines() or list(first.tail)
    if told:
        yield f"the {'traceback' if first.traceback else 'last lines'} of {first.task}:"
        yield from (f"    {safe(line)}" for line in told)


def document_of(
    application_id: str, outcome: Outcome, record: SubmitRecord | None, tracking_url: str
) -> dict[str, Any]:
    """``tony.job/1`` with `metrics`, the last numbers that the first rank reported; never more than 4 kB as JSON.

    What is too long is cut: first the tasks, of which then only their states are counted, then lines of the failure.
    """
    document = ending_document(application_id, outcome, record, tracking_url)
    tasks = outcome.verdict.tasks if outcome.verdict is not None else ()
    first = first_task(tasks)
    document["metrics"] = without_gradients(first.progress) if first is not None else {}
    document["message"] = document["message"][-_LINE_CHARACTERS:]
    if len(tasks) > _MOST_TASKS:
        _count_tasks(document)
    failed = document["first_failure"]
    if failed is not None:
        failed["message"] = failed["message"][-_LINE_CHARACTERS:]
        failed["tail"] = [line[:_LINE_CHARACTERS] for line in failed["tail"][-_TAIL_LINES:]]
    if _size(document) > _XCOM_BYTES:
        _count_tasks(document)
    while _size(document) > _XCOM_BYTES and failed is not None and failed["tail"]:
        failed["tail"].pop(0)
    while _size(document) > _XCOM_BYTES and document["metrics"]:
        document["metrics"].popitem()
    return document


def first_task(tasks: Sequence[TaskSnapshot]) -> TaskSnapshot | None:
    """The task of rank 0 among those that reported numbers, else the first of them."""
    telling = [task for task in tasks if without_gradients(task.progress)]
    return min(telling, key=_order, default=None)


def _order(task: TaskSnapshot) -> tuple[bool, bool, int]:
    role, _, index = task.task.rpartition(":")
    return role not in _FIRST_ROLES, role != "worker", int(index) if index.isdecimal() else 0


def _count_tasks(document: dict[str, Any]) -> None:
    if document["tasks"]:
        document["task_states"] = dict(Counter(task["state"] for task in document["tasks"]))
        document["tasks"] = []


def _size(document: dict[str, Any]) -> int:
    return len(json.dumps(document))
