"""Stages, and the words for what an incomplete gang is waiting for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from appmaster.tasks import TaskRecord
from tony.spec import JobSpec, RoleSpec
from tony.state import TaskState
from tony.units import format_memory


def stages(job: JobSpec) -> list[tuple[RoleSpec, ...]]:
    """Roles in the order of their stages: a role's stage is one after the latest that it depends on.

    Raises ValueError for a circle or an unknown name; the resolver has refused both long before.
    """
    remaining = {role.name: role for role in job.roles}
    done: set[str] = set()
    found: list[tuple[RoleSpec, ...]] = []
    while remaining:
        ready = tuple(role for role in remaining.values() if done.issuperset(role.depends_on))
        if not ready:
            raise ValueError(f"roles depend on each other in a circle: {', '.join(remaining)}")
        found.append(ready)
        for role in ready:
            del remaining[role.name]
            done.add(role.name)
    return found


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
