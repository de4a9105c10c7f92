"""How much of the node the user's processes use: processor, memory, GPUs.

Where `psutil` or ``nvidia-smi`` is missing or misbehaves, its numbers are absent.
"""

from __future__ import annotations

import os
import threading
import time

from executor.gpus import GpuHealth
from executor.keeper import descendants

try:
    import psutil
except ImportError:  # pragma: no cover - the bundle has it; an administrator's Python may not
    psutil = None  # type: ignore[assignment]

PERIOD_S = 5.0
_PROCESSES_LIMIT = 500
_STOPPED = ("stopped", "tracing-stop")


class Metrics:
    """Samples the tree of one keeper in a thread of its own; `latest` is whatever the last sample found."""

    def __init__(self, keeper_pid: int, gpus: GpuHealth) -> None:
        self._root = keeper_pid
        self._stopped = threading.Event()
        self._latest: dict[str, float] = {}
        self._tree = _ProcessTree() if psutil is not None else None
        self._gpus = gpus
        self._thread = threading.Thread(target=self._sample_on, name="metrics", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> dict[str, float]:
        """``cpu_percent`` (of one core), ``memory_mb``, ``processes``, ``io_mb_per_s``, those of `GpuHealth.sample`.

        ``frozen`` counts processes that are stopped (SIGSTOP, a debugger). Empty before the first sample.
        """
        return dict(self._latest)

    @property
    def gpu_fault(self) -> str:
        """One sentence when a GPU of this task broke meanwhile, else empty."""
        return self._gpus.fault

    def close(self) -> None:
        """Stop sampling. May be called twice."""
        self._stopped.set()

    def _sample_on(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            sample: dict[str, float] = {}
            if self._tree is not None:
                sample.update(self._tree.sample(descendants(self._root)))
            sample.update(self._gpus.sample())
            # Of processes that are about to be gone nothing is left to see; what they used before tells more.
            if sample.get("memory_mb") != 0.0 or not self._latest:
                self._latest = sample


class _ProcessTree:
    """Sums over processes; keeps their objects, because processor time is a difference."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._sampled_at = time.monotonic()
        self._spent: dict[int, float] = {}
        self._moved: dict[int, int] = {}

    def sample(self, pids: list[int]) -> dict[str, float]:
        now = time.monotonic()
        memory = cpu_s = 0.0
        known: dict[int, psutil.Process] = {}
        spent: dict[int, float] = {}
        moved: dict[int, int] = {}
        io_bytes = stopped = 0
        for pid in pids[:_PROCESSES_LIMIT]:
            try:
                process = self._known.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    memory += process.memory_info().rss
                    times = process.cpu_times()
                    stopped += process.status() in _STOPPED
                    moved[pid] = _moved(process)
            except psutil.Error:
                continue
            known[pid] = process
            spent[pid] = times.user + times.system
            cpu_s += max(0.0, spent[pid] - self._spent.get(pid, 0.0))
            io_bytes += max(0, moved[pid] - self._moved.get(pid, 0))
        elapsed = max(now - self._sampled_at, 0.001)
        self._known, self._spent, self._moved, self._sampled_at = known, spent, moved, now
        sample = {
            "cpu_percent": round(100.0 * cpu_s / elapsed, 1),
            "memory_mb": round(memory / 1024**2, 1),
            "processes": float(len(known)),
            "io_mb_per_s": round(io_bytes / elapsed / 1000**2, 3),
        }
        return {**sample, "frozen": float(stopped)} if stopped else sample


def _moved(process: psutil.Process) -> int:
    """Bytes that it has read and written so far, through files, pipes and most sockets; 0 where that is not told."""
    try:
        counters = process.io_counters()
    except (psutil.Error, AttributeError):
        return 0
    return int(counters.read_chars + counters.write_chars)


def oom_kills() -> int | None:
    """How often the kernel's out-of-memory killer struck in our control group; None where that cannot be read."""
    try:
        with open("/proc/self/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            candidates = [f"/sys/fs/cgroup{path}/memory.events", "/sys/fs/cgroup/memory.events"]
        elif "memory" in controllers.split(","):
            base = "/sys/fs/cgroup/memory"
            candidates = [f"{base}{path}/memory.oom_control", f"{base}/memory.oom_control"]
        else:
            continue
        for candidate in candidates:
            count = _counter(candidate, "oom_kill")
            if count is not None:
                return count
    return None


def _counter(path: str, name: str) -> int | None:
    if not os.path.exists(path):
        return None
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    except (OSError, ValueError):
        pass
    return None
