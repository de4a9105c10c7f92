"""Several user processes in one task, each with its own rank: ``python -I -S ranks.py N command…``.

Stands between the keeper and the user's processes; standard library only. They run side by side and see the same
GPUs; each finds its device by its local rank. The first that fails decides: the others, which would wait for it in
vain, are ended, and its exit code or signal becomes that of the whole. Their output is passed on in whole lines, and
the last lines of the one that failed come once more at the end, where they are looked for.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FROM_TASK = ("TONY_RANK", "RANK", "HOROVOD_RANK")
_FROM_ZERO = ("TONY_LOCAL_RANK", "LOCAL_RANK", "HOROVOD_LOCAL_RANK")
_CHIEF_ONLY = ("IS_CHIEF", "TB_PORT")
_GRACE_S = 5.0
_DRAIN_S = 1.0
_LAST_LINES = 100
_LINE_LIMIT = 8192
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def argv(processes: int, command: Sequence[str]) -> list[str]:
    """The command line that runs `processes` of the command."""
    return [sys.executable, "-I", "-S", __file__, str(processes), *command]


def variables(environment: Mapping[str, str], local_rank: int) -> dict[str, str]:
    """The environment of one of the processes. What is not there, or says that the task has no rank, stays so."""
    own = dict(environment)
    for name in (*_FROM_TASK, *_FROM_ZERO):
        first = own.get(name, "")
        if first.isdigit():
            own[name] = str(int(first) + local_rank)
    if local_rank:
        own["TONY_IS_CHIEF"] = "false"
        for name in _CHIEF_ONLY:
            own.pop(name, None)
    return own


class Rank:
    """One of the processes, and two threads that pass on what it says. Raises OSError when it cannot be started."""

    def __init__(self, command: Sequence[str], local_rank: int, lock: threading.Lock) -> None:
        self.local_rank = local_rank
        self.last: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._lock = lock
        parent = os.getpid()

        def bind_to_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        self.process = subprocess.Popen(
            command,
            env=variables(os.environ, local_rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=bind_to_parent,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self._threads = [
            threading.Thread(target=self._pass_on, args=(pipe.fileno(), into), daemon=True)
            for pipe, into in ((self.process.stdout, 1), (self.process.stderr, 2))
        ]
        for thread in self._threads:
            thread.start()

    def _pass_on(self, pipe: int, into: int) -> None:
        rest = b""
        while block := os.read(pipe, 1 << 16):
            # Whole lines, so that those of several processes do not mix; a progress bar ends its with CR.
            *lines, rest = re.split(rb"(?<=[\n\r])", rest + block)
            if len(rest) > _LINE_LIMIT:
                lines, rest = [*lines, rest], b""
            self._say(lines, into)
        self._say([rest] if rest else [], into)

    def _say(self, lines: list[bytes], into: int) -> None:
        with self._lock:
            if into == 2:
                self.last.extend(lines)
            write(into, b"".join(lines))

    def drain(self, until: float) -> None:
        """Wait for its last words until that monotonic time: a process that it left may hold its pipes."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def main(arguments: Sequence[str]) -> int:
    """Start them, wait for them, end like the first that failed."""
    # The keeper tells every process below it to end; this one waits for how they do.
    signal.signal(signal.SIGTERM, lambda *_: None)
    lock = threading.Lock()
    ranks: dict[int, Rank] = {}
    for local_rank in range(int(arguments[0])):
        try:
            rank = Rank(arguments[1:], local_rank, lock)
        except OSError as error:
            write(2, f"{arguments[1]}: {error.strerror}\n".encode())
            _end(list(ranks.values()))
            return 127
        ranks[rank.process.pid] = rank
    running = dict(ranks)
    code, first = 0, None
    while running and not code:
        pid, status = os.wait()
        first = running.pop(pid, None)
        if first is not None:
            code = first.process.returncode = os.waitstatus_to_exitcode(status)
    _end(list(running.values()))
    until = time.monotonic() + _DRAIN_S
    for rank in ranks.values():
        rank.drain(until)
    if code and first is not None:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        with lock:
            write(2, f"local rank {first.local_rank} ended first, with {how}:\n".encode() + b"".join(first.last))
    return _like(code)


def write(into: int, text: bytes) -> None:
    """All of it, whatever the pipe takes at once."""
    while text:
        text = text[os.write(into, text) :]


def _end(ranks: Sequence[Rank]) -> None:
    for rank in ranks:
        rank.process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for rank in ranks:
        try:
            rank.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.process.kill()
            rank.process.wait()


def _like(code: int) -> int:
    """That exit code; where it was a signal (negative), this process dies of the same."""
    if code < 0:
        # No core of our own beside that of the process that failed.
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Not sys.exit: a thread that still reads from what a user's process left behind must not delay the end.
    os._exit(code)
