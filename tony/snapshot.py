"""The job as it is now, and how it ended: the values behind ``tony status``, ``--json`` and ``verdict.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tony.state import JobState, Reason, TaskState

SCHEMA = "tony.job/1"


@dataclass(frozen=True)
class Failure:
    """What went wrong with one task. `message` is one sentence; `tail` the last lines of standard error."""

    task: str
    reason: Reason
    message: str
    host: str = ""
    generation: int = 0
    incarnation: int = 0
    exit_code: int | None = None
    signal: str | None = None
    tail: tuple[str, ...] = ()
    traceback: str = ""
    at: float = 0.0
    container: str = ""


@dataclass(frozen=True)
class TaskSnapshot:
    """One row of ``tony status``. Ages are seconds; `last_beat_s` is None before the first beat."""

    task: str
    state: TaskState
    incarnation: int
    host: str = ""
    node: str = ""
    container: str = ""
    endpoint: str = ""
    age_s: float = 0.0
    last_beat_s: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    tracked: bool = True
    gpus: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    progress: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""


@dataclass(frozen=True)
class ExcludedNode:
    """A node that the job keeps away from, until that wall time."""

    node: str
    why: str
    until: float


@dataclass(frozen=True)
class JobSize:
    """How many tasks of its elastic role a job has `now`, is to have, and may have."""

    role: str
    now: int
    target: int
    least: int
    most: int


@dataclass(frozen=True)
class Timeline:
    """Moments of a job in wall time, seconds since the epoch; 0 where not reached."""

    am_started: float = 0.0
    allocated: float = 0.0
    released: float = 0.0
    first_output: float = 0.0
    last_exit: float = 0.0
    finished: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """How the job ended. Written once, before anything is shut down; a later attempt repeats it.

    `collateral` names the tasks that ended because of the first failure.
    """

    application_id: str
    name: str
    state: JobState
    reason: Reason
    message: str
    generations: int = 1
    first_failure: Failure | None = None
    collateral: tuple[str, ...] = ()
    tasks: tuple[TaskSnapshot, ...] = ()
    timeline: Timeline = Timeline()
    started_at: float = 0.0
    urls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobSnapshot:
    """The whole job now. `waiting_for` is a sentence, empty when it waits for nothing."""

    application_id: str
    name: str
    user: str
    state: JobState
    generation: int
    attempt: int
    queue: str = ""
    waiting_for: str = ""
    started_at: float = 0.0
    now: float = 0.0
    tasks: tuple[TaskSnapshot, ...] = ()
    timeline: Timeline = Timeline()
    urls: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    last_event: int = 0
    verdict: Verdict | None = None
    excluded_nodes: tuple[ExcludedNode, ...] = ()
    size: JobSize | None = None

    @property
    def waits(self) -> str:
        """`waiting_for` as words that stand alone."""
        return self.waiting_for if "waiting" in self.waiting_for else f"waiting for {self.waiting_for}"
