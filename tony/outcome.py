"""How a job ended, from whatever can still be read: its verdict, or else the cluster's report."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tony.containers import AppReport, AppState
from tony.errors import NotFinished
from tony.snapshot import Failure, Verdict
from tony.state import JobState, Reason


@dataclass(frozen=True)
class Outcome:
    """The end of a job. `exit_code` is what a command that waited for it ends with."""

    state: JobState
    reason: Reason
    message: str
    exit_code: int
    verdict: Verdict | None = None
    first_failure: Failure | None = None


_NAMED = re.compile(r"(?:^|\()([A-Z][A-Z_]+)(?:: |\))")
_SIGNS: tuple[tuple[str, Reason], ...] = (
    (r"exceeding its lifetime", Reason.DURATION),
    (r"AccessControlException|cannot submit applications|is not permitted|not authorized", Reason.NOT_PERMITTED),
    (r"unknown queue|Queue \S+ (?:is STOPPED|does not exist)|not a leaf queue", Reason.INFEASIBLE),
    (r"InvalidResourceRequest|Invalid resource request|maximum allowed allocation", Reason.INFEASIBLE),
    (r"InvalidLabelResourceRequest|doesn't have access to label|InvalidApplicationMasterRequest", Reason.INFEASIBLE),
    (r"running beyond virtual memory|exitCode: -103\b", Reason.OUT_OF_VMEM),
    (
        r"running beyond (?:the )?'?PHYSICAL'? memory|running beyond physical memory|exitCode: -104\b",
        Reason.OUT_OF_MEMORY,
    ),
    (r"exitCode: -102\b|[Pp]reempted", Reason.PREEMPTED),
    (r"exitCode: -101\b|No space left on device", Reason.DISK_FULL),
    (r"exitCode: -100\b|released on a \*lost\* node", Reason.NODE_LOST),
)


def outcome_of(state: AppState, diagnostics: str, verdict: Verdict | None) -> Outcome:
    """The end of an application in that state. Raises NotFinished while it has none.

    The verdict of the job's own master outranks the cluster: it was written before anything was shut down. Without
    it, SUCCEEDED is believed only of the cluster itself, and diagnostics tell the reason where they can.
    """
    if verdict is not None:
        return Outcome(
            verdict.state,
            verdict.reason,
            verdict.message,
            verdict.reason.exit_code,
            verdict,
            verdict.first_failure,
        )
    if not state.ended:
        raise NotFinished("the job has not ended")
    if state is AppState.SUCCEEDED:
        return Outcome(JobState.SUCCEEDED, Reason.SUCCEEDED, "", 0)
    said = diagnostics.strip()
    if state is AppState.KILLED:
        reason = Reason.DURATION if re.search(_SIGNS[0][0], said) else Reason.CANCELLED
        return Outcome(JobState.KILLED, reason, said or "killed", reason.exit_code)
    reason = _reason(said)
    return Outcome(
        JobState.FAILED, reason, said or "the application master ended without a verdict", reason.exit_code
    )


def outcome_of_report(report: AppReport, verdict: Verdict | None) -> Outcome:
    """`outcome_of` for a report of the cluster."""
    return outcome_of(report.state, report.diagnostics, verdict)


def _reason(diagnostics: str) -> Reason:
    """The reason that our own master wrote into the diagnostics, else what YARN's words mean, else AM_LOST."""
    for word in _NAMED.findall(diagnostics):
        if word in Reason.__members__ and Reason[word] is not Reason.SUCCEEDED:
            return Reason[word]
    for pattern, reason in _SIGNS:
        if re.search(pattern, diagnostics):
            return reason
    return Reason.AM_LOST
