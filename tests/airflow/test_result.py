"""What a job's end becomes in Airflow."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tony.airflow.result import RETRIED, check_retried, document_of, failure, story, translated
from tony.errors import NotPermitted, PackagingError, Refused, TonyError, Unreachable, UsageError
from tony.outcome import Outcome
from tony.snapshot import Failure, TaskSnapshot, Verdict
from tony.state import JobState, Reason, TaskState

ID = "application_1700000000000_0042"


def outcome(reason: Reason, tasks: int = 2, tail: tuple[str, ...] = ("a", "b"), traceback: str = "") -> Outcome:
    good = reason is Reason.SUCCEEDED
    state = JobState.SUCCEEDED if good else JobState.FAILED
    first = None if good else Failure("worker:1", reason, "ValueError: no", tail=tail, traceback=traceback)
    rows = tuple(
        TaskSnapshot(f"worker:{n}", TaskState.SUCCEEDED, 1, host="h" * 60, container="c" * 60, progress={"step": n})
        for n in range(tasks)
    )
    verdict = Verdict(ID, "n", state, reason, "ValueError: no", first_failure=first, tasks=rows)
    return Outcome(state, reason, verdict.message, reason.exit_code, verdict, first)


NEVER = {
    *(Reason.WORKER_EXIT, Reason.USER_IMPORT, Reason.EARLY_EXIT, Reason.BAD_ARCHIVE, Reason.BAD_ENV),
    *(Reason.BAD_IMAGE, Reason.OUT_OF_MEMORY, Reason.OUT_OF_VMEM, Reason.GPU_OOM, Reason.HUNG, Reason.INFEASIBLE),
    *(Reason.CANCELLED, Reason.REPEATED, Reason.NOT_PERMITTED),
}


@pytest.mark.parametrize("reason", [one for one in Reason if one is not Reason.SUCCEEDED])
def test_only_what_another_try_may_help_is_tried_again(reason: Reason) -> None:
    error = failure(ID, outcome(reason), RETRIED)
    assert isinstance(error, AirflowFailException) is (reason in NEVER)
    assert isinstance(error, AirflowException)
    assert str(error) == f"{ID} FAILED ({reason.value}): worker:1: ValueError: no"


def test_yarns_own_words_begin_with_what_happened() -> None:
    said = "AM Container exited with exitCode: -100\nFailing this attempt.\n. Failing the application."
    lost = Outcome(JobState.FAILED, Reason.NODE_LOST, said, 104)
    assert str(failure(ID, lost, RETRIED)) == f"{ID} FAILED (NODE_LOST): AM Container exited with exitCode: -100"


def test_single_reasons_can_be_made_worth_a_try() -> None:
    error = failure(ID, outcome(Reason.OUT_OF_MEMORY), ["OUT_OF_MEMORY"])
    assert not isinstance(error, AirflowFailException)
    assert isinstance(failure(ID, outcome(Reason.PREEMPTED), ["OUT_OF_MEMORY"]), AirflowFailException)
    with pytest.raises(UsageError, match="neither a fault nor a reason"):
        check_retried(["OUT_OF_MEMROY"])


@pytest.mark.parametrize(
    ("error", "never"),
    [
        (UsageError("x"), True),
        (Refused("x"), True),
        (NotPermitted("x"), True),
        (PackagingError("x"), False),
        (Unreachable("x", hint="do y"), False),
        (TonyError("x"), False),
    ],
)
def test_errors_of_a_request_are_never_tried_again(error: TonyError, never: bool) -> None:
    made = translated(error)
    assert isinstance(made, AirflowFailException) is never
    assert str(made).startswith("x") and (error.hint or "") in str(made)


def test_the_story_ends_with_the_traceback() -> None:
    lines = list(story(ID, outcome(Reason.WORKER_EXIT, traceback="Traceback:\n  x.py\nValueError: no"), None))
    assert lines[0] == f"job {ID} FAILED  (WORKER_EXIT)"
    assert lines[-4:] == ["the traceback of worker:1:", "    Traceback:", "      x.py", "    ValueError: no"]
    lines = list(story(ID, outcome(Reason.WORKER_EXIT, tail=("last \x1b[31mwords",)), None))
    assert lines[-2:] == ["the last lines of worker:1:", "    last words"]


def test_the_document_is_that_of_the_command_line_with_the_last_numbers() -> None:
    document = document_of(ID, outcome(Reason.SUCCEEDED), None, "http://rm")
    assert document["schema"] == "tony.job/1" and document["application_id"] == ID
    assert document["metrics"] == {"step": 0} and len(document["tasks"]) == 2
    assert document["tracking_url"] == "http://rm"


def test_the_document_stays_small() -> None:
    long = outcome(Reason.WORKER_EXIT, tasks=1000, tail=("\U0001f600" * 500,) * 40)
    assert long.first_failure is not None
    long = replace(long, message="m" * 5000, first_failure=replace(long.first_failure, message="\u00e9" * 5000))
    document = document_of(ID, long, None, "")
    assert len(json.dumps(document)) <= 4000
    assert document["task_states"] == {"SUCCEEDED": 1000} and document["tasks"] == []
    assert document["first_failure"]["task"] == "worker:1"
