"""The states of a task incarnation and of a job, what is true in each, which moves exist, and the reasons.

Tables as in docs/architecture.md; a move that is not in them is a defect and raises `InvalidMove`.
"""

from __future__ import annotations

from enum import Enum


class TaskState(str, Enum):
    """One incarnation of a task."""

    NEW = "NEW"
    """Known, nothing asked for."""
    REQUESTED = "REQUESTED"
    """A container was asked for."""
    HELD = "HELD"
    """A container is ours; its executor has not spoken yet."""
    REGISTERED = "REGISTERED"
    """The executor has said hello; no user process runs."""
    RUNNING = "RUNNING"
    """Released: the user process runs, or is being started."""
    SUCCEEDED = "SUCCEEDED"
    """The user process exited with 0."""
    FAILED = "FAILED"
    """The user process, the executor or the container failed."""
    LOST = "LOST"
    """Silent for too long."""
    STOPPED = "STOPPED"
    """Ended because we asked."""

    @property
    def live(self) -> bool:
        """Whether something of it may still run or come."""
        return self not in (TaskState.FAILED, TaskState.LOST, TaskState.STOPPED)

    @property
    def over(self) -> bool:
        """Whether nothing more is expected of it, success included."""
        return not self.live or self is TaskState.SUCCEEDED


TASK_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.NEW: frozenset({TaskState.REQUESTED, TaskState.STOPPED, TaskState.FAILED}),
    TaskState.REQUESTED: frozenset(
        {TaskState.HELD, TaskState.REGISTERED, TaskState.FAILED, TaskState.LOST, TaskState.STOPPED}
    ),
    TaskState.HELD: frozenset({TaskState.REGISTERED, TaskState.FAILED, TaskState.LOST, TaskState.STOPPED}),
    TaskState.REGISTERED: frozenset({TaskState.RUNNING, TaskState.FAILED, TaskState.LOST, TaskState.STOPPED}),
    TaskState.RUNNING: frozenset(
        {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.LOST, TaskState.STOPPED, TaskState.REGISTERED}
    ),
    TaskState.SUCCEEDED: frozenset({TaskState.REGISTERED, TaskState.STOPPED, TaskState.LOST, TaskState.FAILED}),
    TaskState.FAILED: frozenset(),
    TaskState.LOST: frozenset(),
    TaskState.STOPPED: frozenset(),
}


class JobState(str, Enum):
    """The job as its application master sees it."""

    NEW = "NEW"
    ALLOCATING = "ALLOCATING"
    """Containers are asked for; the gang is not complete."""
    BACKING_OFF = "BACKING_OFF"
    """An incomplete gang was given back; the next round comes after a pause."""
    RUNNING = "RUNNING"
    """The gang of the current stage was released."""
    RESTARTING = "RESTARTING"
    """A generation ended; the next is being gathered."""
    STOPPING = "STOPPING"
    """The verdict is known; what still runs is being stopped."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def ended(self) -> bool:
        """Whether this is final."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.KILLED)


class Fault(str, Enum):
    """Whose fault a reason is; restart budgets and exit codes follow from it."""

    NONE = "NONE"
    USER = "USER"
    INFRASTRUCTURE = "INFRASTRUCTURE"
    TIME = "TIME"
    ASKED = "ASKED"
    OURS = "OURS"


class Reason(str, Enum):
    """Machine-readable cause, in JSON, history and diagnostics."""

    SUCCEEDED = "SUCCEEDED"
    WORKER_EXIT = "WORKER_EXIT"
    """The user process exited with a code other than 0."""
    WORKER_SIGNAL = "WORKER_SIGNAL"
    """The user process was ended by a signal that nobody of ours sent."""
    USER_IMPORT = "USER_IMPORT"
    """The user's module or one that it imports cannot be imported."""
    EARLY_EXIT = "EARLY_EXIT"
    """One rank ended with 0 while others needed it."""
    BAD_ARCHIVE = "BAD_ARCHIVE"
    ARTIFACT_CHANGED = "ARTIFACT_CHANGED"
    """A file of the job was removed or changed after the submit."""
    BAD_ENV = "BAD_ENV"
    """The Python environment does not run on the node."""
    BAD_IMAGE = "BAD_IMAGE"
    """The Docker image, or what was asked for its containers, is refused."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUT_OF_VMEM = "OUT_OF_VMEM"
    GPU_OOM = "GPU_OOM"
    EXECUTOR_LOST = "EXECUTOR_LOST"
    """The executor's process ended without a report."""
    EXECUTOR_UNRESPONSIVE = "EXECUTOR_UNRESPONSIVE"
    """No beat for too long."""
    PARTITIONED = "PARTITIONED"
    """No beat for too long, although the executor was alive: it was cut off."""
    UNREACHABLE_PEER = "UNREACHABLE_PEER"
    """A task cannot reach another one at the address that this one has told."""
    NODE_LOST = "NODE_LOST"
    PREEMPTED = "PREEMPTED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    DISK_FULL = "DISK_FULL"
    GPU_FAULT = "GPU_FAULT"
    PORT_CLASH = "PORT_CLASH"
    AM_LOST = "AM_LOST"
    """The application master ended without a verdict."""
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    GANG_TIMEOUT = "GANG_TIMEOUT"
    REGISTRATION_TIMEOUT = "REGISTRATION_TIMEOUT"
    DURATION = "DURATION"
    HUNG = "HUNG"
    STRAGGLER = "STRAGGLER"
    """Much slower than its peers: a task is replaced for it, no job fails."""
    INFEASIBLE = "INFEASIBLE"
    CANCELLED = "CANCELLED"
    REPEATED = "REPEATED"
    """The same failure again and again, without progress."""
    NOT_PERMITTED = "NOT_PERMITTED"
    INTERNAL = "INTERNAL"
    """A defect of ours."""

    @property
    def fault(self) -> Fault:
        """Whose fault it is."""
        return _FAULTS[self]

    @property
    def exit_code(self) -> int:
        """The exit code of a client that followed a job which ended for this reason."""
        return _EXIT_CODES.get(self) or _FAULT_EXIT_CODES[self.fault]


_FAULTS = {
    Reason.SUCCEEDED: Fault.NONE,
    Reason.WORKER_EXIT: Fault.USER,
    Reason.WORKER_SIGNAL: Fault.INFRASTRUCTURE,
    Reason.USER_IMPORT: Fault.USER,
    Reason.EARLY_EXIT: Fault.USER,
    Reason.BAD_ARCHIVE: Fault.USER,
    Reason.BAD_ENV: Fault.USER,
    Reason.BAD_IMAGE: Fault.USER,
    Reason.OUT_OF_MEMORY: Fault.USER,
    Reason.OUT_OF_VMEM: Fault.USER,
    Reason.GPU_OOM: Fault.USER,
    Reason.EXECUTOR_LOST: Fault.INFRASTRUCTURE,
    Reason.EXECUTOR_UNRESPONSIVE: Fault.INFRASTRUCTURE,
    Reason.NODE_LOST: Fault.INFRASTRUCTURE,
    Reason.PARTITIONED: Fault.INFRASTRUCTURE,
    Reason.UNREACHABLE_PEER: Fault.INFRASTRUCTURE,
    Reason.ARTIFACT_CHANGED: Fault.INFRASTRUCTURE,
    Reason.PREEMPTED: Fault.INFRASTRUCTURE,
    Reason.LAUNCH_FAILED: Fault.INFRASTRUCTURE,
    Reason.DISK_FULL: Fault.INFRASTRUCTURE,
    Reason.GPU_FAULT: Fault.INFRASTRUCTURE,
    Reason.PORT_CLASH: Fault.INFRASTRUCTURE,
    Reason.AM_LOST: Fault.INFRASTRUCTURE,
    Reason.QUEUE_TIMEOUT: Fault.TIME,
    Reason.GANG_TIMEOUT: Fault.TIME,
    Reason.REGISTRATION_TIMEOUT: Fault.INFRASTRUCTURE,
    Reason.DURATION: Fault.TIME,
    Reason.HUNG: Fault.USER,
    Reason.STRAGGLER: Fault.INFRASTRUCTURE,
    Reason.INFEASIBLE: Fault.USER,
    Reason.CANCELLED: Fault.ASKED,
    Reason.REPEATED: Fault.USER,
    Reason.NOT_PERMITTED: Fault.USER,
    Reason.INTERNAL: Fault.OURS,
}

_FAULT_EXIT_CODES = {
    Fault.NONE: 0,
    Fault.USER: 100,
    Fault.INFRASTRUCTURE: 104,
    Fault.TIME: 105,
    Fault.ASKED: 103,
    Fault.OURS: 1,
}

_EXIT_CODES = {
    Reason.REGISTRATION_TIMEOUT: 105,
    Reason.HUNG: 106,
    Reason.OUT_OF_MEMORY: 107,
    Reason.OUT_OF_VMEM: 107,
    Reason.GPU_OOM: 107,
    Reason.NOT_PERMITTED: 108,
    Reason.REPEATED: 109,
    Reason.INFEASIBLE: 3,
}


class InvalidMove(AssertionError):
    """A state change that is not in the table: a defect of ours. Carries the story of what it concerns."""

    def __init__(self, subject: str, old: Enum, new: Enum, story: tuple[str, ...] = ()) -> None:
        lines = "".join(f"\n  {line}" for line in story)
        super().__init__(f"{subject}: no move {old.name} -> {new.name}{lines}")
