"""How a job ended is told truthfully, whatever can still be read."""

from __future__ import annotations

import pytest

from tony.containers import AppState
from tony.errors import NotFinished
from tony.outcome import outcome_of
from tony.snapshot import Failure, Verdict
from tony.state import JobState, Reason


def verdict(state: JobState, reason: Reason) -> Verdict:
    failure = None if reason is Reason.SUCCEEDED else Failure("worker:0", reason, "why", exit_code=1)
    return Verdict("application_1_0001", "x", state, reason, "why", first_failure=failure)


@pytest.mark.parametrize(
    ("state", "diagnostics", "job_state", "reason", "code"),
    [
        (AppState.SUCCEEDED, "", JobState.SUCCEEDED, Reason.SUCCEEDED, 0),
        (AppState.KILLED, "Application killed by user alice", JobState.KILLED, Reason.CANCELLED, 103),
        (AppState.KILLED, "killed for exceeding its lifetime period", JobState.KILLED, Reason.DURATION, 105),
        (AppState.FAILED, "", JobState.FAILED, Reason.AM_LOST, 104),
        (AppState.FAILED, "WORKER_EXIT: worker:1 on n3, exit code 1: boom", JobState.FAILED, Reason.WORKER_EXIT, 100),
        (AppState.FAILED, "worker:1 died (OUT_OF_MEMORY)", JobState.FAILED, Reason.OUT_OF_MEMORY, 107),
        (AppState.FAILED, "SUCCEEDED: says somebody", JobState.FAILED, Reason.AM_LOST, 104),
        (AppState.FAILED, "NO_SUCH_WORD: x", JobState.FAILED, Reason.AM_LOST, 104),
        (
            AppState.FAILED,
            "AccessControlException: User bob cannot submit applications to queue root.a",
            JobState.FAILED,
            Reason.NOT_PERMITTED,
            108,
        ),
        (
            AppState.FAILED,
            "Application application_1_1 submitted by user bob to unknown queue: x",
            JobState.FAILED,
            Reason.INFEASIBLE,
            3,
        ),
        (
            AppState.FAILED,
            "AM Container exited with exitCode: -104 Container is running beyond the 'PHYSICAL' memory",
            JobState.FAILED,
            Reason.OUT_OF_MEMORY,
            107,
        ),
        (AppState.FAILED, "AM Container exited with exitCode: -102", JobState.FAILED, Reason.PREEMPTED, 104),
        (AppState.FAILED, "AM Container exited with exitCode: -100", JobState.FAILED, Reason.NODE_LOST, 104),
        (AppState.FAILED, "AM Container exited with exitCode: 1", JobState.FAILED, Reason.AM_LOST, 104),
    ],
)
def test_without_a_verdict_the_cluster_decides(
    state: AppState, diagnostics: str, job_state: JobState, reason: Reason, code: int
) -> None:
    outcome = outcome_of(state, diagnostics, None)
    assert (outcome.state, outcome.reason, outcome.exit_code) == (job_state, reason, code)


@pytest.mark.parametrize("state", list(AppState))
@pytest.mark.parametrize(
    ("job_state", "reason", "code"),
    [
        (JobState.SUCCEEDED, Reason.SUCCEEDED, 0),
        (JobState.FAILED, Reason.WORKER_EXIT, 100),
        (JobState.FAILED, Reason.QUEUE_TIMEOUT, 105),
        (JobState.KILLED, Reason.CANCELLED, 103),
    ],
)
def test_the_verdict_outranks_the_cluster(state: AppState, job_state: JobState, reason: Reason, code: int) -> None:
    outcome = outcome_of(state, "anything (INTERNAL)", verdict(job_state, reason))
    assert (outcome.state, outcome.reason, outcome.exit_code) == (job_state, reason, code)
    assert (outcome.first_failure is None) == (reason is Reason.SUCCEEDED)


@pytest.mark.parametrize("state", [state for state in AppState if not state.ended])
def test_a_job_that_goes_on_has_no_outcome(state: AppState) -> None:
    with pytest.raises(NotFinished):
        outcome_of(state, "", None)


def test_success_is_believed_of_verdict_and_cluster_alone() -> None:
    for state in (AppState.FAILED, AppState.KILLED):
        for text in ("", "SUCCEEDED", "(SUCCEEDED)", "FinalStatus: SUCCEEDED"):
            assert outcome_of(state, text, None).state is not JobState.SUCCEEDED
