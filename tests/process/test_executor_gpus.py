"""The GPUs of a task, with an ``nvidia-smi`` that behaves, misbehaves or is not there."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from executor import gpus
from executor.gpus import GpuHealth, TaskGpus, named_devices

FOUR = "\n".join(f'echo "GPU {n}: Tesla T4 (UUID: GPU-test-{n})"' for n in range(4))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PERIOD_S", 0.0)
    monkeypatch.setattr(gpus, "_SMI_LIMIT_S", 0.5)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def smi(folder: Path, script: str) -> dict[str, str]:
    """Variables of a container in which that is ``nvidia-smi``."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def health(folder: Path, script: str) -> GpuHealth:
    smi(folder, script)
    return GpuHealth(str(folder / "nvidia-smi"), ())


def test_a_task_without_gpus_sees_none(tmp_path: Path) -> None:
    found = TaskGpus(0, smi(tmp_path, FOUR))
    assert (found.names, found.environment) == ((), {"CUDA_VISIBLE_DEVICES": ""})
    assert found.health().sample() == {}


def test_isolated_gpus_are_named_and_left_as_they_are(tmp_path: Path) -> None:
    found = TaskGpus(4, smi(tmp_path, FOUR))
    assert found.names[1] == "GPU 1: Tesla T4 (UUID: GPU-test-1)"
    assert (len(found.names), found.environment) == (4, {})


def test_neighbours_on_a_node_that_only_counts_gpus_get_different_ones(tmp_path: Path, closing: ExitStack) -> None:
    variables = smi(tmp_path, FOUR)
    first, second = TaskGpus(2, variables), TaskGpus(2, variables)
    closing.callback(second.close)
    assert first.environment == {"CUDA_VISIBLE_DEVICES": "GPU-test-0,GPU-test-1"}
    assert second.environment == {"CUDA_VISIBLE_DEVICES": "GPU-test-2,GPU-test-3"}
    assert second.names == ("GPU 2: Tesla T4 (UUID: GPU-test-2)", "GPU 3: Tesla T4 (UUID: GPU-test-3)")

    crowded = TaskGpus(1, variables)
    assert (crowded.environment, len(crowded.names)) == ({}, 4), "nothing is free: it sees all, as without us"
    first.close()
    first.close()
    successor = TaskGpus(1, variables)
    closing.callback(successor.close)
    assert successor.environment == {"CUDA_VISIBLE_DEVICES": "GPU-test-0"}


def test_devices_that_the_environment_names_are_claimed_only_when_they_are_too_many(closing: ExitStack) -> None:
    named = {"CUDA_VISIBLE_DEVICES": "test-a,test-b", "PATH": "/usr/bin:/bin"}
    whole, half = TaskGpus(2, named), TaskGpus(1, named)
    closing.callback(half.close)
    assert (whole.names, whole.environment) == (("test-a", "test-b"), {})
    assert (half.names, half.environment) == (("test-a",), {"CUDA_VISIBLE_DEVICES": "test-a"})


def test_instances_of_a_divided_gpu_count_as_devices(tmp_path: Path) -> None:
    listing = 'echo "GPU 0: A100 (UUID: GPU-9)"; echo "  MIG 1g.5gb Device 0: (UUID: MIG-7)"'
    assert TaskGpus(1, smi(tmp_path, listing)).names == ("MIG 1g.5gb Device 0: (UUID: MIG-7)",)


def test_without_nvidia_smi_nothing_is_known_and_nothing_is_changed() -> None:
    found = TaskGpus(2, {"PATH": "/usr/bin:/bin"})
    assert (found.names, found.environment, found.health().sample()) == ((), {}, {})


def test_the_numbers_of_all_devices_of_a_task_are_put_together(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    variables = smi(tmp_path, f'echo "$@" > {asked}; echo "50, 1000, 60, 0"; echo "70, 500, 71, [N/A]"')
    found = TaskGpus(2, {**variables, "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}).health().sample()
    assert found == {"gpu_percent": 60.0, "gpu_memory_mb": 1500.0, "gpu_temperature_c": 71.0, "gpu_ecc_errors": 0.0}
    assert "--id=GPU-a,GPU-b" in asked.read_text()


def test_ids_of_the_host_are_not_asked_for_inside_of_its_container(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    variables = smi(tmp_path, f'echo "$@" > {asked}; echo "50, 1000, 60, 0"')
    found = TaskGpus(1, {**variables, "NVIDIA_VISIBLE_DEVICES": "3"})
    assert (found.names, found.health().sample()["gpu_percent"]) == (("3",), 50.0)
    assert "--id" not in asked.read_text()


MISBEHAVING = ["exit 9", "echo 'NVIDIA-SMI has failed'", "exec sleep 60", "kill -9 $$"]


@pytest.mark.parametrize("script", MISBEHAVING)
def test_a_task_starts_though_its_nvidia_smi_misbehaves(tmp_path: Path, script: str) -> None:
    began = time.monotonic()
    found = TaskGpus(2, smi(tmp_path, script))
    assert (found.names, found.environment) == ((), {})
    assert time.monotonic() - began < 5.0


def test_a_driver_that_hangs_with_its_callers_does_not_keep_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "_KILL_LIMIT_S", 0.1)
    with monkeypatch.context() as no_signal_arrives:
        no_signal_arrives.setattr(subprocess.Popen, "kill", lambda _: None)
        found = TaskGpus(2, smi(tmp_path, "exec sleep 60"))
        assert (found.names, found.environment, found.health().sample()) == ((), {}, {})
    while gpus._stuck:
        stuck = gpus._stuck.pop()
        stuck.kill()
        assert stuck.wait(10) == -signal.SIGKILL


def test_of_a_list_that_breaks_off_the_devices_before_are_taken(tmp_path: Path, closing: ExitStack) -> None:
    lost = "echo 'Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.'; exit 15"
    found = TaskGpus(2, smi(tmp_path, f"{FOUR}\necho 'GPU 4: Tesla'; {lost}"))
    closing.callback(found.close)
    assert found.environment == {"CUDA_VISIBLE_DEVICES": "GPU-test-0,GPU-test-1"}


@pytest.mark.parametrize("script", [*MISBEHAVING, "echo '[N/A],[N/A],[N/A],[N/A]'", "echo 'nan, inf, -inf, x'"])
def test_an_nvidia_smi_that_misbehaves_only_costs_its_numbers(tmp_path: Path, script: str) -> None:
    began = time.monotonic()
    found = health(tmp_path, script)
    assert (found.sample(), found.fault) == ({}, "")
    assert time.monotonic() - began < 5.0


def test_lines_that_are_not_whole_do_not_spoil_the_others(tmp_path: Path) -> None:
    found = health(tmp_path, "echo '12, 34'; echo '50, 1000, 60, 0'; echo '7,'; printf '9, 1, 2, '")
    assert found.sample() == {
        "gpu_percent": 29.5,
        "gpu_memory_mb": 1001.0,
        "gpu_temperature_c": 60.0,
        "gpu_ecc_errors": 0.0,
    }


def test_an_nvidia_smi_that_fails_is_not_asked_for_ever(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    found = health(tmp_path, f"echo x >> {asked}; exit 1")
    for _ in range(6):
        found.sample()
    assert asked.read_text().count("x") == 3


def test_memory_errors_that_were_there_before_are_nobodys_fault_and_new_ones_are(tmp_path: Path) -> None:
    found = health(tmp_path, f'echo "1, 1, 1, $(cat {tmp_path}/errors)"')
    errors = tmp_path / "errors"
    errors.write_text("2")
    found.sample()
    assert found.fault == ""
    errors.write_text("5")
    assert found.sample()["gpu_ecc_errors"] == 5.0
    assert found.fault == "3 uncorrectable ECC errors in the memory of its GPUs."


def test_a_device_that_is_lost_is_a_fault(tmp_path: Path) -> None:
    found = health(tmp_path, "echo 'Unable to determine the device handle for GPU 0000:3B: GPU is lost.'; exit 15")
    found.sample()
    assert "GPU is lost" in found.fault


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        (None, None),
        ("all", None),
        ("2", ("2",)),
        ("GPU-1, GPU-2", ("GPU-1", "GPU-2")),
        ("none", ()),
        ("void", ()),
        ("", ()),
        ("-1", ()),
    ],
)
def test_a_variable_says_which_devices_there_are(value: str | None, devices: tuple[str, ...] | None) -> None:
    assert named_devices(value) == devices


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"NVIDIA_VISIBLE_DEVICES": "2,3"}, ("2", "3")),
        ({"NVIDIA_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "0"}, ("0",)),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, ()),
    ],
)
def test_what_a_container_was_given_is_never_claimed(variables: dict[str, str], names: tuple[str, ...]) -> None:
    found = TaskGpus(1, {"PATH": "/usr/bin:/bin", **variables})
    assert (found.names, found.environment) == (names, {})


def test_all_devices_for_the_runtime_says_nothing_of_which(tmp_path: Path, closing: ExitStack) -> None:
    """As the images of CUDA have it, on a node that only counts."""
    found = TaskGpus(1, {**smi(tmp_path, FOUR), "NVIDIA_VISIBLE_DEVICES": "all"})
    closing.callback(found.close)
    assert found.environment == {"CUDA_VISIBLE_DEVICES": "GPU-test-0"}


def test_nonsense_of_any_length_takes_no_time_to_speak_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_SMI_LIMIT_S", 30.0)
    watched = health(tmp_path, "head -c 400000 /dev/zero | tr '\\0' x")
    before = time.process_time()
    assert watched.sample() == {}
    # While it is read, nothing else of the executor runs: no beat, no lease.
    assert time.process_time() - before < 1.0
