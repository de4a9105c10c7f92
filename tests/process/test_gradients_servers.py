"""Codes between workers and parameter servers: real TensorFlow servers, one process each, strategy unmodified.

Needs the interpreter of the TensorFlow examples (TONY_TENSORFLOW_PYTHON); without it the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("gradients_servers.py")
TIMEOUT_S = 200

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def python() -> str:
    name = os.environ.get("TONY_TENSORFLOW_PYTHON", "")
    if not Path(name).is_file():
        pytest.skip("TONY_TENSORFLOW_PYTHON does not name an interpreter: run the tests with make")
    return name


class Cluster:
    """One chief, workers and parameter servers on this machine. A context manager that ends all of them."""

    def __init__(self, python: str, wanted: dict[str, Any], log: Path, workers: int = 2, servers: int = 1) -> None:
        self._command = [python, str(PROGRAM), json.dumps(wanted)]
        self._log = log
        self._exit = ExitStack()
        with ExitStack() as held:
            free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(1 + workers + servers)]
            addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in free]
        self._spec = {"chief": addresses[:1], "worker": addresses[1 : 1 + workers], "ps": addresses[1 + workers :]}

    def __enter__(self) -> Cluster:
        self.tasks = {(job, i): self.start(job, i) for job, all_ in self._spec.items() for i in range(len(all_))}
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def start(self, job: str, index: int) -> subprocess.Popen[str]:
        """Start a task, also in place of one that has ended."""
        task = {"cluster": self._spec, "task": {"type": job, "index": index}}
        settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        stderr = self._exit.enter_context(self._log.with_suffix(f".{job}-{index}").open("a"))
        process = subprocess.Popen(
            self._command,
            env=os.environ | settings | {"TF_CONFIG": json.dumps(task), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self._exit.enter_context(process)
        self._exit.callback(process.kill)
        return process

    def result(self) -> dict[str, Any]:
        """Wait for the chief; what it printed last."""
        chief = self.tasks["chief", 0]
        out, _ = chief.communicate(timeout=TIMEOUT_S)
        assert chief.returncode == 0, self.said()
        return dict(json.loads(out.strip().splitlines()[-1]))

    def said(self) -> str:
        return self._log.with_suffix(".chief-0").read_text()[-4000:]


def train(python: str, place: Path, workers: int = 2, servers: int = 1, **wanted: Any) -> dict[str, Any]:
    with Cluster(python, {"model": "module", **wanted}, place / "log", workers, servers) as cluster:
        return cluster.result()


def test_workers_at_their_own_pace_learn_and_a_repeated_push_counts_once(python: str, tmp_path: Path) -> None:
    found = train(python, tmp_path, steps=60, bad=7, repeat=True, servers=2, bits=2, down_bits=4)
    assert found["shards"] == 2
    assert [i for i, applied in enumerate(found["applied"]) if not applied] == [7]
    assert sum(found["losses"][-10:]) < 0.8 * sum(found["losses"][:10])
    assert found["repeated"] == [False]


def test_what_cannot_work_is_refused_with_names_and_shapes(python: str, tmp_path: Path) -> None:
    errors = train(python, tmp_path, steps=1, workers=1)["errors"]
    assert "bits=3" in errors[0] and "'stochastic'" in errors[1] and "int32" in errors[2]
    assert "(2, 3)" in errors[3] and "(64,)" in errors[3] and "Variable" in errors[3]
    assert "int32, not floating point" in errors[4]


@pytest.mark.parametrize("model", ["keras", "tf_keras"])
def test_keras_models_and_optimizers_are_served(python: str, tmp_path: Path, model: str) -> None:
    found = train(python, tmp_path, model=model, steps=40)
    assert sum(found["losses"][-10:]) < 0.5 * sum(found["losses"][:10])


def test_a_resumed_run_of_one_worker_has_the_bits_of_an_uninterrupted_one(python: str, tmp_path: Path) -> None:
    wanted = {"workers": 1, "one_by_one": True}
    whole = train(python, tmp_path, steps=12, **wanted)
    folder = tmp_path / "kept"
    train(python, tmp_path, steps=7, folder=str(folder), **wanted)
    rest = train(python, tmp_path, steps=5, folder=str(folder), **wanted)
    assert rest["losses"] == whole["losses"][-5:]
    assert rest["weights"] == whole["weights"]


def test_a_checkpoint_of_another_setting_is_refused(python: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "kept")
    train(python, tmp_path, steps=2, workers=1, folder=folder)
    with Cluster(
        python, {"model": "module", "steps": 2, "bits": 8, "folder": folder}, tmp_path / "log", workers=1
    ) as cluster:
        assert cluster.tasks["chief", 0].wait(TIMEOUT_S) == 1
        assert "was written with settings" in cluster.said()


def test_a_worker_that_is_started_anew_is_served_again(python: str, tmp_path: Path) -> None:
    with Cluster(python, {"model": "module", "steps": 1500}, tmp_path / "log") as cluster:
        replace_worker(cluster, tmp_path)
        found = cluster.result()
    assert sum(found["applied"]) >= 1499
    assert found["losses"][-1] < found["losses"][0]


def test_push_and_pull_are_so_many_times_fewer_bytes_on_the_interface(python: str) -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    command = [sys.executable, "-m", "benchmarks.gradients.server_wire", "--python", python]
    command += ["--elements", "2097152", "--steps", "6", "--modes", "fp32", "4/4", "2/4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, four, two = (json.loads(line) for line in done.stdout.splitlines())
    assert whole["bytes/element/step"] == pytest.approx(8.0, rel=0.03)
    assert four["fewer bytes than fp32"] >= 7.7 and two["fewer bytes than fp32"] >= 10


def replace_worker(cluster: Cluster, folder: Path) -> None:
    """Kill worker 1 in the middle of training and start it again."""
    begun = folder / "log.chief-0"
    deadline = time.monotonic() + TIMEOUT_S
    while "training" not in begun.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = cluster.tasks["worker", 1]
    worker.kill()
    worker.wait()
    cluster.tasks["worker", 1] = cluster.start("worker", 1)
