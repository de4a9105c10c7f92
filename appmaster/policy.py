"""What to do about a root cause: a pure function of the failure and of what was already tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tony.snapshot import Failure
from tony.spec import JobSpec, OnHang, RestartPolicy, RoleSpec, SuccessPolicy, TaskId
from tony.state import Fault, Reason

_CLASH_LIMIT = 5
"""Restarts for a clash of ports: nobody's fault and over in seconds, but not for ever."""

_STRAGGLER_LIMIT = 3
"""Stragglers that are replaced. A slow job is better than none: afterwards it goes on as it is."""

_FINAL = frozenset(
    {
        Reason.BAD_ARCHIVE,
        Reason.ARTIFACT_CHANGED,
        Reason.UNREACHABLE_PEER,
        Reason.BAD_ENV,
        Reason.BAD_IMAGE,
        Reason.USER_IMPORT,
        Reason.GPU_OOM,
        Reason.INFEASIBLE,
        Reason.NOT_PERMITTED,
        Reason.INTERNAL,
    }
)
"""Reasons that a second try cannot change."""

_PLATFORM = frozenset(
    {
        Reason.NODE_LOST,
        Reason.PREEMPTED,
        Reason.EXECUTOR_LOST,
        Reason.EXECUTOR_UNRESPONSIVE,
        Reason.PARTITIONED,
        Reason.ARTIFACT_CHANGED,
        Reason.LAUNCH_FAILED,
        Reason.OUT_OF_MEMORY,
        Reason.OUT_OF_VMEM,
        Reason.DISK_FULL,
        Reason.GPU_FAULT,
        Reason.REGISTRATION_TIMEOUT,
        Reason.BAD_ARCHIVE,
        Reason.BAD_ENV,
        Reason.BAD_IMAGE,
    }
)

_ECHO_SIGNALS = frozenset({"SIGABRT", "SIGTERM", "SIGPIPE", "SIGHUP"})
"""Signals with which frameworks end themselves when a peer has gone: no better evidence than an exit code."""


class Action(str, Enum):
    """What the machine is to do."""

    IGNORE = "ignore"
    RESTART_GANG = "restart the gang"
    REPLACE_TASK = "replace the task"
    FAIL = "fail the job"


@dataclass(frozen=True)
class Decision:
    """An action, its reason in words, and the reason of the verdict where the job ends."""

    action: Action
    why: str
    reason: Reason | None = None


@dataclass
class Budget:
    """What was already tried. `same` counts a failure that came again without progress in between."""

    infrastructure: int = 0
    user: int = 0
    clashes: int = 0
    preemptions: int = 0
    stragglers: int = 0
    last: str = ""
    same: int = 0
    best_step: float = -1.0

    def charge(self, root: Failure, step: float) -> None:
        """Count a root cause. `step` is the highest step that any task has reported so far."""
        if root.reason is Reason.STRAGGLER:
            self.stragglers += 1
            return
        signature = _signature(root)
        progressed = step > self.best_step
        self.same = 1 if progressed or signature != self.last else self.same + 1
        self.last, self.best_step = signature, max(step, self.best_step)
        if root.reason is Reason.PORT_CLASH:
            self.clashes += 1
        elif root.reason is Reason.PREEMPTED:
            self.preemptions += 1
        elif root.reason.fault is Fault.INFRASTRUCTURE or root.reason is Reason.HUNG:
            # Who made it hang nobody knows; with `on_hang: restart` the user has asked for another try.
            self.infrastructure += 1
        else:
            self.user += 1


def _signature(root: Failure) -> str:
    """What makes two failures the same: the user's code fails alike on any rank, the platform does not."""
    same = f"{root.reason.value} {root.message}"
    of_the_platform = root.reason in _PLATFORM and root.reason.fault is Fault.INFRASTRUCTURE
    return f"{root.task} {same}" if of_the_platform else same


def root_cause(failures: Sequence[Failure]) -> Failure:
    """The failure that explains the others: the platform's outrank signals, signals outrank exits; then the first."""
    return min(enumerate(failures), key=lambda pair: (_weight(pair[1]), pair[0]))[1]


def _weight(failure: Failure) -> int:
    if failure.reason in _PLATFORM:
        return 0
    if failure.reason is Reason.STRAGGLER:
        return 3
    if failure.reason is Reason.UNREACHABLE_PEER or (failure.signal and failure.signal not in _ECHO_SIGNALS):
        return 1
    return 2


def decide(root: Failure, job: JobSpec, budget: Budget) -> Decision:
    """What follows from a root cause that was already charged to the budget."""
    task = TaskId.parse(root.task)
    role = job.role(task.role)
    if role.sidecar:
        return Decision(Action.IGNORE, f"{task} is a sidecar")
    if root.reason is Reason.STRAGGLER:
        return _decide_straggler(job, budget)
    if root.reason is Reason.HUNG and job.hang.action is not OnHang.RESTART:
        return Decision(Action.FAIL, f"on_hang: {job.hang.action.value}", root.reason)
    if root.reason is not Reason.HUNG and _does_not_count(task, role, job):
        return Decision(Action.IGNORE, f"success is decided by {job.success.value}, not by {task}")
    if role.stop_on_failure:
        return Decision(Action.FAIL, f"role {role.name} stops the job on failure", root.reason)
    if root.reason in _FINAL:
        return Decision(Action.FAIL, "a second try cannot change it", root.reason)
    limit, used, whose = _allowance(root.reason, job, budget)
    if used > limit or job.restart.policy is RestartPolicy.NEVER:
        why = "restarts are off" if job.restart.policy is RestartPolicy.NEVER else f"{whose}: {limit} allowed"
        return Decision(Action.FAIL, why, root.reason)
    if budget.same >= job.restart.same_failure and root.reason is not Reason.PREEMPTED:
        return Decision(Action.FAIL, f"the same failure {budget.same} times without progress", Reason.REPEATED)
    why = f"{whose}: {used} of {limit}" if limit else whose
    if job.restart.policy is RestartPolicy.TASK:
        return Decision(Action.REPLACE_TASK, why)
    return Decision(Action.RESTART_GANG, why)


def _decide_straggler(job: JobSpec, budget: Budget) -> Decision:
    if job.restart.policy is RestartPolicy.NEVER:
        return Decision(Action.IGNORE, "restarts are off")
    why = f"replaced stragglers: {budget.stragglers} of {_STRAGGLER_LIMIT}"
    if budget.stragglers > _STRAGGLER_LIMIT:
        return Decision(Action.IGNORE, f"replaced stragglers: {_STRAGGLER_LIMIT} allowed")
    return Decision(Action.REPLACE_TASK if job.restart.policy is RestartPolicy.TASK else Action.RESTART_GANG, why)


def _allowance(reason: Reason, job: JobSpec, budget: Budget) -> tuple[int, int, str]:
    """How many restarts this kind of failure allows, how many it has used with this one, and its name."""
    if reason is Reason.PREEMPTED:
        return budget.preemptions, budget.preemptions, "preemption does not count"
    if reason is Reason.PORT_CLASH:
        return _CLASH_LIMIT, budget.clashes, "restarts for a clash of ports"
    if reason.fault is Fault.INFRASTRUCTURE or reason is Reason.HUNG:
        return job.restart.max_infrastructure, budget.infrastructure, "restarts for infrastructure"
    return job.restart.max_user, budget.user, "restarts for user errors"


def _does_not_count(task: TaskId, role: RoleSpec, job: JobSpec) -> bool:
    if not role.tracked or job.success is SuccessPolicy.ALL:
        return False
    return job.success is SuccessPolicy.ANY or task != chief(job)


def chief(job: JobSpec) -> TaskId:
    """The task of role ``chief``, else the first tracked one."""
    names = [role.name for role in job.roles if role.tracked]
    return TaskId("chief" if "chief" in names else names[0], 0)
