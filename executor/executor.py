"""One task's executor: attends the application master and runs the user's command when it is released.

The main thread owns all state. Threads (the connection, the keeper's words, output, preparation) only post what
happened into one queue; `Executor.run` takes it from there.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from executor import ranks
from executor.environment import ContainerEnvironment, user_environment
from executor.gpus import TaskGpus
from executor.interface import interface
from executor.lease import TURN_S, Lease
from executor.link import Connection, Lost, MasterLink, Received, warning
from executor.page import PageFound
from executor.ports import Ports
from executor.process import UserExited, UserGone, UserStarted, kill_descendants
from executor.reports import Reports
from executor.run import DRAIN_S, RunEvent, UserRun
from executor.streams import Streams
from executor.workspace import NotPrepared, Prepared, PreparedWorkspace, WorkspaceError, prepare
from tony import __version__
from tony.errors import NotPermitted
from tony.protocol import messages
from tony.protocol.messages import FromExecutor, OutputChunk, Result
from tony.state import Reason

EXIT_LEFT = 0
EXIT_LEASE_OVER = 3
EXIT_TERMINATED = 143

_BEAT_LEAST_S = 0.1
_LEASE_LEAST_S = 1.0
_REPEAT_S = 2.0
_FLUSH_S = 3.0
_FAREWELL_S = 1.0
_TERM_KILL_S = 0.1
_TERM_WAIT_S = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terminated:
    """Somebody, most likely the node manager, sent us a signal that asks for the end."""

    number: int


Item = Received | Lost | Prepared | NotPrepared | RunEvent | Terminated | FromExecutor


class Executor:
    """The conversation. Every method runs in the main thread, except `post`."""

    def __init__(self, container: ContainerEnvironment, open_connection: Callable[[str], Connection]) -> None:
        """Raises OSError when the log folder cannot be written."""
        self._container = container
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._link = MasterLink(open_connection, self.post)
        self._lease = Lease(time.monotonic())
        self._streams = Streams(container.log_folder, warn=lambda why, text: self.post(warning(why, text)))
        self._reports = Reports()
        self._gpus = TaskGpus(container.gpus, container.variables)
        self._welcome: messages.Welcome | None = None
        self._reconnect_at: float | None = None
        self._beat_at = float("inf")
        self._beats = 0
        self._progress: dict[str, float] = {}
        self._tell_all_progress = False
        self._preparing = False
        self._workspace: PreparedWorkspace | None = None
        self._generation = 0
        self._ready: messages.Ready | None = None
        self._ready_for = 0
        self._ports: Ports | None = None
        self._run: UserRun | None = None
        self._started_told = False
        self._result: Result | None = None
        self._acknowledged = True
        self._repeat_at: float | None = None
        self._stop: messages.StopUser | None = None
        self._user_stopped: messages.UserStopped | None = None
        self._leaving = False
        self._exit_code: int | None = None

    def post(self, item: Item) -> None:
        """Let the main thread know. Safe in any thread and in a signal handler."""
        self._queue.put(item)

    def run(self) -> int:
        """Until we may leave, must, or are told to; returns the exit code."""
        self._connect()
        try:
            while self._exit_code is None:
                try:
                    item = self._queue.get(timeout=min(TURN_S, max(0.0, self._next_deadline() - time.monotonic())))
                except queue.Empty:
                    item = None
                # After a sleep of the whole process, what waits in the queue must not come before the end.
                if self._lease.is_over(time.monotonic()):
                    self._lease_over()
                    break
                if item is not None:
                    self._take(item)
                self._watch_clock(time.monotonic())
            return EXIT_LEASE_OVER if self._exit_code is None else self._exit_code
        except Exception as error:
            self._link.confess(error)
            raise
        finally:
            self._close()

    # Time -----------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> float:
        due = self._run.result_due_at if self._run is not None else None
        deadlines = (self._reconnect_at, due, self._repeat_at, self._lease.ends_at, self._beat_at)
        return min(deadline for deadline in deadlines if deadline is not None)

    def _watch_clock(self, now: float) -> None:
        if self._reconnect_at is not None and now >= self._reconnect_at:
            self._connect()
        if now >= self._beat_at:
            self._beat(now)
        run = self._run
        if run is not None and run.result_due_at is not None and now >= run.result_due_at:
            self._report_exit(run)
        if self._repeat_at is not None and now >= self._repeat_at:
            self._tell_result()

    def _beat(self, now: float) -> None:
        self._renew(now)
        fresh = self._reports.fresh()
        self._progress.update(fresh)
        told = self._progress if self._tell_all_progress else fresh
        self._beats += 1
        beat = messages.Beat(
            sequence=self._beats,
            metrics=self._run.metrics if self._run is not None else {},
            progress=told,
        )
        # A beat that does not arrive ends the connection, and the next one begins with all numbers.
        self._tell_all_progress = not self._tell(FromExecutor(beat=beat))

    def _renew(self, now: float) -> None:
        """We are in contact: the lease begins anew, and so does the time to the next beat."""
        assert self._welcome is not None
        self._lease.in_contact(now)
        self._beat_at = now + max(_BEAT_LEAST_S, min(self._welcome.beat_s, self._lease.renewal_s))
        if self._run is not None:
            self._run.renew(self._lease.terminate_at)

    def _lease_over(self) -> None:
        log.error("no contact with the application master for too long: the user process is stopped")
        if self._run is not None:
            self._run.stop(0.0)
            self._run.join(_FLUSH_S)

    # The application master -----------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._reconnect_at = None
        here = self._container
        hello = messages.Hello(
            application_id=here.application_id,
            role=here.task.role,
            index=here.task.index,
            incarnation=here.incarnation,
            container_id=here.container_id,
            host=here.host,
            pid=os.getpid(),
            generation=self._generation,
            user_running=self._run is not None and self._run.running,
            result=self._result if not self._acknowledged else None,
            ready=self._ready,
            gpus=self._gpus.names,
            version=__version__,
            stood_still_s=self._lease.stood_still_s(time.monotonic()),
        )
        self._link.connect(hello, self._welcome.token if self._welcome is not None else "")

    def _tell(self, message: FromExecutor) -> bool:
        return self._link.send(message)

    def _take(self, item: Item) -> None:
        if isinstance(item, Received):
            if item.connection == self._link.number and self._reconnect_at is None:
                kind = item.message.WhichOneof("message")
                if kind is not None:
                    _ANSWERS[kind](self, getattr(item.message, kind))
        elif isinstance(item, Lost):
            if item.connection == self._link.number and self._reconnect_at is None:
                self._on_lost(item)
        elif isinstance(item, Prepared):
            self._preparing = False
            self._workspace = item.workspace
            self._get_ready(self._ready_for)
        elif isinstance(item, NotPrepared):
            self._preparing = False
            self._on_not_prepared(item.error)
        elif isinstance(item, Terminated):
            self._on_terminated(item)
        elif isinstance(item, FromExecutor):
            self._tell(item)
        elif self._run is not None and item.generation == self._run.generation:
            self._on_run_event(self._run, item)

    def _on_lost(self, lost: Lost) -> None:
        now = time.monotonic()
        self._lease.lost(now)
        self._beat_at = float("inf")
        self._reconnect_at = now + self._link.pause_s()
        # A refusal may pass: the application master may not have noticed yet that our last connection is dead.
        level = logging.WARNING if isinstance(lost.error, NotPermitted) else logging.INFO
        log.log(level, "not connected: %s", lost.error)

    def _on_welcome(self, welcome: messages.Welcome) -> None:
        now = time.monotonic()
        log.info("welcome, generation %d", welcome.generation)
        self._link.welcomed()
        self._welcome = welcome
        self._lease.grant(max(_LEASE_LEAST_S, welcome.lease_s), now)
        self._renew(now)
        self._tell_all_progress = True
        if self._workspace is None and self._result is None:
            self._prepare(welcome.generation)
        self._tell_again()
        if welcome.generation > max(self._generation, self._ready_for):
            # The word that our generation is over was lost with a connection.
            self._on_stop_user(
                messages.StopUser(
                    generation=self._generation,
                    grace_s=self._lease.grace_s,
                    reason="a newer generation",
                    next_generation=welcome.generation,
                )
            )

    def _tell_again(self) -> None:
        """What was said since the last Hello, or into a connection that was about to break."""
        if self._run is not None and self._run.running:
            self._tell_started(self._run)
            self._tell_page(self._run)
        if self._ready is not None:
            if self._user_stopped is not None:
                self._tell(FromExecutor(user_stopped=self._user_stopped))
            self._tell(FromExecutor(ready=self._ready))
        if not self._acknowledged:
            self._tell_result()

    def _on_refused(self, refused: messages.Refused) -> None:
        log.warning("not wanted any more: %s", refused.reason)
        self._leave(self._lease.grace_s)

    def _on_leave(self, leave: messages.Leave) -> None:
        log.info("leaving: %s", leave.reason)
        self._leave(leave.grace_s)

    def _leave(self, grace_s: float) -> None:
        self._leaving = True
        if self._run is not None and not self._run.over:
            self._run.stop(grace_s)
        else:
            self._depart()

    def _depart(self) -> None:
        """Everything of the user is over: give the rest of its output, say goodbye."""
        deadline = time.monotonic() + _FLUSH_S
        self._streams.finish(DRAIN_S)
        self._link.join_outputs(lambda: deadline - time.monotonic())
        if self._tell(FromExecutor(left=messages.Left())):
            self._link.join(_FAREWELL_S)
        self._exit_code = EXIT_LEFT

    def _on_result_ack(self, ack: messages.ResultAck) -> None:
        if self._result is not None and ack.generation == self._result.generation:
            self._acknowledged = True
            self._repeat_at = None

    def _on_beat_now(self, _: messages.BeatNow) -> None:
        self._beat(time.monotonic())

    def _on_dump_stacks(self, wish: messages.DumpStacks) -> None:
        def tell(text: str) -> None:
            self.post(FromExecutor(stacks=messages.Stacks(request_id=wish.request_id, text=text)))

        if self._run is not None and not self._run.over:
            self._run.dump_stacks(tell, into_log=not wish.request_id)
        else:
            tell("no user process runs")

    def _on_send_output(self, wish: messages.SendOutput) -> None:
        task, incarnation = str(self._container.task), self._container.incarnation

        def chunks(cancelled: Callable[[], bool]) -> Iterator[OutputChunk]:
            return self._streams.follow(task, incarnation, wish.stream, wish.tail_lines, cancelled, wish.follow)

        self._link.begin_output(wish.request_id, chunks)

    def _on_terminated(self, item: Terminated) -> None:
        """YARN sends KILL a quarter of a second after TERM; the keeper lives on in its own session if it must."""
        log.warning("asked to end by %s", signal.Signals(item.number).name)
        if self._run is not None:
            self._run.stop(_TERM_KILL_S)
            self._run.join(_TERM_KILL_S + _TERM_WAIT_S)
        self._exit_code = EXIT_TERMINATED

    # Preparation ----------------------------------------------------------------------------------------------

    def _prepare(self, generation: int) -> None:
        self._ready_for = max(self._ready_for, generation)
        if self._preparing or self._leaving:
            return
        self._preparing = True
        assert self._welcome is not None
        workspace = self._welcome.workspace

        def work() -> None:
            here = self._container
            try:
                self.post(Prepared(prepare(workspace, here.folder, here.node_cache(), here.variables)))
            except WorkspaceError as error:
                self.post(NotPrepared(error))
            except Exception as error:
                # Whatever it is: without a report, the job would wait for this task until its time is over.
                log.exception("preparation failed")
                self.post(NotPrepared(WorkspaceError(Reason.INTERNAL, f"{type(error).__name__}: {error}")))

        threading.Thread(target=work, name="prepare", daemon=True).start()

    def _on_not_prepared(self, error: WorkspaceError) -> None:
        self._give_result(
            Result(generation=self._ready_for, phase=Result.PREPARE, reason=error.reason.value, message=error.message)
        )

    def _get_ready(self, generation: int) -> None:
        """New ports for that generation, and word of it."""
        self._ready_for = generation
        if self._ports is not None:
            self._ports.release()
        try:
            self._ports = Ports()
        except OSError as error:
            self._give_result(
                Result(
                    generation=generation,
                    phase=Result.PREPARE,
                    reason=Reason.PORT_CLASH.value,
                    message=f"No port can be reserved: {error}.",
                )
            )
            return
        self._say_ready(self._ports)
        log.info("ready for generation %d on port %d", generation, self._ports.numbers[0])

    def _say_ready(self, ports: Ports, kept: bool = False) -> None:
        main, tensorboard = ports.numbers
        self._ready = messages.Ready(generation=self._ready_for, port=main, tensorboard_port=tensorboard, kept=kept)
        self._tell(FromExecutor(ready=self._ready))

    # The user process -----------------------------------------------------------------------------------------

    def _on_release(self, release: messages.Release) -> None:
        wanted = self._ready is not None and release.generation == self._ready.generation
        if not wanted or self._leaving:
            log.info("release of generation %d ignored", release.generation)
            return
        assert self._workspace is not None and self._ports is not None and self._ready is not None
        self._generation = release.generation
        kept, self._ready = self._ready.kept, None
        if kept:
            log.info("the user process goes on in generation %d", release.generation)
            return
        self._forget_result()
        self._started_told = False
        run = self._run = UserRun(release.generation, self._ports, self._streams, self._reports, self.post)
        environment = user_environment(
            self._container.variables,
            {**self._gpus.environment, **release.environment, **_unpacked(release)},
            library=self._workspace.library,
            home=self._workspace.home,
            python_folder=self._workspace.python_folder,
            virtual_env=self._workspace.environment,
            report_socket=run.report_path,
        )
        environment.update(interface(environment, self._container.host))
        if not release.hold_ports:
            self._ports.release()
        argv = self._workspace.argv(release.command)
        if release.processes > 1:
            argv = ranks.argv(release.processes, argv)
        run.start(argv, environment, self._workspace.work, self._lease)
        run.look_for(dict(release.peers))
        if "TB_PORT" in release.environment:
            run.look_for_page(self._container.host, self._ports.numbers[1])

    def _on_run_event(self, run: UserRun, event: RunEvent) -> None:
        run.take(event, self._gpus)
        if isinstance(event, UserStarted):
            log.info("generation %d runs as process %d", event.generation, event.pid)
            self._tell_started(run)
        elif isinstance(event, UserExited):
            log.info("generation %d ended: %s", event.generation, event.signal or f"exit code {event.code}")
        elif isinstance(event, UserGone):
            self._on_gone(event)
        elif isinstance(event, PageFound):
            self._tell_page(run)

    def _tell_page(self, run: UserRun) -> None:
        if run.page:
            self._tell(FromExecutor(url=messages.Url(kind="tensorboard", url=run.page)))

    def _tell_started(self, run: UserRun) -> None:
        if run.pid and not self._started_told:
            started = messages.Started(generation=run.serves, pid=run.pid)
            self._started_told = self._tell(FromExecutor(started=started))

    def _on_gone(self, gone: UserGone) -> None:
        if gone.left:
            said = f"{len(gone.left)} processes of the user do not end: {gone.left[:10]}"
            self._tell(FromExecutor(note=messages.Note(text=said)))
        if self._leaving:
            self._depart()
        elif self._stop is not None:
            self._stopped(self._stop)

    def _report_exit(self, run: UserRun) -> None:
        result = run.result()
        if self._ready is not None and self._ready.kept:
            # It was to live on; the master decides anew.
            self._ready = None
        if self._stop is None and not self._leaving:
            self._give_result(result)

    def _give_result(self, result: Result) -> None:
        self._result, self._acknowledged = result, False
        self._tell_result()

    def _forget_result(self) -> None:
        self._result, self._acknowledged, self._repeat_at = None, True, None

    def _tell_result(self) -> None:
        if self._result is not None and not self._acknowledged:
            self._tell_last_reports()
            self._tell(FromExecutor(result=self._result))
            self._repeat_at = time.monotonic() + _REPEAT_S
        else:
            self._repeat_at = None

    def _tell_last_reports(self) -> None:
        """A script may report and end at once; what it said last must not come after its end, maybe the job's."""
        if self._run is not None and self._beat_at < float("inf"):
            self._run.hear_out()
            self._beat(time.monotonic())

    def _on_stop_user(self, stop: messages.StopUser) -> None:
        over = stop.generation < self._generation or 0 < stop.next_generation <= self._generation
        if over or self._leaving:
            return
        self._ready_for = max(self._ready_for, stop.next_generation)
        if self._preparing:
            # Ready follows when the workspace stands, for the newest generation asked for.
            return
        if self._run is not None and not self._run.over:
            log.info("generation %d is stopped: %s", self._generation, stop.reason)
            self._stop = stop
            self._run.stop(stop.grace_s)
        elif self._ready is not None and self._ready.generation >= stop.next_generation:
            # Said twice: our answer may have been lost.
            self._tell_again()
        else:
            self._stopped(stop)

    def _on_live_on(self, wish: messages.LiveOn) -> None:
        run = self._run
        if self._leaving or wish.next_generation <= self._generation:
            return
        if run is None or not run.running or self._preparing or self._stop is not None or self._ports is None:
            self._on_stop_user(
                messages.StopUser(
                    generation=wish.generation,
                    grace_s=wish.grace_s,
                    reason=wish.reason,
                    next_generation=wish.next_generation,
                )
            )
            return
        log.info("the user process lives on, for generation %d: %s", wish.next_generation, wish.reason)
        run.serves = self._ready_for = wish.next_generation
        self._say_ready(self._ports, kept=True)

    def _stopped(self, stop: messages.StopUser) -> None:
        self._stop = None
        self._ready = None
        self._forget_result()
        exited = self._run.exited if self._run is not None else None
        code, signal_name = (exited.code, exited.signal) if exited is not None else (0, "")
        self._user_stopped = messages.UserStopped(generation=stop.generation, exit_code=code, signal=signal_name)
        self._tell(FromExecutor(user_stopped=self._user_stopped))
        if stop.next_generation and self._workspace is not None and self._workspace.work.is_dir():
            self._get_ready(stop.next_generation)
        elif stop.next_generation:
            # It could not be prepared for the generation before, or a script has removed it.
            self._prepare(stop.next_generation)

    def _close(self) -> None:
        """Whatever the reason of the end: nothing of ours stays."""
        if self._preparing:
            # A program that unpacks; at this time there is no keeper.
            kill_descendants()
        if self._run is not None:
            self._run.close()
        if self._ports is not None:
            self._ports.release()
        self._gpus.close()
        self._link.close()
        self._streams.close()


def _unpacked(release: messages.Release) -> dict[str, str]:
    """The long values of the environment, which travel compressed."""
    return {name: zlib.decompress(value).decode() for name, value in release.packed_environment.items()}


_ANSWERS: dict[str, Callable[..., None]] = {
    "welcome": Executor._on_welcome,
    "refused": Executor._on_refused,
    "release": Executor._on_release,
    "stop_user": Executor._on_stop_user,
    "live_on": Executor._on_live_on,
    "leave": Executor._on_leave,
    "result_ack": Executor._on_result_ack,
    "send_output": Executor._on_send_output,
    "beat_now": Executor._on_beat_now,
    "dump_stacks": Executor._on_dump_stacks,
}
