"""Numbers of real processes, and of an ``nvidia-smi`` that behaves, misbehaves or is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_bench import eventually

from executor import metrics
from executor.metrics import Metrics, gpus, oom_kills, visible_devices


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.1)
    monkeypatch.setattr(metrics, "GPU_PERIOD_S", 0.1)
    monkeypatch.setattr(metrics, "_SMI_LIMIT_S", 0.5)


@pytest.fixture
def busy() -> Iterator[int]:
    """A process whose child keeps a core busy and holds 50 MB; the id of the parent."""
    child = "x = bytearray(50_000_000)\nwhile True: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait(10)


def smi(folder: Path, script: str) -> dict[str, str]:
    """Variables of a container in which that is ``nvidia-smi``."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def sampled(pid: int, variables: dict[str, str], name: str) -> Metrics:
    """Metrics that have the number of that name, or had the time for it."""
    found = Metrics(pid, variables)
    eventually(lambda: name in found.latest, 10.0)
    return found


def test_the_whole_tree_below_the_keeper_is_counted(busy: int) -> None:
    found = Metrics(busy, {})
    assert eventually(lambda: found.latest.get("memory_mb", 0) > 50 and found.latest["cpu_percent"] > 5)
    found.close()
    found.close()
    assert found.latest["processes"] == 1.0


def test_a_process_that_is_gone_has_no_numbers_and_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    found = sampled(process.pid, {}, "processes")
    found.close()
    assert found.latest == {"cpu_percent": 0.0, "memory_mb": 0.0, "processes": 0.0, "io_mb_per_s": 0.0}


def test_a_frozen_process_and_bytes_that_move_are_told() -> None:
    writes = "import sys\nwhile True: open('/dev/null', 'wb').write(bytes(100_000))"
    process = subprocess.Popen([sys.executable, "-c", writes])
    found = Metrics(os.getpid(), {})
    try:
        assert eventually(lambda: found.latest.get("io_mb_per_s", 0.0) > 0.1)
        assert "frozen" not in found.latest
        process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: found.latest.get("frozen") == 1.0)
    finally:
        found.close()
        process.kill()
        process.wait()


def test_gpus_are_summed_and_only_those_of_the_task_are_asked(tmp_path: Path) -> None:
    variables = smi(tmp_path, f'echo "$@" > {tmp_path}/asked; echo "50, 1000"; echo "70, 500"')
    variables["NVIDIA_VISIBLE_DEVICES"] = "GPU-a,GPU-b"
    found = sampled(os.getpid(), variables, "gpu_percent")
    found.close()
    assert (found.latest["gpu_percent"], found.latest["gpu_memory_mb"]) == (60.0, 1500.0)
    assert "--id=GPU-a,GPU-b" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'NVIDIA-SMI has failed'", "echo '[N/A], [N/A]'", "exec sleep 60", "kill -9 $$"]
)
def test_an_nvidia_smi_that_misbehaves_only_costs_its_numbers(tmp_path: Path, script: str) -> None:
    began = time.monotonic()
    found = sampled(os.getpid(), smi(tmp_path, script), "cpu_percent")
    found.close()
    assert set(found.latest) == {"cpu_percent", "memory_mb", "processes", "io_mb_per_s"}
    assert time.monotonic() - began < 5.0


def test_an_nvidia_smi_that_fails_is_not_asked_for_ever(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    found = Metrics(os.getpid(), smi(tmp_path, f"echo x >> {asked}; exit 1"))
    assert eventually(lambda: asked.exists() and asked.read_text().count("x") == 3)
    time.sleep(0.5)
    found.close()
    assert asked.read_text().count("x") == 3


def test_the_gpus_of_a_container_are_named_if_anybody_knows_them(tmp_path: Path) -> None:
    listing = smi(tmp_path, 'echo "GPU 0: Tesla T4 (UUID: GPU-1)"; echo noise')
    assert gpus(listing) == ["GPU 0: Tesla T4 (UUID: GPU-1)"]
    assert gpus({**listing, "CUDA_VISIBLE_DEVICES": "0,1"}) == ["0", "1"]
    assert gpus({**listing, "NVIDIA_VISIBLE_DEVICES": "void"}) == []
    assert gpus({"PATH": "/usr/bin:/bin"}) == []


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "2"}, ("2",)),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-1, GPU-2"}, ("GPU-1", "GPU-2")),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, ()),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
    ],
)
def test_the_environment_says_which_devices_there_are(
    variables: dict[str, str], devices: tuple[str, ...] | None
) -> None:
    assert visible_devices(variables) == devices


def test_the_counter_of_the_oom_killer_is_read_where_there_is_one(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 2\noom_kill 3\noom_group_kill 0\n")
    assert metrics._counter(str(events), "oom_kill") == 3
    assert metrics._counter(str(tmp_path / "none"), "oom_kill") is None
    counted = oom_kills()
    assert counted is None or counted >= 0
