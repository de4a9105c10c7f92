"""Stages, and the words for what an incomplete gang is waiting for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from appmaster.policy import chief
from appmaster.tasks import TaskRecord
from tony.spec import ClusterSpec, JobSpec, RoleSpec, SuccessPolicy, TaskId
from tony.state import TaskState
from tony.units import format_memory


class Stages:
    """The roles of a job in the order of their stages, and the tasks of each stage.

    A role's stage is one after the latest that it depends on. A stage's *gang* is released together: all of its
    tasks but sidecars, which are let go whenever they are ready. Raises ValueError for a circle or an unknown
    name; the resolver has refused both long before.
    """

    def __init__(self, job: JobSpec, tasks: Mapping[TaskId, TaskRecord]) -> None:
        self._job = job
        self._tasks = tasks
        self._roles: list[tuple[RoleSpec, ...]] = []
        remaining = {role.name: role for role in job.roles}
        done: set[str] = set()
        while remaining:
            ready = tuple(role for role in remaining.values() if done.issuperset(role.depends_on))
            if not ready:
                raise ValueError(f"roles depend on each other in a circle: {', '.join(remaining)}")
            self._roles.append(ready)
            done.update(role.name for role in ready)
            remaining = {name: role for name, role in remaining.items() if name not in done}

        self._blocking = 0
        self.recount()

    def recount(self) -> None:
        """Look again at which tasks are wanted. To be called whenever that has changed."""
        self._records = [tuple(self._of(*roles)) for roles in self._roles]
        self._gangs = [tuple(self._of(*(r for r in roles if not r.sidecar))) for roles in self._roles]
        self._sidecars = [tuple(self._of(*(r for r in roles if r.sidecar))) for roles in self._roles]

    def is_last(self, stage: int) -> bool:
        """Whether nothing comes after it."""
        return stage + 1 == len(self._roles)

    def contains(self, stage: int, task: TaskId) -> bool:
        """Whether the task belongs to that stage."""
        return self.contains_role(stage, task.role)

    def contains_role(self, stage: int, name: str) -> bool:
        """Whether the tasks of that role belong to that stage."""
        return any(role.name == name for role in self._roles[stage])

    def records(self, stage: int) -> Sequence[TaskRecord]:
        """Every task of the stage."""
        return self._records[stage]

    def gang(self, stage: int) -> Sequence[TaskRecord]:
        """The tasks of the stage that are released together."""
        return self._gangs[stage]

    def releasable(self, stage: int) -> Iterator[TaskRecord]:
        """The tasks of the stage, and sidecars of earlier ones."""
        for sidecars in self._sidecars[:stage]:
            yield from sidecars
        yield from self._records[stage]

    def ready(self, stage: int, generation: int, now: float) -> bool:
        """Whether the whole gang may be released.

        Asked after every fact, so it remembers who was not ready last time: a gang of ten thousand that registers
        one by one is walked twice in all, not ten thousand times.
        """
        gang = self._gangs[stage]
        self._blocking = min(self._blocking, len(gang))
        while self._blocking < len(gang):
            if not gang[self._blocking].ready_for(generation, now):
                return False
            self._blocking += 1
        self._blocking = next((n for n, r in enumerate(gang) if not r.ready_for(generation, now)), 0)
        return not gang or gang[self._blocking].ready_for(generation, now)

    def cluster(self, stage: int, generation: int, sidecar: TaskRecord | None = None) -> ClusterSpec:
        """What the gang is told of itself; a `sidecar` is told the same and finds itself in it, last."""
        members = self._gangs[stage] if sidecar is None else (*self._gangs[stage], sidecar)
        return ClusterSpec(
            generation,
            {r.task: r.endpoint for r in members if r.endpoint is not None},
            {r.task: r.started_in for r in members if r.ports is not None and r.ports.kept},
        )

    def done(self, stage: int) -> bool:
        """Whether the success policy is satisfied, for this stage."""
        first = chief(self._job)
        if self._job.success is SuccessPolicy.CHIEF and self.contains(stage, first):
            return self._tasks[first].state is TaskState.SUCCEEDED
        succeeded = (r.state is TaskState.SUCCEEDED for r in self._gangs[stage] if r.tracked)
        return any(succeeded) if self._job.success is SuccessPolicy.ANY else all(succeeded)

    def _of(self, *roles: RoleSpec) -> Iterator[TaskRecord]:
        every = (self._tasks[TaskId(role.name, index)] for role in roles for index in range(role.most))
        return (record for record in every if record.wanted)


def beat_s(task_count: int, base_s: float) -> float:
    """Seconds between two beats: one second up to 500 tasks, then in proportion, ten at most."""
    return min(10.0, max(base_s, task_count / 500))


def fraction_done(records: Iterable[TaskRecord]) -> float:
    """How far the job is, from 0 to 1: what its tasks report as ``progress``, else the share that has succeeded."""
    done = total = 0
    reported = 0.0
    for record in records:
        if record.tracked:
            total += 1
            done += record.state is TaskState.SUCCEEDED
            reported = max(reported, record.progress.get("progress", 0.0))
    return min(1.0, max(reported, done / total if total else 0.0))


def waiting_for(gang: Iterable[TaskRecord], job: JobSpec, generation: int) -> str:
    """What an incomplete gang lacks, in one sentence; empty when it is complete."""
    records = list(gang)
    asked = [r for r in records if r.state in (TaskState.NEW, TaskState.REQUESTED)]
    if asked:
        wanted = Counter(r.task.role for r in asked)
        parts = [f"{count} × {name} {size_words(job.role(name))}" for name, count in wanted.items()]
        held = len(records) - len(asked)
        return f"{held} of {len(records)} containers allocated, waiting for {', '.join(parts)} in queue {job.queue}"
    silent = [r for r in records if r.state is TaskState.HELD]
    if silent:
        heard = len(records) - len(silent)
        return f"{heard} of {len(records)} executors registered, waiting for {_names(silent)} to start"
    unready = [r for r in records if r.ports is None or r.ports.generation != generation]
    if unready:
        return f"all registered, waiting for {_names(unready)} to prepare"
    fenced = [r for r in records if not r.connected or r.state is not TaskState.REGISTERED]
    if fenced:
        return f"waiting for {_names(fenced)} to come back"
    held_back = [r for r in records if r.release_after > 0]
    if held_back:
        return f"waiting until the lost predecessor of {_names(held_back)} has certainly ended"
    return ""


def size_words(role: RoleSpec) -> str:
    """What one container of the role is, for people: ``{8g, 4 GPU}``."""
    resources = role.resources
    parts = [format_memory(resources.memory_mb)]
    if resources.vcores > 1:
        parts.append(f"{resources.vcores} vcores")
    if resources.gpus:
        parts.append(f"{resources.gpus} GPU")
    parts += [f"{count} {name}" for name, count in sorted(resources.other.items())]
    return "{" + ", ".join(parts) + "}"


def _names(records: list[TaskRecord]) -> str:
    shown = ", ".join(str(record.task) for record in records[:4])
    return shown if len(records) <= 4 else f"{shown} and {len(records) - 4} more"
