"""The small state that a restarted application master reads, and the machine made from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from appmaster.gang import Stages
from appmaster.incident import Incident
from appmaster.machine import JobMachine
from appmaster.nodes import NodeMemory
from appmaster.policy import Budget
from appmaster.tasks import TaskRecord
from tony.snapshot import Verdict
from tony.spec import JobSpec
from tony.state import JobState, TaskState

_PLAIN = (
    "state",
    "generation",
    "stage",
    "rounds",
    "budget",
    "verdict",
    "restarts",
    "incident",
    "started_at",
    "queue_deadline",
    "gang_deadline",
    "backoff_until",
    "stop_deadline",
    "stop_grace_s",
    "wall_offset",
    "nodes",
    "target",
    "resize_deadline",
    "shrink_at",
    "grow_at",
    "joined_at",
)


@dataclass(frozen=True)
class KeptState:
    """Everything of a `JobMachine` that cannot be asked for again. Monotonic times hold on one host only."""

    state: JobState
    attempt: int
    generation: int
    stage: int
    rounds: int
    budget: Budget
    verdict: Verdict | None
    restarts: int
    incident: Incident | None
    started_at: float
    queue_deadline: float | None
    gang_deadline: float | None
    backoff_until: float | None
    stop_deadline: float | None
    stop_grace_s: float
    wall_offset: float
    tasks: list[TaskRecord]
    urls: dict[str, str] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    last_event: int = 0
    nodes: NodeMemory = field(default_factory=NodeMemory)
    target: int = 0
    resize_deadline: float | None = None
    shrink_at: float | None = None
    grow_at: float | None = None
    joined_at: float = 0.0
    number: int = 0


def keep(machine: JobMachine, last_event: int, number: int = 0) -> KeptState:
    """The state of the machine now, the `number`-th of the job. Encode it at once: its objects are the machine's."""
    return KeptState(
        **{name: getattr(machine, name) for name in _PLAIN},
        attempt=machine.attempt,
        tasks=list(machine.tasks.values()),
        urls=machine.urls,
        marks=machine.marks,
        last_event=last_event,
        number=number,
    )


def same_attempt(
    kept: KeptState, job: JobSpec, application_id: str, user: str, now: float, *, node_count: int = 1
) -> JobMachine:
    """The machine as it was, for a process that was started again in the same container."""
    machine = JobMachine(
        job,
        application_id,
        user,
        now=now,
        wall=now + kept.wall_offset,
        attempt=kept.attempt,
        node_count=node_count,
    )
    for name in _PLAIN:
        setattr(machine, name, getattr(kept, name))
    machine.tasks.update({record.task: record for record in kept.tasks})
    machine.stages = Stages(job, machine.tasks)
    machine.urls, machine.marks = dict(kept.urls), dict(kept.marks)
    return machine


def next_attempt(
    kept: KeptState,
    job: JobSpec,
    application_id: str,
    user: str,
    attempt: int,
    now: float,
    wall: float,
    *,
    node_count: int = 1,
) -> JobMachine:
    """The machine for a new attempt: every container is gone, the job goes on from its checkpoints.

    Tasks of finished stages stay finished; all others start again with a higher incarnation and generation.
    """
    machine = JobMachine(job, application_id, user, now=now, wall=wall, attempt=attempt, node_count=node_count)
    machine.generation = kept.generation + 1
    machine.stage, machine.rounds, machine.budget = kept.stage, kept.rounds, kept.budget
    machine.restarts, machine.urls = kept.restarts, {}
    machine.marks = {**kept.marks, "am_started": wall}
    machine.target = kept.target
    ahead_s = kept.wall_offset - machine.wall_offset
    machine.nodes = kept.nodes.shifted(ahead_s)
    for record in kept.tasks:
        finished = record.state is TaskState.SUCCEEDED and not machine.stages.contains(machine.stage, record.task)
        if not finished:
            record.next_incarnation()
        record.fences = {number: at + ahead_s for number, at in record.fences.items()}
        machine.tasks[record.task] = record
    machine.stages = Stages(job, machine.tasks)
    return machine
