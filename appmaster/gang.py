"""Stages, and the words for what an incomplete gang is waiting for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

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

    def __len__(self) -> int:
        return len(self._roles)

    def is_last(self, stage: int) -> bool:
        """Whether nothing comes after it."""
        return stage + 1 == len(self._roles)

    def contains(self, stage: int, task: TaskId) -> bool:
        """Whether the task belongs to that stage."""
        return any(role.name == task.role for role in self._roles[stage])

    def records(self, stage: int) -> Iterator[TaskRecord]:
        """Every task of the stage."""
        for role in self._roles[stage]:
            yield from self._of(role)

    def gang(self, stage: int) -> Iterator[TaskRecord]:
        """The tasks of the stage that are released together."""
        for role in self._roles[stage]:
            if not role.sidecar:
                yield from self._of(role)

    def releasable(self, stage: int) -> Iterator[TaskRecord]:
        """The tasks of the stage, and sidecars of earlier ones."""
        for earlier in self._roles[:stage]:
            for role in earlier:
                if role.sidecar:
                    yield from self._of(role)
        yield from self.records(stage)

    def cluster(self, stage: int, generation: int) -> ClusterSpec:
        """What the gang is told of itself."""
        endpoints = {r.task: r.endpoint for r in self.gang(stage) if r.endpoint is not None}
        return ClusterSpec(generation, endpoints)

    def done(self, stage: int) -> bool:
        """Whether the success policy is satisfied, for this stage."""
        tracked = [record for record in self.gang(stage) if record.tracked]
        first = chief(self._job)
        if self._job.success is SuccessPolicy.CHIEF and self.contains(stage, first):
            return self._tasks[first].state is TaskState.SUCCEEDED
        succeeded = [record.state is TaskState.SUCCEEDED for record in tracked]
        return any(succeeded) if self._job.success is SuccessPolicy.ANY and tracked else all(succeeded)

    def _of(self, role: RoleSpec) -> Iterator[TaskRecord]:
        return (self._tasks[TaskId(role.name, index)] for index in range(role.instances))


def beat_s(task_count: int, base_s: float) -> float:
    """Seconds between two beats: one second up to 500 tasks, then in proportion, ten at most."""
    return min(10.0, max(base_s, task_count / 500))


def waiting_for(gang: Iterable[TaskRecord], job: JobSpec, generation: int) -> str:
    """What an incomplete gang lacks, in one sentence; empty when it is complete."""
    records = list(gang)
    asked = [r for r in records if r.state in (TaskState.NEW, TaskState.REQUESTED)]
    if asked:
        wanted = Counter(r.task.role for r in asked)
        parts = [f"{count} × {name} {_size(job.role(name))}" for name, count in wanted.items()]
        held = len(records) - len(asked)
        return f"{held} of {len(records)} containers allocated, waiting for {', '.join(parts)} in queue {job.queue}"
    silent = [r for r in records if r.state is TaskState.HELD]
    if silent:
        heard = len(records) - len(silent)
        return f"{heard} of {len(records)} executors registered, waiting for {_names(silent)} to start"
    unready = [r for r in records if r.ports is None or r.ports.generation != generation]
    if unready:
        return f"all registered, {_names(unready)} preparing"
    fenced = [r for r in records if not r.connected or r.state is not TaskState.REGISTERED]
    if fenced:
        return f"waiting for {_names(fenced)} to come back"
    held_back = [r for r in records if r.release_after > 0]
    if held_back:
        return f"waiting until the lost predecessor of {_names(held_back)} has certainly ended"
    return ""


def _size(role: RoleSpec) -> str:
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
