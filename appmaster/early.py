"""A rank that ended with 0 while the others still need it: the rest waits in a collective operation for ever. Pure.

Ranks may end at different times for good reasons, so the end alone proves nothing. It does when the others show no
sign of progress afterwards, for as long as `Times.early_exit_s`, and when the ranks need each other at all: not those
of a standalone job, not beside parameter servers, not where another success policy or restart policy says that each
stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appmaster.pulse import Pulse
from appmaster.tasks import TaskRecord
from tony.frameworks.layout import ranked
from tony.snapshot import Failure
from tony.spec import JobSpec, RestartPolicy, SuccessPolicy, TaskId
from tony.state import Reason, TaskState
from tony.units import format_duration

_SLOWEST = 5
"""The others' silence must be longer than so many of their slowest steps, too."""

_ALONE = frozenset({"standalone", "mxnet"})
_SERVERS = frozenset({"ps", "server", "scheduler"})


def ranks_that_need_each_other(job: JobSpec, gang: Sequence[TaskRecord]) -> tuple[TaskId, ...]:
    """The tasks of a gang that train in step, as far as the job tells; none where they may not."""
    apart = (
        job.framework in _ALONE
        or job.success is not SuccessPolicy.ALL
        or job.restart.policy is RestartPolicy.TASK
        or any(record.task.role in _SERVERS for record in gang)
    )
    return () if apart else ranked(job, [record.task for record in gang])


def early_exit(
    job: JobSpec,
    gang: Sequence[TaskRecord],
    pulses: Mapping[TaskId, Pulse],
    ended_at: Mapping[TaskId, float],
    now: float,
) -> Failure | None:
    """The failure of the rank that ended first, once it is clear that the others cannot go on without it."""
    limit_s = job.times.early_exit_s
    if not limit_s or not ended_at:
        return None
    ranks = set(ranks_that_need_each_other(job, gang))
    ended = [r for r in gang if r.task in ranks and r.state is TaskState.SUCCEEDED and r.task in ended_at]
    waiting = [r for r in gang if r.task in ranks and r.state is TaskState.RUNNING and r.failure is None]
    if not ended or not waiting or len(ended) + len(waiting) < len(ranks):
        return None
    first = min(ended, key=lambda record: ended_at[record.task])
    for record in waiting:
        pulse = pulses.get(record.task)
        if pulse is None:
            return None
        silent_s = min(pulse.quiet_s(now), now - ended_at[first.task])
        if silent_s < max(limit_s, _SLOWEST * pulse.slowest_s):
            return None
    lived = first.report.seconds if first.report is not None else 0.0
    others = f" (and {len(ended) - 1} more)" if len(ended) > 1 else ""
    message = (
        f"{first.task} ended after {format_duration(lived)}{others} while {len(waiting)} run;"
        f" they show no progress for {format_duration(limit_s)}"
    )
    return Failure(
        task=str(first.task),
        reason=Reason.EARLY_EXIT,
        message=message,
        host=first.host,
        generation=first.report.generation if first.report is not None else 0,
        incarnation=first.incarnation,
        exit_code=0,
        container=first.container_id,
    )
