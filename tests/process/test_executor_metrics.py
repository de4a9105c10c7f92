"""Numbers of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_bench import eventually

from executor import metrics
from executor.gpus import GpuHealth
from executor.metrics import Metrics, oom_kills

NO_GPUS = GpuHealth(None, ())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.1)


@pytest.fixture
def busy() -> Iterator[int]:
    """A process whose child keeps a core busy and holds 50 MB; the id of the parent."""
    child = "x = bytearray(50_000_000)\nwhile True: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait(10)


def sampled(pid: int, name: str) -> Metrics:
    """Metrics that have the number of that name, or had the time for it."""
    found = Metrics(pid, NO_GPUS)
    eventually(lambda: name in found.latest, 10.0)
    return found


def test_the_whole_tree_below_the_keeper_is_counted(busy: int) -> None:
    found = Metrics(busy, NO_GPUS)
    assert eventually(lambda: found.latest.get("memory_mb", 0) > 50 and found.latest["cpu_percent"] > 5)
    found.close()
    found.close()
    assert found.latest["processes"] == 1.0


def test_what_was_used_is_still_told_when_the_processes_are_gone(busy: int) -> None:
    found = Metrics(busy, NO_GPUS)
    assert eventually(lambda: found.latest.get("memory_mb", 0) > 50)
    os.killpg(busy, 9)
    assert not eventually(lambda: found.latest["memory_mb"] == 0, 2.0)
    found.close()


def test_a_process_that_is_gone_has_no_numbers_and_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    found = sampled(process.pid, "processes")
    found.close()
    assert found.latest == {"cpu_percent": 0.0, "memory_mb": 0.0, "processes": 0.0, "io_mb_per_s": 0.0}


def test_a_frozen_process_and_bytes_that_move_are_told() -> None:
    writes = "import sys\nwhile True: open('/dev/null', 'wb').write(bytes(100_000))"
    process = subprocess.Popen([sys.executable, "-c", writes])
    found = Metrics(os.getpid(), NO_GPUS)
    try:
        assert eventually(lambda: found.latest.get("io_mb_per_s", 0.0) > 0.1)
        assert "frozen" not in found.latest
        process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: found.latest.get("frozen") == 1.0)
    finally:
        found.close()
        process.kill()
        process.wait()


def test_the_counter_of_the_oom_killer_is_read_where_there_is_one(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 2\noom_kill 3\noom_group_kill 0\n")
    assert metrics._counter(str(events), "oom_kill") == 3
    assert metrics._counter(str(tmp_path / "none"), "oom_kill") is None
    counted = oom_kills()
    assert counted is None or counted >= 0
