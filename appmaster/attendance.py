"""What the tasks say, and what is known of each: the part of the machine that is about single tasks.

Facts about a task change its record here and nowhere else. What follows for the job is left to `JobMachine`, which
is told of failures (`_fail`) and of containers (`_on_held`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.settle import failure_of_report, settle
from appmaster.tasks import TaskRecord
from tony.containers import EndCause, Identity, Phase
from tony.events import EventKind, Warned
from tony.snapshot import Failure
from tony.spec import JobSpec, TaskId
from tony.state import JobState, Reason, TaskState
from tony.units import format_duration

_WARNED = frozenset(warned.value for warned in Warned)


class Attendance(ABC):
    """The records of all tasks, and the job's state and generation against which their words are judged."""

    def __init__(self, job: JobSpec, now: float, wall: float) -> None:
        self.job = job
        self.state = JobState.NEW
        self.generation = 1
        self.tasks = {
            task: TaskRecord(
                task, tracked=job.role(task.role).tracked, wanted=task.index < job.role(task.role).instances
            )
            for task in job.possible_tasks()
        }
        self.urls: dict[str, str] = {}
        self.marks: dict[str, float] = {"am_started": wall}
        self.wall_offset = wall - now
        self.stop_grace_s = job.times.stop_grace_s
        self._role_of = {role.name: role for role in job.roles}
        self._now = now
        self._out: list[do.Command] = []
        self._may_release = False
        self._progressed = False

    @property
    def calm(self) -> bool:
        """Whether no container's news is awaited: all run, and every executor is there."""
        if self.state is not JobState.RUNNING:
            return False
        return all(
            r.connected or r.state.over or r.state is TaskState.NEW or not r.wanted for r in self.tasks.values()
        )

    def current(self, identity: Identity) -> TaskRecord | None:
        """The record of that task, if that incarnation is its newest."""
        record = self.tasks.get(identity.task)
        return record if record is not None and record.incarnation == identity.incarnation else None

    @abstractmethod
    def is_held_idle(self, identity: Identity) -> bool:
        """Whether that incarnation is neither current nor yet to be sent away."""

    @abstractmethod
    def _fail(self, record: TaskRecord, failure: Failure) -> None:
        """A task failed; its container may live."""

    @abstractmethod
    def _begin_anew(self, record: TaskRecord) -> None:
        """Its user process is to be started again in the present generation, which is not released yet."""

    @abstractmethod
    def _on_held(self) -> None:
        """A container is ours."""

    # What is said ---------------------------------------------------------------------------------------------

    def _on_asked(self, fact: on.ContainerAsked) -> None:
        record = self.current(fact.identity)
        if record is None or record.stop_asked or not record.state.live:
            self._out.append(do.StopContainer(fact.identity, fact.handle))
        else:
            record.handle = fact.handle
            # A handle that is forgotten is made up for by a new incarnation.
            self._out.append(do.SaveState(soon=True))

    def _on_refused(self, fact: on.ContainerRefused) -> None:
        record = self.current(fact.identity)
        if record is not None and record.state.live:
            failure = Failure(str(record.task), Reason.LAUNCH_FAILED, fact.message, generation=self.generation)
            self._end_incarnation(record, TaskState.FAILED, failure, fact.message)

    def _on_seen(self, fact: on.ContainerSeen) -> None:
        record = self.current(fact.identity)
        if record is None:
            self._predecessor_ended(fact)
            return
        seen = fact.state
        record.container_id = seen.container_id or record.container_id
        record.host = record.host or seen.node or ""
        if seen.phase is not Phase.REQUESTED and record.state is TaskState.REQUESTED:
            self._held(record)
        if seen.phase is Phase.ENDED and record.ended is None:
            record.ended, record.ended_at = seen, self._now
            if seen.cause is not EndCause.KILLED_BY_US:
                record.fences.pop(record.incarnation, None)
            self._settle(record)

    def _on_greeted(self, fact: on.Greeted) -> None:
        record = self.current(fact.identity)
        if record is None and self.is_held_idle(fact.identity):
            return
        if record is None or not record.state.live or record.stop_asked or self.state.ended:
            self._out.append(do.SayRefused(fact.identity, "this incarnation is no longer wanted"))
            return
        record.connected, record.heard_at = True, self._now
        record.host, record.gpus = fact.host, fact.gpus
        record.container_id = fact.container_id or record.container_id
        if record.state in (TaskState.REQUESTED, TaskState.HELD):
            if record.state is TaskState.REQUESTED:
                self._held(record)
            gpus = {"gpus": ", ".join(record.gpus)} if record.gpus else {}
            self._task_event(record, TaskState.REGISTERED, "executor registered", **gpus)
        self._may_release = True
        self._out.append(do.SayWelcome(record.identity, self.generation))
        if fact.result is not None:
            self._user_ended(record, fact.result)
        elif fact.ports is not None:
            self._prepared(record, fact.ports)
        if record.state is TaskState.RUNNING and fact.generation < self.generation and not fact.user_running:
            # It was released just before this process was started again, and never heard of it.
            record.state = TaskState.REGISTERED

    def _on_prepared(self, fact: on.Prepared) -> None:
        record = self._heard(fact.identity)
        if record is not None:
            self._prepared(record, fact.ports)

    def _on_beaten(self, fact: on.Beaten) -> None:
        record = self._heard(fact.identity)
        if record is not None:
            if fact.metrics:
                record.metrics = dict(fact.metrics)
            if fact.progress:
                record.progress.update(fact.progress)
                self._progressed = True

    def _on_user_started(self, fact: on.UserStarted) -> None:
        record = self._heard(fact.identity)
        if record is not None and fact.generation == self.generation:
            self.marks.setdefault("first_output", self._wall())

    def _on_can_live_on(self, fact: on.CanLiveOn) -> None:
        record = self._heard(fact.identity)
        if record is not None and record.state is TaskState.RUNNING:
            record.doors[fact.number] = (fact.port, fact.key)
            self._out.append(do.SaveState(soon=True))

    def _on_user_ended(self, fact: on.UserEnded) -> None:
        record = self._heard(fact.identity)
        if record is None:
            return
        self._user_ended(record, fact.report)

    def _on_user_stopped(self, fact: on.UserStopped) -> None:
        record = self._heard(fact.identity)
        if record is not None and fact.generation < self.generation and self.state is not JobState.STOPPING:
            self._user_stopped(record)

    def _on_departed(self, fact: on.Departed) -> None:
        record = self._heard(fact.identity)
        if record is not None:
            record.connected = False
            record.fences.pop(record.incarnation, None)
            self._out.append(do.DropStream(record.identity))
            if record.state is not TaskState.SUCCEEDED and record.state.live:
                final = TaskState.FAILED if record.failure else TaskState.STOPPED
                record.move(final, "executor left", self._now)
            if record.handle and self.state is not JobState.STOPPING:
                self._out.append(do.StopContainer(record.identity, record.handle))

    def _on_stream_closed(self, fact: on.StreamClosed) -> None:
        record = self.current(fact.identity)
        if record is not None and record.connected:
            record.connected = False
            record.tell("stream closed", self._now)
            self._settle(record)

    def _on_page(self, fact: on.PageOffered) -> None:
        if self.urls.get(fact.kind) != fact.url:
            self.urls[fact.kind] = fact.url
            self._event(EventKind.URL, f"{fact.kind}: {fact.url}", fact.identity.task, page=fact.kind, url=fact.url)

    def _on_remark(self, fact: on.Remark) -> None:
        record = self.current(fact.identity)
        if record is None or fact.reason not in _WARNED:
            self._event(EventKind.NOTE, fact.text, fact.identity.task)
            return
        text = f"{record.task} on {record.host}: {fact.text}"
        record.warning = record.warning or text
        self._event(EventKind.WARNING, text, record.task, reason=fact.reason, host=record.host)

    def _on_confessed(self, fact: on.Confessed) -> None:
        record = self._heard(fact.identity)
        if record is not None:
            record.defect = (fact.message, fact.traceback)
            record.connected = False
            self._out.append(do.DropStream(record.identity))

    # What follows for the task --------------------------------------------------------------------------------

    def _heard(self, identity: Identity) -> TaskRecord | None:
        record = self.current(identity)
        if record is None or not record.state.live:
            return None
        record.heard_at = self._now
        return record

    def _request(self, record: TaskRecord) -> None:
        record.move(TaskState.REQUESTED, "container asked for", self._now)
        record.asked_at = self._now
        self._out.append(do.RequestContainer(record.identity))

    def _held(self, record: TaskRecord) -> None:
        record.held_at = self._now
        self._task_event(record, TaskState.HELD, "container allocated")
        self._on_held()

    def _user_ended(self, record: TaskRecord, report: on.ExitReport) -> None:
        self._out.append(do.SaveState())
        self._out.append(do.SayResultAck(record.identity, report.generation))
        if report.generation != self.generation or record.report is not None:
            return
        if record.state not in (TaskState.RUNNING, TaskState.REGISTERED):
            return
        kept = record.ports is not None and record.ports.kept and record.state is TaskState.REGISTERED
        if kept and self.state is JobState.RESTARTING:
            # It was to live on, and has ended before the others were there: it begins anew, with them.
            record.doors = {}
            self._begin_anew(record)
            return
        record.report = report
        self.marks["last_exit"] = self._wall()
        if self.state is JobState.STOPPING:
            return
        if report.succeeded:
            if record.state is TaskState.REGISTERED:
                record.move(TaskState.RUNNING, "its Started was lost", self._now)
            self._progressed = True
            self._task_event(record, TaskState.SUCCEEDED, f"exit code 0 after {format_duration(report.seconds)}")
            return
        self._fail(record, failure_of_report(record, report, self._wall()))

    def _user_stopped(self, record: TaskRecord, kept: bool = False) -> None:
        """Only a stop that was asked for counts: a repeated answer must not touch the next generation's process."""
        if record.user_stop_deadline is not None:
            record.user_stop_deadline = None
            if record.state in (TaskState.RUNNING, TaskState.SUCCEEDED):
                why = "its user process lives on" if kept else "user process stopped for the next generation"
                record.move(TaskState.REGISTERED, why, self._now)

    def _prepared(self, record: TaskRecord, ports: on.Ports) -> None:
        if ports.generation == self.generation:
            # Whoever is ready for the next generation has no process of the one before, or one that is to go on.
            self._user_stopped(record, ports.kept)
            record.ports = ports
            self._may_release = True

    def _settle(self, record: TaskRecord) -> None:
        end = settle(record, self.job.times, self.generation, self._now)
        if end is not None:
            self._end_incarnation(record, end.state, end.failure, end.why)

    def _end_incarnation(self, record: TaskRecord, state: TaskState, failure: Failure | None, why: str) -> None:
        before = record.failure
        record.failure = before or failure
        self._task_event(record, state, why)
        record.connected = False
        if record.ended is None and record.handle and not record.stop_asked:
            record.stop_asked = True
            self._out.append(do.StopContainer(record.identity, record.handle))
        self._out.append(do.DropStream(record.identity))
        if failure is not None and before is None and self.state is not JobState.STOPPING:
            self._fail(record, failure)

    def _predecessor_ended(self, fact: on.ContainerSeen) -> None:
        """An earlier incarnation's container is gone for certain: its successor need not wait for the lease.

        Not when we had asked for its end: skein says so before the process is dead.
        """
        if fact.state.phase is Phase.ENDED and fact.state.cause is not EndCause.KILLED_BY_US:
            record = self.tasks.get(fact.identity.task)
            if record is not None:
                record.fences.pop(fact.identity.incarnation, None)

    def _leave(self, record: TaskRecord, why: str) -> None:
        """Let an executor go politely where we speak with it, else through the cluster."""
        if not record.state.live:
            return
        record.stop_asked = True
        if record.connected:
            self._out.append(do.SayLeave(record.identity, self.stop_grace_s, why))
            return
        if record.handle:
            self._out.append(do.StopContainer(record.identity, record.handle))
        spoke = record.heard_at is not None and record.ended is None
        if record.state is not TaskState.SUCCEEDED and not spoke:
            record.move(TaskState.FAILED if record.failure else TaskState.STOPPED, why, self._now)

    # Words ----------------------------------------------------------------------------------------------------

    def _move(self, state: JobState, why: str) -> None:
        self.state = state
        self._event(EventKind.JOB, f"{state.value}: {why}", state=state.value)

    def _task_event(self, record: TaskRecord, state: TaskState, why: str, **more: str) -> None:
        record.move(state, why, self._now)
        self._event(
            EventKind.TASK,
            f"{record.task} {state.value}: {why}",
            record.task,
            state=state.value,
            incarnation=str(record.incarnation),
            host=record.host,
            node=record.node,
            container=record.container_id,
            **more,
        )

    def _event(self, kind: EventKind, text: str, task: TaskId | None = None, **fields: str) -> None:
        self._out.append(do.RecordEvent(kind, text, str(task) if task else None, fields))

    def _wall(self) -> float:
        return self._now + self.wall_offset


TASK_HANDLERS: dict[type, Callable[[Any, Any], None]] = {
    on.ContainerAsked: Attendance._on_asked,
    on.ContainerRefused: Attendance._on_refused,
    on.ContainerSeen: Attendance._on_seen,
    on.Greeted: Attendance._on_greeted,
    on.Prepared: Attendance._on_prepared,
    on.Beaten: Attendance._on_beaten,
    on.UserStarted: Attendance._on_user_started,
    on.CanLiveOn: Attendance._on_can_live_on,
    on.UserEnded: Attendance._on_user_ended,
    on.UserStopped: Attendance._on_user_stopped,
    on.Departed: Attendance._on_departed,
    on.StreamClosed: Attendance._on_stream_closed,
    on.PageOffered: Attendance._on_page,
    on.Remark: Attendance._on_remark,
    on.Confessed: Attendance._on_confessed,
}
