"""Where the user's processes are: Python stacks where they can be had, else what the kernel tells of each thread.

Three ways, the first that works for a process: it has called `tony.current()`, so its interpreter tells when asked by
a signal; ``py-spy`` is on the path of the node or of the user's environment; ``/proc``. The user's code is not
touched by any of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from executor.keeper import descendants
from tony.context import stacks_signal

TEXT_CHARACTERS = 60_000
_PROCESSES_LIMIT = 64
_THREADS_LIMIT = 256
_SIGNALLED_S = 2.0
_SETTLED_S = 0.15
_SPY_S = 10.0
_ALL_S = 30.0
_POLL_S = 0.02


class StackReader:
    """Reads the stacks of one run, one request at a time. Thread-safe."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def take(self, keeper_pid: int, told: Path | None, path: str) -> str:
        """A text about every process below the keeper; blocks, half a minute at most.

        `told` is the file into which interpreters write when they are asked; `path` is where py-spy is looked for.
        """
        with self._one_at_a_time:
            give_up_at = time.monotonic() + _ALL_S
            spy = shutil.which("py-spy", path=path)
            found = descendants(keeper_pid)
            parts = [_process(pid, told, spy, give_up_at) for pid in found[:_PROCESSES_LIMIT]]
            if len(found) > _PROCESSES_LIMIT:
                parts.append(f"and {len(found) - _PROCESSES_LIMIT} more processes")
            return "\n\n".join(part for part in parts if part)[:TEXT_CHARACTERS] or "no process runs"


def _process(pid: int, told: Path | None, spy: str | None, give_up_at: float) -> str:
    status = _status(pid)
    if not status:
        return ""
    head = f"process {pid} {status['Name']}, {status['State']}, {status['Threads']} threads"
    if not _is_python(pid) or time.monotonic() > give_up_at:
        return f"{head}\n{_kernel(pid)}"
    stopped = status["State"].startswith(("T", "t"))
    text = ""
    if told is not None and not stopped and _catches(status, stacks_signal()):
        text = _asked(pid, told)
    if not text and spy is not None:
        text = _spied(spy, pid)
    return f"{head}\n{text or _kernel(pid)}"


def _asked(pid: int, told: Path) -> str:
    """What the interpreter itself writes; empty if it does not answer."""
    try:
        before = told.stat().st_size
        os.kill(pid, stacks_signal())
        size, changed_at = before, time.monotonic()
        give_up_at = changed_at + _SIGNALLED_S
        while (now := time.monotonic()) < give_up_at:
            if size > before and now - changed_at > _SETTLED_S:
                break
            time.sleep(_POLL_S)
            if (fresh := told.stat().st_size) != size:
                size, changed_at = fresh, now
        with told.open("rb") as file:
            file.seek(before)
            return file.read(TEXT_CHARACTERS).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _spied(spy: str, pid: int) -> str:
    """py-spy without stopping the process; empty where it may not look."""
    try:
        done = subprocess.run(
            [spy, "dump", "--nonblocking", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SPY_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def _kernel(pid: int) -> str:
    """A line for each kind of thread: its name, its state, and where in the kernel it waits."""
    lines: Counter[str] = Counter()
    try:
        threads = os.listdir(f"/proc/{pid}/task")[:_THREADS_LIMIT]
    except OSError:
        return ""
    for thread in threads:
        status = _status(pid, thread)
        if status:
            waits = _read(f"/proc/{pid}/task/{thread}/wchan")
            where = f" in {waits}" if waits not in ("", "0") else ""
            lines[f"  {status['Name']}, {status['State']}{where}"] += 1
    return "\n".join(line + (f" ({count} threads)" if count > 1 else "") for line, count in lines.items())


def _status(pid: int, thread: str = "") -> dict[str, str]:
    """``/proc/<pid>/status``; empty when the process is gone."""
    place = f"/proc/{pid}/task/{thread}/status" if thread else f"/proc/{pid}/status"
    pairs = (line.partition(":") for line in _read(place).splitlines())
    found = {name: value.strip() for name, _, value in pairs}
    return found if {"Name", "State", "Threads", "SigCgt"} <= found.keys() else {}


def _catches(status: dict[str, str], number: int) -> bool:
    """Whether a handler is installed. Without one the signal would end the process."""
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def _is_python(pid: int) -> bool:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python")
    except OSError:
        return False


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(64 * 1024).decode("utf-8", "replace")
    except OSError:
        return ""
