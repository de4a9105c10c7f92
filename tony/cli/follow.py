"""Following a job: its output and its events as they come, what it waits for, and Ctrl-C."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tony.cli.lines import Lines, prefixed
from tony.cli.logs import kept_lines
from tony.cli.output import Output
from tony.errors import NoSuchJob, NotFinished, TonyError, Unreachable
from tony.events import Event, EventKind
from tony.jobhandle import JobHandle
from tony.outcome import Outcome
from tony.spec import OnInterrupt
from tony.text import safe
from tony.units import format_duration

_QUEUE_LINES = 10_000
_LOOK_S = 0.25
_QUIET_S = 3.0
_REMIND_S = 30.0
_LAST_OUTPUT_S = 3.0
_CONFIRM_S = 5.0
_SHOWN = (
    EventKind.JOB,
    EventKind.WAITING,
    EventKind.WARNING,
    EventKind.DECISION,
    EventKind.URL,
    EventKind.RESIZE,
    EventKind.NODE,
)


@dataclass(frozen=True)
class _Line:
    task: str
    stream: str
    text: str


@dataclass(frozen=True)
class _Ended:
    error: Exception | None = None


class Interrupted(Exception):
    """Ctrl-C ended the following; `outcome` is the job's confirmed end, None when it lives on."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__("interrupted")
        self.outcome = outcome


class Follower:
    """Prints a job's life until it has ended. `emit` gets every output line (task, stream, text).

    `grace_s`: time for the user's code to end by itself when Ctrl-C stops the job.
    """

    def __init__(
        self,
        handle: JobHandle,
        output: Output,
        emit: Callable[[str, str, str], None] | None = None,
        grace_s: float = 30.0,
    ) -> None:
        self._handle = handle
        self._output = output
        self._emit = emit or self._print
        self._grace_s = grace_s
        self._queue: queue.Queue[_Line | Event | _Ended] = queue.Queue(_QUEUE_LINES)
        self._output_ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._carry_events, name="events", daemon=True),
            threading.Thread(target=self._carry_output, name="output", daemon=True),
        ]
        self._heard_output = False
        self._heard_at = time.monotonic()
        self._said = ""
        self._said_at = 0.0

    def follow(self, on_interrupt: OnInterrupt) -> Outcome:
        """Block until the job has ended; returns how. Raises Interrupted, NotFinished out of contact, NoSuchJob."""
        try:
            while True:
                try:
                    for thread in self._threads:
                        if thread.ident is None:
                            thread.start()
                    self._until_end()
                    self._what_nobody_heard()
                    return self._handle.wait(timeout_s=60.0, confirm_s=_CONFIRM_S)
                except KeyboardInterrupt:
                    self._interrupted(on_interrupt)
        except NoSuchJob as error:
            raise NoSuchJob(
                f"the cluster has lost the job: {error.message}",
                hint="Its resource manager has no record of it any more, and ends its containers. Submit it again.",
            ) from error
        except Unreachable as error:
            raise NotFinished(
                f"contact with the cluster was lost: {error}",
                hint=f"The job may go on. Later: tony wait {self._handle.application_id}",
            ) from error
        finally:
            self._handle.close()

    def _until_end(self) -> None:
        """Print until the events have ended and the last output has come, bounded."""
        last_output_by: float | None = None
        while True:
            try:
                item = self._queue.get(timeout=_LOOK_S if last_output_by is None else 0.05)
            except queue.Empty:
                now = time.monotonic()
                if last_output_by is not None and (self._output_ended.is_set() or now > last_output_by):
                    return
                self._explain(now)
                continue
            if isinstance(item, _Line):
                self._heard_at = time.monotonic()
                self._emit(item.task, item.stream, item.text)
            elif isinstance(item, Event):
                self._show(item)
            elif item.error is not None:
                raise item.error
            else:
                last_output_by = time.monotonic() + _LAST_OUTPUT_S

    def _what_nobody_heard(self) -> None:
        """Output of a job so short that it was over before we were there; kept logs of a cluster take too long."""
        if not self._heard_output and self._handle.cluster.name == "local":
            for task, stream, text in kept_lines(self._handle):
                self._emit(task, stream, text)

    # Threads --------------------------------------------------------------------------------------------------

    def _carry_events(self) -> None:
        try:
            for event in self._handle.events():
                self._queue.put(event)
            self._queue.put(_Ended())
        except Exception as error:  # noqa: BLE001 - raised again by the thread that follows
            self._queue.put(_Ended(error))

    def _carry_output(self) -> None:
        lines = Lines()
        try:
            for chunk in self._handle.output():
                self._heard_output = True
                for task, stream, text in lines.feed(chunk.task, chunk.stream, chunk.data, chunk.dropped):
                    self._queue.put(_Line(task, stream, text))
        except TonyError:
            pass  # the events tell what became of the job
        finally:
            for task, stream, text in lines.end():
                self._queue.put(_Line(task, stream, text))
            self._output_ended.set()

    # Words ----------------------------------------------------------------------------------------------------

    def _print(self, task: str, stream: str, text: str) -> None:
        self._output.data(prefixed(task, text))

    def _show(self, event: Event) -> None:
        self._heard_at = time.monotonic()
        if event.kind is EventKind.VERDICT:
            return
        if event.kind in _SHOWN or self._output.verbose:
            self._say(event.text)

    def _say(self, text: str) -> None:
        if text and text != self._said:
            self._output.say(self._output.style(f"tony: {safe(text)}", "dim"))
        self._said, self._said_at = text, time.monotonic()

    def _explain(self, now: float) -> None:
        """A wait of more than a few seconds is explained, and again every half minute."""
        if now - self._heard_at < _QUIET_S or now - self._said_at < _REMIND_S:
            return
        try:
            snapshot = self._handle.snapshot()
        except TonyError as error:
            text = f"the cluster does not answer: {error}"
        else:
            if not snapshot.waiting_for:
                self._said_at = now
                return
            text = snapshot.waits
        self._output.say(self._output.style(f"tony: {safe(text)} ({format_duration(now - self._heard_at)})", "dim"))
        self._said_at = now

    # Ctrl-C ---------------------------------------------------------------------------------------------------

    def _interrupted(self, on_interrupt: OnInterrupt) -> None:
        """Raises Interrupted, or returns when the following shall go on."""
        choice = on_interrupt
        if choice is OnInterrupt.ASK:
            choice = self._asked()
        if choice is OnInterrupt.ASK:
            return
        if choice is OnInterrupt.DETACH:
            raise Interrupted(None)
        self._output.tell("")
        self._output.tell(f"stopping {self._handle.application_id}; Ctrl-C again kills it at once")
        raise Interrupted(self._stopped())

    def _asked(self) -> OnInterrupt:
        """ASK means: go on."""
        if not sys.stdin.isatty():
            return OnInterrupt.KILL
        self._output.tell("")
        self._output.tell("k = kill the job, d = detach from it, Enter = go on following")
        try:
            answer = sys.stdin.readline().strip().lower()[:1]
        except KeyboardInterrupt:
            return OnInterrupt.KILL
        return {"k": OnInterrupt.KILL, "d": OnInterrupt.DETACH}.get(answer, OnInterrupt.ASK)

    def _stopped(self) -> Outcome:
        """Stop politely while output still comes; a second Ctrl-C kills."""
        box: list[Outcome | Exception] = []
        stopping = threading.Thread(target=self._stop_into, args=(box,), daemon=True)
        stopping.start()
        try:
            while stopping.is_alive():
                self._drain()
                stopping.join(0.1)
        except KeyboardInterrupt:
            self._output.tell("killing it")
            return self._handle.kill()
        self._drain()
        if isinstance(box[0], Outcome):
            return box[0]
        raise box[0]

    def _stop_into(self, box: list[Outcome | Exception]) -> None:
        try:
            box.append(self._handle.stop("Ctrl-C in the client", self._grace_s))
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            box.append(error)

    def _drain(self) -> None:
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, _Line):
                self._emit(item.task, item.stream, item.text)
