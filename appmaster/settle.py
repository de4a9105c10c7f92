"""What became of this incarnation? The only place that answers it; the order of the rules is their precedence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from appmaster.stimuli import ExitReport
from appmaster.tasks import TaskRecord
from tony.containers import EndCause
from tony.snapshot import Failure
from tony.spec import Times
from tony.state import Reason, TaskState
from tony.units import format_duration

_END_REASONS = {
    EndCause.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    EndCause.OUT_OF_VMEM: Reason.OUT_OF_VMEM,
    EndCause.PREEMPTED: Reason.PREEMPTED,
    EndCause.NODE_LOST: Reason.NODE_LOST,
    EndCause.DISK_FAILED: Reason.DISK_FULL,
    EndCause.LAUNCH_FAILED: Reason.LAUNCH_FAILED,
    EndCause.ARTIFACT_CHANGED: Reason.ARTIFACT_CHANGED,
    EndCause.BAD_IMAGE: Reason.BAD_IMAGE,
    EndCause.BAD_ENV: Reason.BAD_ENV,
}


@dataclass(frozen=True)
class Settlement:
    """The final state of an incarnation, and what went wrong, unless it was stopped by us."""

    state: TaskState
    failure: Failure | None
    why: str


def settle(record: TaskRecord, times: Times, generation: int, now: float) -> Settlement | None:
    """The end of a live incarnation as far as it can be told now; None while it goes on.

    A reported result of the user process is not an end of the incarnation: see `failure_of_report`.
    """
    if not record.state.live:
        return None
    if record.state is TaskState.SUCCEEDED and record.ended is not None:
        return None
    if record.stop_asked and record.ended is not None:
        return Settlement(TaskState.STOPPED, None, "ended after we asked")
    if record.ended is not None:
        if record.report is not None and not record.report.succeeded:
            return Settlement(TaskState.FAILED, record.failure, "container ended after its result")
        ended_at = record.ended_at if record.ended_at is not None else now
        may_still_report = record.connected and now < ended_at + times.report_grace_s
        if not may_still_report:
            return Settlement(TaskState.FAILED, _container_failure(record, generation), "container ended")
        return None
    lost = _silence(record, times, now)
    if lost is not None:
        return Settlement(TaskState.LOST, failure_of(record, generation, Reason.EXECUTOR_UNRESPONSIVE, lost), lost)
    if (
        record.state in (TaskState.HELD, TaskState.REGISTERED)
        and record.ports is None
        and record.held_at is not None
        and now > record.held_at + times.registration_s
    ):
        text = f"not ready within {format_duration(times.registration_s)} of its container's allocation"
        failure = failure_of(record, generation, Reason.REGISTRATION_TIMEOUT, text)
        return Settlement(TaskState.FAILED, failure, text)
    if record.user_stop_deadline is not None and now > record.user_stop_deadline:
        text = "did not stop its user process in time"
        return Settlement(TaskState.LOST, failure_of(record, generation, Reason.EXECUTOR_UNRESPONSIVE, text), text)
    return None


def failure_of_report(record: TaskRecord, report: ExitReport, wall: float) -> Failure:
    """A failed result as a failure. The executor's own reason wins over what the code and the signal say."""
    if report.reason:
        reason = Reason(report.reason)
    elif report.phase == "PREPARE":
        reason = Reason.BAD_ENV
    elif report.signal:
        reason = Reason.WORKER_SIGNAL
    else:
        reason = Reason.WORKER_EXIT
    default = f"ended by {report.signal}" if report.signal else f"exit code {report.exit_code}"
    exited = report.phase == "RUN" and not report.signal
    return Failure(
        task=str(record.task),
        reason=reason,
        message=report.message or default,
        host=record.host,
        generation=report.generation,
        incarnation=record.incarnation,
        exit_code=report.exit_code if exited else None,
        signal=report.signal or None,
        tail=report.tail,
        traceback=report.traceback,
        at=wall,
        container=record.container_id,
    )


def _silence(record: TaskRecord, times: Times, now: float) -> str | None:
    if record.heard_at is None or record.state not in (
        TaskState.REGISTERED,
        TaskState.RUNNING,
        TaskState.SUCCEEDED,
    ):
        return None
    limit = max(times.lost_s, 10 * times.beat_s)
    if now - record.heard_at <= limit:
        return None
    return f"no sign of life for {format_duration(now - record.heard_at)}"


def _container_failure(record: TaskRecord, generation: int) -> Failure:
    end = record.ended
    assert end is not None
    reason = _END_REASONS.get(end.cause or EndCause.UNKNOWN)
    if reason is None:
        spoke = record.heard_at is not None
        reason = Reason.EXECUTOR_LOST if spoke else Reason.LAUNCH_FAILED
    text = end.diagnostics.strip() or "the container ended without a report"
    if record.defect is not None and reason is Reason.EXECUTOR_LOST:
        words, traceback = record.defect
        return replace(failure_of(record, generation, reason, words), traceback=traceback)
    return failure_of(record, generation, reason, text)


def failure_of(record: TaskRecord, generation: int, reason: Reason, message: str) -> Failure:
    """What the platform did to a task, or what we say of it."""
    return Failure(
        task=str(record.task),
        reason=reason,
        message=message,
        host=record.host,
        generation=generation,
        incarnation=record.incarnation,
        container=record.container_id,
        signal="SIGKILL" if reason is Reason.OUT_OF_MEMORY else None,
    )
