"""Horovod on a real YARN: ranks find each other, and a killed one costs nothing but time."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.training import EXAMPLES, HOROVOD, TIMEOUT_S, assert_trained, finish, interpreter, start, start_submit
from tony.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S + 60)

LAST_EPOCH = 20


@pytest.fixture
def environment(yarn_cluster: LocalCluster, tmp_path: Path) -> dict[str, str]:
    return {
        "HADOOP_CONF_DIR": str(yarn_cluster.conf_dir),
        "PATH": f"{yarn_cluster.bin_dir}:{os.environ['PATH']}",
        "TONY_STATE_DIR": str(tmp_path / "state"),
    }


def test_four_workers_train_with_one_line(environment: dict[str, str]) -> None:
    words = ["--workers", "4", "--memory", "1g", "--am-memory", "1g", "--framework", "horovod"]
    script = str(EXAMPLES / HOROVOD.name / "train.py")
    done = finish(start_submit(*words, "--python", interpreter(HOROVOD), script, environment=environment))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = re.findall(r"\[worker:(\d)\] accuracy=(\d\.\d+)", done.stdout)
    assert sorted(task for task, _ in said) == ["0", "1", "2", "3"]
    assert len({accuracy for _, accuracy in said}) == 1


def rank_process(task: str, checkpoints: Path) -> psutil.Process:
    """The user process of that task of the job with these checkpoints, as soon as it is there."""
    role, _, index = task.partition(":")
    wanted = {"TONY_ROLE": role, "TONY_INDEX": index, "TONY_CHECKPOINT_DIR": str(checkpoints)}
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            try:
                if wanted.items() <= process.environ().items():
                    return process
            except psutil.Error:
                continue
    raise AssertionError(f"{task} does not start")


def kill_in_the_middle(process: psutil.Process, checkpoints: Path, epoch: int) -> None:
    """kill -9 as soon as that epoch's checkpoint is there."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (checkpoints / f"epoch-{epoch:03d}.npz").exists():
        assert time.monotonic() < deadline and process.is_running()
        time.sleep(0.005)
    process.kill()


def last_state(checkpoints: Path) -> dict[str, np.ndarray]:
    """All that the last epoch left: weights, momentum and the residuals of both ranks."""
    newest = max(checkpoints.glob("residuals/step-*"))
    files = [checkpoints / f"epoch-{LAST_EPOCH:03d}.npz", *sorted(newest.glob("*.npz"))]
    assert len(files) == 3
    found = {}
    for file in files:
        with np.load(file) as arrays:
            found.update({f"{file.name} {name}": arrays[name] for name in arrays.files})
    return found


def test_a_rank_killed_in_the_middle_of_quantized_training_leaves_no_trace_in_the_result(
    environment: dict[str, str], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = ["--am-memory", "1g", "--quantize", "2", "--checkpoint-dir"]
    assert_trained(HOROVOD, finish(start(HOROVOD, *flags, str(whole), environment=environment)))

    started = start(HOROVOD, *flags, str(broken), environment=environment)
    try:
        kill_in_the_middle(rank_process("worker:1", broken), broken, 5)
    finally:
        done = finish(started)
    assert_trained(HOROVOD, done)
    resumed = re.search(r"resumed after epoch (\d+)", done.stdout)
    assert resumed is not None and 5 <= int(resumed[1]) < LAST_EPOCH, done.stdout
    assert "RESTARTING" in done.stderr

    wanted, found = last_state(whole), last_state(broken)
    assert found.keys() == wanted.keys() and len(wanted) > 10
    assert any("residual-" in name and array.any() for name, array in wanted.items())
    for name, array in wanted.items():
        assert array.tobytes() == found[name].tobytes(), name
