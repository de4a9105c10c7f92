"""The machine's state as values for others: the snapshot for clients, the verdict that is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tony.snapshot import JobSnapshot, TaskSnapshot, Timeline, Verdict

if TYPE_CHECKING:
    from appmaster.machine import JobMachine


def snapshot(machine: JobMachine, now: float, last_event: int) -> JobSnapshot:
    """The job now. `now` is monotonic."""
    return JobSnapshot(
        application_id=machine.application_id,
        name=machine.job.name,
        user=machine.user,
        state=machine.state,
        generation=machine.generation,
        attempt=machine.attempt,
        queue=machine.job.queue,
        waiting_for=machine.waiting_for,
        started_at=machine.marks["am_started"],
        now=now + machine.wall_offset,
        tasks=_tasks(machine, now),
        timeline=_timeline(machine),
        urls=dict(machine.urls),
        restarts=machine.restarts,
        last_event=last_event,
        verdict=machine.verdict,
        excluded_nodes=machine.nodes.shown(now, machine.wall_offset),
        size=machine.size,
    )


def final_verdict(machine: JobMachine, verdict: Verdict, now: float) -> Verdict:
    """The verdict with the last states of all tasks."""
    return replace(
        verdict,
        generations=machine.generation,
        tasks=_tasks(machine, now),
        timeline=_timeline(machine),
        urls=dict(machine.urls),
    )


def _tasks(machine: JobMachine, now: float) -> tuple[TaskSnapshot, ...]:
    """All but those that an elastic job could have and never had."""
    return tuple(r.snapshot(now) for r in machine.tasks.values() if r.wanted or r.asked_at is not None)


def _timeline(machine: JobMachine) -> Timeline:
    return Timeline(**{name: round(at, 3) for name, at in machine.marks.items()})
