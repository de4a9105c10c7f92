"""Does a job that runs get on? Whoever waits in a collective operation looks alike on every rank. Pure.

A hang is one of these, for as long as the limit:
- no watched task shows any sign of progress;
- a process of a watched task is stopped (SIGSTOP, a debugger), and the rest of that task does nothing;
- a task that has reported before shows no sign at all, while another one goes on reporting;
- tasks that have reported before work, but none of them has reported for four times the limit: they wait busily.

One idle task alone is no hang: others may wait for rank 0, which evaluates or writes a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from appmaster.pulse import Pulse
from appmaster.tasks import TaskRecord
from tony.frameworks.layout import AUXILIARY
from tony.snapshot import Failure
from tony.spec import HangSpec, TaskId
from tony.state import Reason, TaskState
from tony.units import format_duration

LEARNED_LEAST_S = 600.0
_LEARNED_TIMES = 5
_BUSY_TIMES = 4
_STACK_LINES = 20

STACKS_S = 20.0
"""How long the stacks are waited for before the policy acts without them."""


@dataclass
class Hang:
    """A hang that was found at a monotonic time; `message` is the same for the same hang of a later generation."""

    task: TaskId
    message: str
    found_at: float
    asked: frozenset[TaskId] = frozenset()
    stacks: dict[TaskId, str] = field(default_factory=dict)
    decided: bool = False

    def ready(self, now: float) -> bool:
        """Whether the policy may act: everybody has answered, or has had the time."""
        return self.asked <= self.stacks.keys() or now > self.found_at + STACKS_S

    def failure(self, record: TaskRecord, generation: int, wall: float) -> Failure:
        """The hang as a failure of one of its tasks; its stack is the evidence."""
        return Failure(
            task=str(record.task),
            reason=Reason.HUNG,
            message=self.message,
            host=record.host,
            generation=generation,
            incarnation=record.incarnation,
            tail=tuple(self.stacks.get(record.task, "").splitlines()[:_STACK_LINES]),
            at=wall,
            container=record.container_id,
        )


def limit_s(spec: HangSpec, pulses: Mapping[TaskId, Pulse]) -> float:
    """The limit as it is now; 0 while hangs are not looked for."""
    if not spec.learned:
        return spec.limit_s
    slowest_s = max((pulse.slowest_s for pulse in pulses.values()), default=0.0)
    return max(LEARNED_LEAST_S, _LEARNED_TIMES * slowest_s)


def find_hang(spec: HangSpec, gang: Sequence[TaskRecord], pulses: Mapping[TaskId, Pulse], now: float) -> Hang | None:
    """The hang that there is now, if any. Auxiliary roles (ps, evaluator) and untracked ones may idle for ever."""
    limit = limit_s(spec, pulses)
    watched = [
        (record.task, pulses[record.task])
        for record in gang
        if record.state is TaskState.RUNNING
        and record.failure is None
        and record.tracked
        and record.task.role not in AUXILIARY
        and record.task in pulses
    ]
    if not limit or not watched:
        return None
    shown = format_duration(limit)
    for task, pulse in watched:
        if pulse.frozen and pulse.quiet_s(now) >= limit:
            text = f"a process of {task} is stopped (SIGSTOP or a debugger), and the task does nothing for {shown}"
            return Hang(task, text, now)
    if all(pulse.quiet_s(now) >= limit for _, pulse in watched):
        text = f"no task has reported, written or computed anything for {shown}"
        return Hang(_suspect(watched, Pulse.quiet_s, now), text, now)
    reporting = [(task, pulse) for task, pulse in watched if pulse.reported_at is not None]
    servers = any(record.task.role in AUXILIARY for record in gang)
    if any(_unreported_s(pulse, now) < limit for _, pulse in reporting) and not servers:
        for task, pulse in reporting:
            if pulse.quiet_s(now) >= limit:
                return Hang(task, f"{task} shows no sign of progress for {shown} while others report", now)
    elif reporting and all(_unreported_s(pulse, now) >= _BUSY_TIMES * limit for _, pulse in reporting):
        text = f"the tasks are busy, but none has reported for {format_duration(_BUSY_TIMES * limit)}"
        return Hang(_suspect(reporting, _unreported_s, now), text, now)
    return None


def _suspect(
    watched: Sequence[tuple[TaskId, Pulse]], silent_s: Callable[[Pulse, float], float], now: float
) -> TaskId:
    """Whom the others wait for: who reports the lowest step; where all are as far, who has been silent longest.

    A rank that stopped inside a step and those that wait for it at its end fall silent in the same second.
    """
    # Who has reported nothing is behind those with their first report. Later it is one that never does: many scripts
    # let the first rank alone report.
    beginning = max(pulse.reports for _, pulse in watched) == 1
    steps = {task: -math.inf if beginning and not pulse.reports else pulse.step for task, pulse in watched}
    known = {step for step in steps.values() if step is not None}
    least = min(known, default=None)
    behind = [pair for pair in watched if steps[pair[0]] == least] if len(known) > 1 else watched
    return max(behind, key=lambda pair: silent_s(pair[1], now))[0]


def _unreported_s(pulse: Pulse, now: float) -> float:
    return now - pulse.reported_at if pulse.reported_at is not None else 0.0
