"""How much of the node the user's processes use: processor, memory, GPUs. Nothing depends on it.

Where `psutil` or ``nvidia-smi`` is missing or misbehaves, its numbers are absent.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping

from executor.keeper import descendants

try:
    import psutil
except ImportError:  # pragma: no cover - the bundle has it; an administrator's Python may not
    psutil = None  # type: ignore[assignment]

PERIOD_S = 5.0
GPU_PERIOD_S = 15.0
_SMI_LIMIT_S = 5.0
_SMI_FAILURES = 3
_PROCESSES_LIMIT = 500
_STOPPED = ("stopped", "tracing-stop")

log = logging.getLogger(__name__)


class Metrics:
    """Samples the tree of one keeper in a thread of its own; `latest` is whatever the last sample found."""

    def __init__(self, keeper_pid: int, variables: Mapping[str, str]) -> None:
        self._root = keeper_pid
        self._stopped = threading.Event()
        self._latest: dict[str, float] = {}
        self._tree = _ProcessTree() if psutil is not None else None
        self._gpus = _Gpus(variables)
        self._thread = threading.Thread(target=self._sample_on, name="metrics", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> dict[str, float]:
        """``cpu_percent`` (of one core), ``memory_mb``, ``processes``, ``io_mb_per_s``, ``gpu_percent`` and so on.

        ``frozen`` counts processes that are stopped (SIGSTOP, a debugger). Empty before the first sample.
        """
        return dict(self._latest)

    def close(self) -> None:
        """Stop sampling. May be called twice."""
        self._stopped.set()

    def _sample_on(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            sample: dict[str, float] = {}
            if self._tree is not None:
                sample.update(self._tree.sample(descendants(self._root)))
            sample.update(self._gpus.sample())
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


class _Gpus:
    """``nvidia-smi`` for the devices of this task, asked seldom; after a few failures never again."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._command = shutil.which("nvidia-smi", path=variables.get("PATH"))
        self._devices = visible_devices(variables)
        self._failures = 0
        self._asked_at = float("-inf")
        self._latest: dict[str, float] = {}

    def sample(self) -> dict[str, float]:
        now = time.monotonic()
        if self._command is None or self._failures >= _SMI_FAILURES or self._devices == ():
            return {}
        if now - self._asked_at < GPU_PERIOD_S:
            return self._latest
        self._asked_at = now
        query = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        chosen = [f"--id={','.join(self._devices)}"] if self._devices else []
        said = _ask([self._command, *query, *chosen])
        rows = [_numbers(line) for line in (said or "").splitlines()]
        rows = [row for row in rows if len(row) == 2]
        if not rows:
            self._failures += 1
            self._latest = {}
            return {}
        self._failures = 0
        self._latest = {
            "gpu_percent": round(sum(row[0] for row in rows) / len(rows), 1),
            "gpu_memory_mb": sum(row[1] for row in rows),
        }
        return self._latest


def gpus(variables: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that this container has, for people. May block for some seconds."""
    devices = visible_devices(variables)
    if devices is not None:
        return list(devices)
    command = shutil.which("nvidia-smi", path=variables.get("PATH"))
    said = _ask([command, "-L"]) if command else None
    return [line.strip() for line in (said or "").splitlines() if line.startswith("GPU ")][:64]


def visible_devices(variables: Mapping[str, str]) -> tuple[str, ...] | None:
    """The devices that the environment names; () when it says that there are none, None when it says nothing."""
    for name in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        value = variables.get(name)
        if value in (None, "all"):
            continue
        if value in ("void", "none", "NoDevFiles", "-1"):
            return ()
        return tuple(part.strip() for part in str(value).split(",") if part.strip())
    return None


def _ask(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SMI_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.info("no GPU numbers: %s", error)
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _numbers(line: str) -> list[float]:
    try:
        return [float(part) for part in line.split(",")]
    except ValueError:
        return []


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
