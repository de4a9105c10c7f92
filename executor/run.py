"""One run of the user's command: a generation of this task, from its release until nothing of it is left."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from executor.failure import Ending, diagnose
from executor.gpus import TaskGpus
from executor.lease import Lease
from executor.metrics import Metrics, oom_kills
from executor.page import PageFound, PageWatch
from executor.peers import PeersSilent, look_for
from executor.ports import Ports
from executor.process import UserEvent, UserExited, UserGone, UserNotStarted, UserProcess, UserStarted
from executor.reports import Reports, ReportSocket
from executor.stacks import StackReader
from executor.streams import OutputEnded, Streams
from tony.protocol.messages import Result
from tony.state import Reason
from tony.units import format_bytes

DRAIN_S = 1.0
"""How long the last words of an ended process are waited for: a process that it left may hold its pipes."""

_REPORTS_S = 0.5
"""How long its last reports are waited for, which lie in the socket already."""

_DIAGNOSED_LINES = 400

log = logging.getLogger(__name__)

RunEvent = UserEvent | OutputEnded | PeersSilent | PageFound


class UserRun:
    """Owned by the main thread; its threads post events, which come back to it through `take`.

    `generation` is that of its start, by which its events are known. A process that lives on `serves` newer ones, and
    its end is reported for that which it served last.
    """

    def __init__(
        self,
        generation: int,
        ports: Ports,
        streams: Streams,
        reports: Reports,
        post: Callable[[RunEvent], None],
    ) -> None:
        self.generation = generation
        self.serves = generation
        self.pid = 0
        self.exited: UserExited | None = None
        self.over = False
        self.page = ""
        self.result_due_at: float | None = None
        self._ports = ports
        self._streams = streams
        self._post = post
        self._process = UserProcess(generation, post)
        self._report_socket = _report_socket(reports)
        self._metrics: Metrics | None = None
        self._page_watch: PageWatch | None = None
        self._oom_kills = oom_kills()
        self._failed_start: Result | None = None
        self._cut_off: Result | None = None
        self._output_ended = False
        self._stacks = StackReader()
        self._path = ""
        self._cwd: Path | None = None

    @property
    def report_path(self) -> str | None:
        """Where the script reports; None if it cannot."""
        return self._report_socket.path if self._report_socket is not None else None

    def start(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, lease: Lease) -> None:
        """Start the command, or be over at once with a result. Only in the main thread."""
        remove = self._report_socket.remove if self._report_socket is not None else ()
        self._path, self._cwd = environment.get("PATH", ""), cwd
        stdout, stderr = self._streams.attach(self.generation, self._post)
        try:
            self._process.start(argv, environment, cwd, stdout, stderr, lease.grace_s, lease.terminate_at, remove)
        except OSError as error:
            os.close(stdout)
            os.close(stderr)
            self._cannot_start(f"No process can be started: {error.strerror}.", Reason.INTERNAL)
            self.over = True
            self._let_go()

    def look_for(self, peers: Mapping[str, str]) -> None:
        """See whether those peers can be reached, beside everything else; without any of them it has failed."""
        look_for(self.generation, peers, self._post)

    def look_for_page(self, host: str, port: int) -> None:
        """See whether it serves a page there, which is then `page`, beside everything else."""
        self._page_watch = PageWatch(self.generation, host, port, self._post)

    @property
    def running(self) -> bool:
        """Whether the user's own process is there, or about to be."""
        return self.exited is None and not self.over and self._failed_start is None

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last sample of what it uses, and ``output_bytes``: what the task has written so far, dropped or not."""
        sample = self._metrics.latest if self._metrics is not None else {}
        return {**sample, "output_bytes": float(self._streams.heard_bytes)} if sample else {}

    def take(self, event: RunEvent, gpus: TaskGpus) -> None:
        """Something happened to it."""
        if isinstance(event, UserStarted):
            self.pid = event.pid
            self._metrics = Metrics(self._process.keeper_pid, gpus.health())
        elif isinstance(event, UserNotStarted):
            self._cannot_start(f"The command cannot be started: {os.strerror(event.error)}.", Reason.WORKER_EXIT)
        elif isinstance(event, UserExited):
            self._ended(event)
        elif isinstance(event, OutputEnded):
            # All that it said about its end has been read; mostly before its end itself is known.
            self._output_ended = True
            if self.result_due_at is not None:
                self.result_due_at = time.monotonic()
        elif isinstance(event, PeersSilent):
            self._alone(event.message)
        elif isinstance(event, PageFound):
            self.page = event.url
        else:
            self._gone(event)

    def _alone(self, message: str) -> None:
        """Its process may wait for its peers for ever; the master decides what becomes of it."""
        if self.running:
            self._cut_off = Result(
                generation=self.serves,
                phase=Result.START,
                reason=Reason.UNREACHABLE_PEER.value,
                message=message,
            )
            self.result_due_at = time.monotonic()

    def _cannot_start(self, message: str, reason: Reason) -> None:
        self._failed_start = Result(
            generation=self.serves, phase=Result.START, exit_code=127, reason=reason.value, message=message
        )
        self.result_due_at = time.monotonic()

    def _ended(self, exited: UserExited) -> None:
        self.exited = exited
        self.result_due_at = time.monotonic() + (0.0 if self._output_ended else DRAIN_S)

    def _gone(self, gone: UserGone) -> None:
        if gone.keeper_lost and self.exited is None and self._failed_start is None:
            # Whoever killed the keeper killed the user process with it.
            self._ended(UserExited(self.generation, signal="SIGKILL"))
        self.over = True
        self._let_go()

    def _let_go(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._page_watch is not None:
            self._page_watch.close()
        if self._report_socket is not None:
            self._report_socket.close()
        self._ports.release()

    def result(self) -> Result:
        """What to report of its end. Only after `result_due_at`, which is cleared."""
        self.result_due_at = None
        early = self._failed_start if self._failed_start is not None else self._cut_off
        if early is not None:
            return early
        exited = self.exited
        assert exited is not None
        lines = self._streams.tail.lines
        diagnosis = diagnose(
            Ending(
                code=exited.code,
                signal=exited.signal,
                seconds=exited.seconds,
                lines=lines(_DIAGNOSED_LINES),
                ports=self._ports.numbers,
                oom_killed=(oom_kills() or 0) > (self._oom_kills or 0),
                peak_mb=exited.peak_mb,
                gpu_fault=self._metrics.gpu_fault if self._metrics is not None else "",
                disk=_room(self._cwd) if exited.code or exited.signal else "",
            )
        )
        succeeded = diagnosis.reason is Reason.SUCCEEDED
        return Result(
            generation=self.serves,
            exit_code=exited.code,
            signal=exited.signal,
            reason="" if succeeded else diagnosis.reason.value,
            message="" if succeeded else diagnosis.message,
            tail=lines(),
            traceback=diagnosis.traceback,
            seconds=exited.seconds,
        )

    def dump_stacks(self, tell: Callable[[str], None], into_log: bool) -> None:
        """Look at where its processes are, in a thread that calls `tell`. Returns at once."""
        stacks = self._report_socket.stacks if self._report_socket is not None else None

        def look() -> None:
            text = self._stacks.take(self._process.keeper_pid, stacks, self._path)
            if into_log:
                self._streams.note(f"\n[tony] stacks:\n{text}\n[tony] end of stacks\n")
            tell(text)

        threading.Thread(target=look, name="stacks", daemon=True).start()

    def hear_out(self) -> None:
        """Take what its script has reported so far. Blocks for a moment."""
        if self._report_socket is not None:
            self._report_socket.catch_up(_REPORTS_S)

    def renew(self, lease: float) -> None:
        """It may go on until the monotonic time `lease`."""
        self._process.renew(lease)

    def stop(self, grace_s: float) -> None:
        """Begin to end it: TERM now, KILL after `grace_s`. Said again, the shorter grace counts."""
        self._process.stop(grace_s)

    def join(self, timeout_s: float) -> bool:
        """Wait until nothing of it is left; False when the time is over first."""
        return self._process.join(timeout_s)

    def close(self) -> None:
        """Let go; the keeper ends what is left. May be called twice."""
        self._process.close()
        self._let_go()


def _room(folder: Path | None) -> str:
    try:
        return f"{folder} has {format_bytes(shutil.disk_usage(folder).free)} free" if folder is not None else ""
    except OSError:
        return ""


def _report_socket(reports: Reports) -> ReportSocket | None:
    try:
        return ReportSocket(reports)
    except OSError as error:
        log.warning("the user's reports cannot be received: %s", error)
        return None
