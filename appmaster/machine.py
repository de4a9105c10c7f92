"""The job: one pure object that owns all its state.

`JobMachine.handle(stimulus, now)` takes a fact and returns what is to be done, in order. No I/O, no clock, no
threads; times are monotonic seconds given by the caller. Every fault is a test that feeds stimuli and reads
commands.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.attendance import TASK_HANDLERS
from appmaster.elastic import Elastic
from appmaster.gang import Stages, beat_s, fraction_done, waiting_for
from appmaster.incident import ASK_AFTER_S, Incident
from appmaster.policy import Action, Budget, Decision, decide, root_cause
from appmaster.tasks import TaskRecord
from appmaster.watching import Watching
from tony.containers import EndCause
from tony.events import EventKind
from tony.snapshot import Failure, Verdict
from tony.spec import ClusterSpec, Endpoint, JobSpec, TaskId
from tony.state import JobState, Reason, TaskState
from tony.units import format_duration

_FINISH_MARGIN_S = 5.0
"""After the stop grace: how long containers may take to go before the end is reported without them."""

_SHOWN_STEP = 0.01
"""How much further a job must be for the resource manager to be told."""

_NOTICED_S = 3.0
_TOLD_AGAIN_S = 2.0
"""A wait is explained when it has lasted this long; what it waits for is told again when it changed since."""


class JobMachine(Elastic, Watching):
    """All state of one job. Create it, feed it `Begin`, then whatever happens.

    What tasks say and what is known of them is in `Attendance`, where they run in `Placement`, how many they are in
    `Elastic`, how they get on in `Watching`; here is what follows from it for the job.
    """

    def __init__(
        self,
        job: JobSpec,
        application_id: str,
        user: str,
        *,
        now: float,
        wall: float,
        attempt: int = 1,
        node_count: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(job, now, wall, node_count)
        self.application_id = application_id
        self.user = user
        self.attempt = attempt
        self.stage = 0
        self.rounds = 1
        self.budget = Budget()
        self.verdict: Verdict | None = None
        self.waiting_for = ""
        self.restarts = 0
        self.beat_s = beat_s(len(self.tasks), job.times.beat_s)
        self.started_at = now
        self.incident: Incident | None = None
        self.queue_deadline: float | None = None
        self.gang_deadline: float | None = None
        self.backoff_until: float | None = None
        self.stop_deadline: float | None = None
        self.finished = False
        self.stages = Stages(job, self.tasks)
        self._waiting_since = now
        self._told, self._told_at = "", now
        self._shown = 0.0
        self._random = random.Random(seed)

    # Facts in, commands out -----------------------------------------------------------------------------------

    def handle(self, stimulus: on.Stimulus, now: float) -> list[do.Command]:
        """Take in one fact; return what is to be done, in order."""
        self._now, self._out = now, []
        _HANDLERS[type(stimulus)](self, stimulus)
        if not isinstance(stimulus, on.Beaten):
            self._advance()
        return self._out

    def resume(self, now: float) -> list[do.Command]:
        """Go on after the application master's process was started again: everybody gets time to come back."""
        self._now, self._out = now, []
        for record in self.tasks.values():
            record.connected = False
            if record.heard_at is not None:
                record.heard_at = now
            if record.state is TaskState.REQUESTED and not record.handle:
                # Whether that request was made nobody knows: if it was, its container finds itself unwanted.
                record.next_incarnation()
                self._request(record)
        self._event(EventKind.NOTE, "the application master was started again")
        self._advance()
        return self._out

    def _on_begin(self, _: on.Begin) -> None:
        self._move(JobState.ALLOCATING, f"{len(self.tasks)} task" + ("s" if len(self.tasks) != 1 else ""))
        self._begin_stage()

    def _on_tick(self, _: on.Tick) -> None:
        self._may_release = True
        quiet_since = self._now - self.job.times.suspect_beats * self.beat_s
        for record in self.tasks.values():
            if not record.is_well(quiet_since):
                self._settle(record)
        self._watch_nodes()
        self._watch_size()
        self._ask_for_signs_of_life()
        self._watch()
        self._say_what_it_waits_for()
        self._show_progress()

    def _on_held(self) -> None:
        if self.gang_deadline is None:
            # The clock of the gang starts with the first container that is held: from then on others are kept out.
            self.gang_deadline = self._now + self.job.times.gang_s
            self.queue_deadline = None

    def _on_stood_still(self, fact: on.StoodStill) -> None:
        """Nobody was listened to meanwhile, so nobody was silent; a lease that seems to end later is safe."""
        for record in self.tasks.values():
            if record.heard_at is not None:
                record.heard_at += fact.seconds
        self._nobody_listened(fact.seconds)

    def _on_stop_asked(self, fact: on.StopAsked) -> None:
        self.stop_grace_s = fact.grace_s
        self._end(JobState.KILLED, Reason.CANCELLED, fact.reason or f"stopped by {fact.by}", None)

    def _on_backend_lost(self, fact: on.BackendLost) -> None:
        self._end(JobState.FAILED, Reason.AM_LOST, fact.message, None)

    # Failures -------------------------------------------------------------------------------------------------

    def _fail(self, record: TaskRecord, failure: Failure) -> None:
        record.failure = failure
        self._blame(record, failure)
        role = self._role_of[record.task.role]
        self._event(
            EventKind.TASK,
            f"{record.task} failed on {record.host or 'an unknown host'}: {failure.message}",
            record.task,
            state=TaskState.FAILED.value,
            reason=failure.reason.value,
            incarnation=str(record.incarnation),
            host=record.host,
            container=record.container_id,
        )
        if role.sidecar:
            self._leave(record, "its user process has ended")
            return
        if not record.wanted:
            self._candidate_failed(record)
            return
        self._accuse(failure)

    def _accuse(self, failure: Failure) -> None:
        self.incident = self.incident or Incident(self._now)
        self.incident.add(failure, self._now)

    def _explain(self, before: Failure, after: Failure | None) -> None:
        if self.incident is not None:
            self.incident.explain(before, after)
        verdict = self.verdict
        if after is not None and verdict is not None and verdict.first_failure == before:
            reason = after.reason if verdict.reason is before.reason else verdict.reason
            self.verdict = replace(verdict, first_failure=after, reason=reason, message=after.message)

    def _gang(self) -> tuple[TaskRecord, ...]:
        return tuple(self.stages.gang(self.stage))

    def _decide_incident(self) -> None:
        assert self.incident is not None
        root = root_cause(self.incident.failures)
        self.incident = None
        if root.reason is Reason.STRAGGLER and not self._may_stop_everybody():
            # Somebody has ended meanwhile: the job is about to, and nobody is stopped for being slow.
            return
        steps = [record.progress.get("step", -1.0) for record in self.tasks.values()]
        self.budget.charge(root, max(steps, default=-1.0))
        decision = decide(root, self.job, self.budget)
        self._event(
            EventKind.DECISION,
            f"{decision.action.value}: {root.task} {root.reason.value} ({decision.why})",
            TaskId.parse(root.task),
            action=decision.action.name,
            reason=root.reason.value,
        )
        self._obey(decision, root)

    def _ask_for_signs_of_life(self) -> None:
        incident = self.incident
        if incident is None or incident.asked_at is not None or self._now < incident.opened_at + ASK_AFTER_S:
            return
        incident.asked_at = self._now
        others = incident.others(self.stages.gang(self.stage))
        self._out.extend(do.SayBeatNow(record.identity) for record in others if record.connected)

    def _obey(self, decision: Decision, root: Failure) -> None:
        if root.reason is Reason.STRAGGLER and decision.action is not Action.IGNORE:
            # Nothing has failed yet, so its node was not blamed either.
            self._blame(self.tasks[TaskId.parse(root.task)], root)
        if decision.action is Action.RESTART_GANG:
            self._restart(root)
        elif decision.action is Action.REPLACE_TASK:
            self._replace(self.tasks[TaskId.parse(root.task)])
        elif decision.action is Action.FAIL:
            reason = decision.reason or root.reason
            message = root.message if reason is root.reason else f"{decision.why}: {root.message}"
            self._end(JobState.FAILED, reason, message + self._ended_before(root), root)
        elif not any(r.tracked and r.failure is None and r.state.live for r in self.stages.gang(self.stage)):
            self._end(JobState.FAILED, root.reason, root.message, root)

    def _restart(self, root: Failure) -> None:
        self.restarts += 1
        self._adopt()
        if root.reason is Reason.STRAGGLER:
            # It lives; the others keep their containers, this one does not.
            self._replace(self.tasks[TaskId.parse(root.task)])
        why = f"after {root.task} {root.reason.value}"
        self._next_generation(why, "the gang is restarted", keep=root.reason is not Reason.HUNG)
        self._note_restart()

    def _next_generation(self, why: str, reason: str, keep: bool = True) -> None:
        """Stop every user process of the stage, but for those that can live on, and gather the gang again.

        `keep`: whether those are to; nobody knows which process of a job that hangs is the cause.
        """
        self.generation += 1
        self._move(JobState.RESTARTING, f"generation {self.generation} {why}")
        self.gang_deadline = self._now + self.job.times.gang_s
        for record in self.stages.records(self.stage):
            if self._role_of[record.task.role].sidecar:
                continue
            self._restart_task(record, reason, keep)
        self._out.append(do.SaveState())

    def _begin_anew(self, record: TaskRecord) -> None:
        self._restart_task(record, "it ended before the others were there", keep=False)

    def _restart_task(self, record: TaskRecord, reason: str, keep: bool) -> None:
        if record.state.live and record.ended is None and self._is_on_excluded_node(record):
            self._replace(record)
        elif record.state.live and record.ended is None and record.connected:
            before, after, grace_s = self.generation - 1, self.generation, self.job.times.stop_grace_s
            if keep and record.can_live_on(self._role_of[record.task.role].procs_per_task):
                self._out.append(do.SayLiveOn(record.identity, before, after, grace_s, reason))
            else:
                record.doors = {}
                self._out.append(do.SayStopUser(record.identity, before, after, grace_s, reason))
            record.next_generation()
            record.user_stop_deadline = self._now + grace_s + _FINISH_MARGIN_S
        elif record.state in (TaskState.REQUESTED, TaskState.HELD):
            record.next_generation()
        elif not record.state.live or record.ended is not None:
            self._replace(record)
        # A silent one is left to `settle`: it comes back and is told, or is lost and replaced.

    def _replace(self, record: TaskRecord) -> None:
        """Ask for a new container. What the old one still holds is given back."""
        if record.state.live:
            self._leave(record, "the task is replaced")
        if record.state.live:
            self._task_event(record, TaskState.FAILED, "replaced")
        reported = record.report is not None
        certain = reported or (record.ended is not None and record.ended.cause is not EndCause.KILLED_BY_US)
        if not certain:
            record.fence(self.job.times.lease_s)
        record.next_incarnation()
        self._request(record)

    # Stages, gang, release ------------------------------------------------------------------------------------

    def _begin_stage(self) -> None:
        self.queue_deadline = self._now + self.job.times.queue_s
        self.gang_deadline = None
        self._want_target()
        for record in self.stages.records(self.stage):
            self._request(record)
        self._out.append(do.SaveState())

    def _release_ready(self) -> None:
        if self.state in (JobState.ALLOCATING, JobState.RESTARTING):
            if not self.stages.ready(self.stage, self.generation, self._now) or not self._others_are_gone():
                return
            self.marks["allocated"] = self.marks.get("allocated", self._wall())
            self.marks["released"] = self._wall()
            self.gang_deadline = self.queue_deadline = None
            self._move(JobState.RUNNING, f"generation {self.generation} released")
            self._note_release()
        if self.state is not JobState.RUNNING or not self._may_release:
            return
        self._may_release = False
        ready = [r for r in self.stages.releasable(self.stage) if r.ready_for(self.generation, self._now)]
        if not ready:
            return
        for record in ready:
            record.fences.clear()
            if record.ports is None or not record.ports.kept:
                record.started_in, record.doors = self.generation, {}
            self._task_event(record, TaskState.RUNNING, f"released in generation {self.generation}")
        # The state is kept first: a process started again must know who was let go.
        self._out.append(do.SaveState())
        gang = self.stages.cluster(self.stage, self.generation)
        for record in ready:
            alone = self._role_of[record.task.role].sidecar
            cluster = self.stages.cluster(self.stage, self.generation, record) if alone else gang
            self._out.append(do.SayRelease(record.identity, cluster, self.budget.clashes == 0))
        # At once: what they report first may be all that they ever report.
        self._follow(self._gang())

    def last_release(self) -> ClusterSpec:
        """Those of the gang whose user processes were started, and when; for a restart of this process."""
        there = [record for record in self.stages.gang(self.stage) if record.started_in and record.state.live]
        nowhere = Endpoint("", 0)
        return ClusterSpec(
            self.generation, {r.task: r.endpoint or nowhere for r in there}, {r.task: r.started_in for r in there}
        )

    def _next_stage(self) -> None:
        if self.stages.is_last(self.stage):
            self._end(JobState.SUCCEEDED, Reason.SUCCEEDED, "every tracked task exited with 0", None)
            return
        for record in self.stages.gang(self.stage):
            self._leave(record, "its stage is done")
        self._dismiss_candidates()
        self.stage += 1
        self._move(JobState.ALLOCATING, f"stage {self.stage + 1}")
        self._begin_stage()

    # Time -----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Whatever follows from the state as it is now."""
        if self.finished:
            return
        if self.state is JobState.STOPPING:
            self._finish_if_gone()
            return
        if self.state in (JobState.NEW, JobState.SUCCEEDED, JobState.FAILED, JobState.KILLED):
            return
        gang = self.stages.gang(self.stage)
        if self.incident is not None and self.incident.is_clear(gang, self.beat_s, self.job.times, self._now):
            self._decide_incident()
        if self.state is JobState.RUNNING and self.incident is None and self.stages.done(self.stage):
            self._next_stage()
        self._check_deadlines()
        self._release_ready()

    def _check_deadlines(self) -> None:
        now, times = self._now, self.job.times
        if times.duration_s and now > self.started_at + times.duration_s:
            text = f"longer than the {format_duration(times.duration_s)} it was given"
            self._end(JobState.FAILED, Reason.DURATION, text, None)
        if self.state is JobState.BACKING_OFF and self.backoff_until is not None and now >= self.backoff_until:
            self.backoff_until = None
            self._move(JobState.ALLOCATING, f"round {self.rounds} of {times.gang_rounds}")
            self._begin_stage()
        if self.state not in (JobState.ALLOCATING, JobState.RESTARTING):
            return
        if self.queue_deadline is not None and now > self.queue_deadline:
            text = f"no container within {format_duration(times.queue_s)}: {self.waiting_for}"
            self._end(JobState.FAILED, Reason.QUEUE_TIMEOUT, text, None)
        elif self.gang_deadline is not None and now > self.gang_deadline and not self._start_smaller():
            self._give_back()

    def _give_back(self) -> None:
        """The gang stayed incomplete: free everything, so that another job's gang can complete, and try later."""
        times = self.job.times
        lacking = waiting_for(self.stages.gang(self.stage), self.job, self.generation)
        if self.rounds >= times.gang_rounds:
            text = f"incomplete after {times.gang_rounds} rounds of {format_duration(times.gang_s)}: {lacking}"
            self._end(JobState.FAILED, Reason.GANG_TIMEOUT, text, None)
            return
        pause_s = self._random.uniform(times.backoff_min_s, times.backoff_max_s)
        self.rounds += 1
        self.generation += 1
        self.incident = None
        self.gang_deadline = self.queue_deadline = None
        self.backoff_until = self._now + pause_s
        self._give_declined_back()
        self._dismiss_candidates()
        for record in self.stages.records(self.stage):
            if record.state.live and record.state is not TaskState.NEW:
                self._leave(record, "the gang is given back")
            if record.state.live:
                record.move(TaskState.STOPPED, "given back", self._now)
            record.next_incarnation()
        self._move(JobState.BACKING_OFF, f"gave all containers back ({lacking}); again in {format_duration(pause_s)}")
        self._out.append(do.SaveState())

    def _say_what_it_waits_for(self) -> None:
        if self.state in (JobState.ALLOCATING, JobState.RESTARTING):
            sentence = waiting_for(self.stages.gang(self.stage), self.job, self.generation)
            sentence = sentence or self._leaving_sentence()
        elif self.state is JobState.BACKING_OFF:
            sentence = f"incomplete gang given back; round {self.rounds} of {self.job.times.gang_rounds} follows"
        else:
            sentence = self._growth_sentence() if self.state is JobState.RUNNING else ""
        if not sentence or not self.waiting_for:
            self._waiting_since = self._now
        self.waiting_for = sentence
        # Only a wait that people notice is worth a line, and a wait that changes quickly not one for each change.
        noticed = self._now >= max(self._waiting_since + _NOTICED_S, self._told_at + _TOLD_AGAIN_S)
        if sentence and noticed and sentence != self._told:
            self._told, self._told_at = sentence, self._now
            self._event(EventKind.WAITING, sentence)

    def _show_progress(self) -> None:
        if not self._progressed:
            return
        self._progressed = False
        fraction = fraction_done(record for record in self.tasks.values() if record.wanted)
        if fraction >= self._shown + _SHOWN_STEP:
            self._shown = fraction
            self._out.append(do.ShowProgress(fraction))

    # The end --------------------------------------------------------------------------------------------------

    def _end(self, state: JobState, reason: Reason, message: str, root: Failure | None) -> None:
        """Begin to stop. The first reason stays; later ones change nothing."""
        if self.verdict is not None:
            return
        collateral = [str(r.task) for r in self.tasks.values() if r.failure and root and str(r.task) != root.task]
        self.verdict = Verdict(
            application_id=self.application_id,
            name=self.job.name,
            state=state,
            reason=reason,
            message=message,
            generations=self.generation,
            first_failure=root,
            collateral=tuple(collateral),
            started_at=self.marks["am_started"],
        )
        self.waiting_for = ""
        self._move(JobState.STOPPING, f"{state.value} ({reason.value}): {message}")
        self.stop_deadline = self._now + self.stop_grace_s + _FINISH_MARGIN_S
        self._out.append(do.SaveState())
        self._give_declined_back()
        for record in self.tasks.values():
            self._leave(record, f"the job is over: {reason.value}")
        self._finish_if_gone()

    def _finish_if_gone(self) -> None:
        assert self.verdict is not None and self.stop_deadline is not None
        if self._now < self.stop_deadline and any(self._still_there(record) for record in self.tasks.values()):
            return
        for record in self.tasks.values():
            if record.connected and record.handle:
                self._out.append(do.StopContainer(record.identity, record.handle))
            if record.state.live and record.state is not TaskState.SUCCEEDED:
                final = TaskState.FAILED if record.failure else TaskState.STOPPED
                record.move(final, "the job is over", self._now)
        self.finished = True
        self.marks["finished"] = self._wall()
        self.state = self.verdict.state
        self._event(
            EventKind.VERDICT,
            self.verdict.message,
            state=self.verdict.state.value,
            reason=self.verdict.reason.value,
        )
        self._out.extend((do.SaveState(), do.Finish(self.verdict)))

    def _still_there(self, record: TaskRecord) -> bool:
        if record.connected:
            return True
        waits_for_container = record.heard_at is not None and record.ended is None and record.stop_asked
        return waits_for_container and record.state in (TaskState.REGISTERED, TaskState.RUNNING)


_HANDLERS: dict[type, Callable[[JobMachine, Any], None]] = {
    **TASK_HANDLERS,
    on.ContainerSeen: JobMachine._on_seen,
    on.Beaten: JobMachine._on_beaten,
    on.StacksTaken: JobMachine._on_stacks_taken,
    on.Greeted: JobMachine._on_greeted,
    on.Begin: JobMachine._on_begin,
    on.Tick: JobMachine._on_tick,
    on.StoodStill: JobMachine._on_stood_still,
    on.StopAsked: JobMachine._on_stop_asked,
    on.ResizeAsked: JobMachine._on_resize_asked,
    on.BackendLost: JobMachine._on_backend_lost,
}
