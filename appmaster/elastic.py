"""How many tasks the gang has: it may start smaller, grow when there is room, and be resized while it runs.

One role of the job may be elastic: between `min_instances` and `max_instances`. The world changes with a generation
only: everybody is stopped politely, unless its process can live on, and released again with the new cluster spec.
A task beyond the present size is a *candidate* until a generation takes it in: its container is asked for and
prepared while the others train on.
"""

from __future__ import annotations

from abc import abstractmethod

from appmaster import stimuli as on
from appmaster.gang import Stages, size_words
from appmaster.incident import Incident
from appmaster.placement import Placement
from appmaster.tasks import TaskRecord
from tony.containers import EndCause
from tony.events import EventKind
from tony.snapshot import JobSize
from tony.spec import JobSpec
from tony.state import JobState, TaskState

_SETTLE_S = 10.0
"""After a candidate is ready, how long another one is waited for before everybody is stopped for it."""

_UNPLACED = (TaskState.NEW, TaskState.REQUESTED)
_GATHERING = (JobState.ALLOCATING, JobState.RESTARTING)


class Elastic(Placement):
    """The size of the gang. What is not elastic goes through here without a trace."""

    stage: int
    stages: Stages
    gang_deadline: float | None
    incident: Incident | None

    def __init__(self, job: JobSpec, now: float, wall: float, node_count: int) -> None:
        super().__init__(job, now, wall, node_count)
        self.elastic = next((role for role in job.roles if role.elastic), None)
        self.target = self.elastic.instances if self.elastic else 0
        self.resize_deadline: float | None = None
        self.shrink_at: float | None = None
        self.grow_at: float | None = None
        self.joined_at = now

    @abstractmethod
    def _next_generation(self, why: str, reason: str, keep: bool = True) -> None:
        """Stop every user process of the stage, but for those that can live on, and gather the gang again."""

    # Who belongs to it ----------------------------------------------------------------------------------------

    @property
    def size(self) -> JobSize | None:
        """The size for people; None where the job is not elastic."""
        role = self.elastic
        if role is None:
            return None
        return JobSize(role.name, len(self._members()), self.target, role.least, role.most)

    def _members(self) -> list[TaskRecord]:
        return [record for record in self._of_role() if record.wanted]

    def _candidates(self) -> list[TaskRecord]:
        """Asked for, and not yet taken in."""
        others = (record for record in self._of_role() if not record.wanted)
        return [r for r in others if r.state.live and not r.stop_asked and r.asked_at is not None]

    def _of_role(self) -> list[TaskRecord]:
        role = self.elastic
        return [r for task, r in self.tasks.items() if role is not None and task.role == role.name]

    def _is_elastic_now(self) -> bool:
        return self.elastic is not None and self.stages.contains_role(self.stage, self.elastic.name)

    def _is_ready(self, record: TaskRecord) -> bool:
        return record.ready_for(self.generation, self._now)

    def _want_target(self) -> None:
        """At the beginning of a round: the size that was asked for, lowest indexes first."""
        if self.elastic is None:
            return
        lacking = self.target - len(self._members())
        for record in self._of_role():
            if lacking > 0 and not record.wanted and (record.state is TaskState.NEW or not record.state.live):
                if record.state is not TaskState.NEW:
                    record.next_incarnation()
                record.wanted = True
                lacking -= 1
        self.stages.recount()

    # Smaller --------------------------------------------------------------------------------------------------

    def _start_smaller(self, unplaced_only: bool = False) -> bool:
        """Go on with those who are ready, if they are enough; whether that is so, or will be in a moment.

        `unplaced_only`: only those are given up for whom there is no container at all.
        """
        role = self.elastic
        if role is None or not self._is_elastic_now():
            return False
        absent = [record for record in self.stages.gang(self.stage) if not self._is_ready(record)]
        if not absent or any(record.task.role != role.name for record in absent):
            return False
        members = self._members()
        left = len(members) - len(absent)
        if left < role.least or (unplaced_only and any(record.state not in _UNPLACED for record in absent)):
            return False
        if any(record.release_after > self._now for record in absent):
            # A lost one may still run. Until it certainly does not, nobody goes on without it.
            return True
        names = ", ".join(str(record.task) for record in absent[:4])
        said = f"starts with {left} of {self.target} {role.name} tasks, without {names}"
        for record in absent:
            self._dismiss(record, "the gang starts without it")
            if record.state.live and record.state is not TaskState.NEW:
                record.move(TaskState.STOPPED, "given up", self._now)
            record.next_incarnation()
        self.stages.recount()
        self._event(EventKind.RESIZE, said, size=str(left), target=str(self.target))
        return True

    def _dismiss(self, record: TaskRecord, why: str) -> None:
        record.wanted = False
        if record.state is not TaskState.NEW:
            if record.ended is None or record.ended.cause is EndCause.KILLED_BY_US:
                record.fence(self.job.times.lease_s)
            self._leave(record, why)

    def _others_are_gone(self) -> bool:
        """Whether nobody who was dismissed can still run beside the new generation."""
        return all(record.wanted or record.release_after <= self._now for record in self._of_role())

    # Larger ---------------------------------------------------------------------------------------------------

    def _watch_size(self) -> None:
        """Time has passed: give up who cannot be replaced, ask for who is missing, take in who is ready."""
        if self.elastic is None or not self._is_elastic_now():
            return
        if self.state is JobState.RESTARTING:
            if self.shrink_at is not None and self._now > self.shrink_at:
                self._start_smaller(unplaced_only=True)
            return
        if self.state is not JobState.RUNNING or self.incident is not None or not self._may_stop_everybody():
            return
        missing = self.target - len(self._members())
        candidates = self._candidates()
        if self.resize_deadline is not None and (missing <= 0 or self._now > self.resize_deadline):
            # Who came in time is taken in below; the rest is tried for in the background.
            self.resize_deadline = None
            self.grow_at = self._now
        if missing <= 0:
            return
        if self.resize_deadline is not None:
            self._ask_for_candidates(missing - len(candidates))
        else:
            if self.grow_at is None:
                self.grow_at = self.joined_at + self.job.times.growth_s
            if self._now < self.grow_at:
                return
            if len(candidates) < missing and all(self._is_prepared(record) for record in candidates):
                self._ask_for_candidates(1)
        self._take_in(missing)

    def _is_prepared(self, record: TaskRecord) -> bool:
        return record.state is TaskState.REGISTERED and record.ports is not None and record.connected

    def _may_stop_everybody(self) -> bool:
        """Not while something is being decided, nor when somebody has finished: the job is about to end."""
        gang = self.stages.gang(self.stage)
        return all(r.state is TaskState.RUNNING and r.report is None and r.failure is None for r in gang)

    def _ask_for_candidates(self, count: int) -> None:
        for record in self._of_role():
            if count <= 0:
                return
            if record.wanted or (record.asked_at is not None and record.state.live):
                continue
            if record.state is not TaskState.NEW:
                record.next_incarnation()
            self._request(record)
            count -= 1

    def _take_in(self, missing: int) -> None:
        candidates = self._candidates()
        ready = [r for r in candidates if self._is_prepared(r) and r.release_after <= self._now]
        if not ready:
            return
        coming = [r for r in candidates if r.state is not TaskState.REQUESTED and r not in ready]
        if len(ready) < missing:
            if coming or self.resize_deadline is not None:
                return
            newest = max((r.asked_at or 0.0 for r in candidates if r.state is TaskState.REQUESTED), default=0.0)
            if self._now < newest + _SETTLE_S:
                return
        before = len(self._members())
        self._adopt()
        after = len(self._members())
        self._event(
            EventKind.RESIZE, f"grows from {before} to {after} tasks", size=str(after), target=str(self.target)
        )
        self._next_generation(f"with {after} instead of {before} tasks", "the gang grows")

    def _adopt(self) -> None:
        """Candidates that are prepared belong to the next generation, as far as they are wanted."""
        lacking = self.target - len(self._members())
        for record in self._candidates():
            if lacking > 0 and self._is_prepared(record):
                record.wanted = True
                lacking -= 1
        self.stages.recount()

    def _dismiss_candidates(self) -> None:
        for record in self._candidates():
            self._leave(record, "it is not needed any more")

    def _candidate_failed(self, record: TaskRecord) -> None:
        """Nobody needed it yet; another one later."""
        if self.elastic is not None:
            self.resize_deadline = None
            self.grow_at = self._now + self.job.times.growth_s

    # Asked for ------------------------------------------------------------------------------------------------

    def resize_problem(self, size: int) -> str:
        """Why the job cannot have that size; empty when it can."""
        role = self.elastic
        if self.state in (JobState.STOPPING, JobState.SUCCEEDED, JobState.FAILED, JobState.KILLED):
            return "the job is over"
        if role is None:
            return "its size is fixed: submit it with --min-workers or --max-workers to change that"
        if not role.least <= size <= role.most:
            return f"{role.name} may have {role.least} to {role.most} tasks, not {size}"
        if not self._is_elastic_now():
            return f"role {role.name} is not running in this stage"
        return ""

    def _on_resize_asked(self, fact: on.ResizeAsked) -> None:
        if self.resize_problem(fact.size):
            return
        members = self._members()
        before, self.target = len(members), fact.size
        said = f"{fact.by} asks for {fact.size} instead of {before} tasks"
        self._event(EventKind.RESIZE, said, size=str(before), target=str(fact.size))
        for record in self._candidates()[max(0, fact.size - before) :]:
            self._leave(record, "it is not needed any more")
        leaving = sorted(members, key=lambda record: record.task.index)[fact.size :]
        if self.state in _GATHERING:
            for record in leaving:
                self._dismiss(record, "the gang shrinks")
            self._grow_while_gathering(fact.size - before)
        elif self.state is JobState.BACKING_OFF:
            for record in leaving:
                record.wanted = False
            self.stages.recount()
        elif leaving:
            for record in leaving:
                self._dismiss(record, "the gang shrinks")
            self.stages.recount()
            self._next_generation(f"with {fact.size} instead of {before} tasks", "the gang shrinks")
        elif fact.size > before:
            self.resize_deadline = self._now + self.job.times.gang_s
            self._ask_for_candidates(fact.size - before - len(self._candidates()))

    def _grow_while_gathering(self, count: int) -> None:
        before = {record.task for record in self._candidates()}
        if count > 0:
            self._ask_for_candidates(count - len(before))
            for record in self._candidates()[:count]:
                record.wanted = True
        self.stages.recount()

    def _leaving_sentence(self) -> str:
        """What a complete gang still waits for."""
        leaving = [str(r.task) for r in self._of_role() if not r.wanted and r.release_after > self._now]
        return f"waiting until {', '.join(leaving[:4])} has certainly ended" if leaving else ""

    def _growth_sentence(self) -> str:
        """What a running job of less than its size waits for."""
        role = self.elastic
        if role is None or not self._candidates():
            return ""
        have = len(self._members())
        asked = [record for record in self._candidates() if record.state is TaskState.REQUESTED]
        lacking = "the new ones to prepare"
        if asked:
            lacking = f"{len(asked)} × {role.name} {size_words(role)} in queue {self.job.queue}"
        return f"{have} of {self.target} {role.name} tasks run, waiting for {lacking}"

    def _note_release(self) -> None:
        """A generation was released: growth begins to wait anew."""
        self.joined_at = self._now
        self.grow_at = self.shrink_at = None
        if self.target == len(self._members()):
            self.resize_deadline = None

    def _note_restart(self) -> None:
        self.shrink_at = self._now + self.job.times.replacement_s
