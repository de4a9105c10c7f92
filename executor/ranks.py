"""Several user processes in one task, each with its own rank: ``python -I -S ranks.py N command…``.

Stands between the keeper and the user's processes; standard library only. They run side by side and see the same
GPUs; each finds its device by its local rank. The first that fails decides: the others, which would wait for it in
vain, are ended, and its exit code or signal becomes that of the whole.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FROM_TASK = ("TONY_RANK", "RANK", "HOROVOD_RANK")
_FROM_ZERO = ("TONY_LOCAL_RANK", "LOCAL_RANK", "HOROVOD_LOCAL_RANK")
_CHIEF_ONLY = ("IS_CHIEF", "TB_PORT")
_GRACE_S = 5.0
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


def main(arguments: Sequence[str]) -> int:
    """Start them, wait for them, end like the first that failed."""
    # The keeper tells every process below it to end; this one waits for how they do.
    signal.signal(signal.SIGTERM, lambda *_: None)
    parent = os.getpid()

    def bind_to_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
    for local_rank in range(int(arguments[0])):
        environment = variables(os.environ, local_rank)
        try:
            started = subprocess.Popen(arguments[1:], env=environment, preexec_fn=bind_to_parent)
        except OSError as error:
            print(f"{arguments[1]}: {error.strerror}", file=sys.stderr)
            _end([process for _, process in running.values()])
            return 127
        running[started.pid] = (local_rank, started)
    while running:
        pid, status = os.wait()
        if pid not in running:
            continue
        local_rank, process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            _end([process for _, process in running.values()])
            return _like(process.returncode)
    return 0


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
    sys.exit(main(sys.argv[1:]))
