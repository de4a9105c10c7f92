"""How the user processes get on: the part of the machine that looks at what runs, and at what only seems to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.attendance import Attendance
from appmaster.early import early_exit, ranks_that_need_each_other
from appmaster.hang import Hang, find_hang
from appmaster.pulse import Pulse
from appmaster.settle import failure_of
from appmaster.straggler import Medians, Pace, medians
from appmaster.tasks import TaskRecord
from tony.events import EventKind, Warned
from tony.snapshot import Failure
from tony.spec import JobSpec, OnHang, OnStraggler, TaskId
from tony.state import JobState, Reason, TaskState

_LOOK_S = 1.0
_LOOKS_PER_S = 1000
"""At so many tasks; ten thousand are looked at every 10 s."""


class Watching(Attendance):
    """Keeps a pulse of every released task. Nothing of it is kept over a restart: it begins anew then."""

    def __init__(self, job: JobSpec, now: float, wall: float) -> None:
        super().__init__(job, now, wall)
        self._pulses: dict[TaskId, Pulse] = {}
        self._ended_at: dict[TaskId, float] = {}
        self._paces: dict[TaskId, Pace] = {}
        self._medians: Medians = {}
        self._hang: Hang | None = None
        self._watched_generation = 0
        self._look_at = now

    @abstractmethod
    def _gang(self) -> tuple[TaskRecord, ...]:
        """The tasks that were released together."""

    @abstractmethod
    def _accuse(self, failure: Failure) -> None:
        """A failure that no task has reported."""

    def _on_beaten(self, fact: on.Beaten) -> None:
        super()._on_beaten(fact)
        pulse, record = self._pulses.get(fact.identity.task), self.current(fact.identity)
        if pulse is None or record is None:
            return
        # The record's own dictionary: looking things up in a message of the wire costs ten times as much.
        progress = dict(fact.progress) if fact.progress else {}
        if pulse.beat(record.metrics if fact.metrics else {}, progress, self._now):
            self._watch_pace(record.task, progress)

    def _watch_pace(self, task: TaskId, progress: Mapping[str, float]) -> None:
        pace = self._paces.setdefault(task, Pace())
        median_s = self._medians.get((task.role, pace.own)) if pace.report(progress, self._now) else None
        if median_s is None:
            return
        record, slow = self.tasks[task], pace.compare(median_s, self._now)
        if slow:
            record.warning = (
                f"{task} on {record.host} takes {pace.step_s / median_s:.1f} times as long for a step as its peers"
                f" ({pace.step_s:.3g} s, median {median_s:.3g} s)"
            )
            self._event(EventKind.WARNING, record.warning, task, reason=Warned.STRAGGLER.value, host=record.host)
            if self.job.on_straggler is OnStraggler.REPLACE:
                failure = failure_of(record, self.generation, Reason.STRAGGLER, record.warning)
                self._accuse(replace(failure, at=self._wall()))
        elif slow is False:
            record.warning = ""
            self._event(EventKind.NOTE, f"{task} keeps pace again", task)

    def _nobody_listened(self, seconds: float) -> None:
        for pulse in self._pulses.values():
            pulse.shift(seconds)

    def _watch(self) -> None:
        """Look at everybody, about once a second."""
        if self._now < self._look_at:
            return
        self._look_at = self._now + max(_LOOK_S, len(self.tasks) / _LOOKS_PER_S)
        gang = self._gang()
        self._follow(gang)
        self._medians = medians(self._paces)
        if self.state is JobState.RUNNING:
            failure = early_exit(self.job, gang, self._pulses, self._ended_at, self._now)
            if failure is not None:
                self._ended_at.clear()
                self._accuse(replace(failure, at=self._wall()))
            self._watch_for_hangs(gang)

    def _ended_before(self, root: Failure) -> str:
        """A rank whose peer has ended often fails with words about a connection: say whose end it was."""
        if root.reason not in (Reason.WORKER_EXIT, Reason.WORKER_SIGNAL):
            return ""
        gang = self._gang()
        ranks = ranks_that_need_each_other(self.job, gang)
        ended = [str(r.task) for r in gang if r.state is TaskState.SUCCEEDED and r.task in ranks]
        if not ended or root.task not in map(str, ranks):
            return ""
        more = f" and {len(ended) - 1} more" if len(ended) > 1 else ""
        return f" ({ended[0]}{more} had ended with 0 before)"

    def _watch_for_hangs(self, gang: tuple[TaskRecord, ...]) -> None:
        found = find_hang(self.job.hang, gang, self._pulses, self._now)
        hang = self._hang
        if hang is None and found is not None:
            self._begin_hang(found, gang)
        elif hang is not None and found is None:
            # Another limit may have been passed meanwhile; only signs of progress end a hang.
            self._event(EventKind.NOTE, "the job makes progress again", hang.task)
            self.tasks[hang.task].warning = ""
            self._hang = None
        elif hang is not None and not hang.decided and hang.ready(self._now):
            hang.decided = True
            if self.job.hang.action is not OnHang.WARN:
                self._accuse(hang.failure(self.tasks[hang.task], self.generation, self._wall()))

    def _begin_hang(self, hang: Hang, gang: tuple[TaskRecord, ...]) -> None:
        """Warn, and ask everybody where they are; what follows waits for that."""
        present = [record for record in gang if record.connected and record.state is TaskState.RUNNING]
        hang.asked = frozenset(record.task for record in present)
        self._hang = hang
        self.tasks[hang.task].warning = hang.message
        text = f"{hang.message}. The stacks of all tasks go into their logs, among standard error"
        self._event(EventKind.WARNING, text, hang.task, reason=Warned.HUNG.value, host=self.tasks[hang.task].host)
        self._out.extend(do.SayDumpStacks(record.identity) for record in present)

    def _on_stacks_taken(self, fact: on.StacksTaken) -> None:
        if self._heard(fact.identity) is not None and self._hang is not None:
            self._hang.stacks[fact.identity.task] = fact.text

    def _follow(self, gang: tuple[TaskRecord, ...]) -> None:
        """Pulses for those who run now, and for nobody else."""
        if self.generation != self._watched_generation:
            self._watched_generation = self.generation
            self._hang = None
            self._paces.clear()
            self._pulses.clear()
            self._ended_at.clear()
        for record in gang:
            if record.state is TaskState.RUNNING and record.failure is None:
                if record.task not in self._pulses:
                    self._pulses[record.task] = Pulse(self._now)
                continue
            self._pulses.pop(record.task, None)
            self._paces.pop(record.task, None)
            if record.state is TaskState.SUCCEEDED:
                self._ended_at.setdefault(record.task, self._now)
