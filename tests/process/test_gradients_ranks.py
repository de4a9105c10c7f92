"""The gradient exchange between real processes, over Horovod and over torch.distributed.

Needs interpreters that have them: TONY_TEST_HOROVOD_PYTHON with TensorFlow and Horovod, and
TONY_TEST_TORCH_PYTHON (default /usr/bin/python3) with torch and numpy; without one its tests are skipped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("gradients_programs.py")
TIMEOUT_S = 240

pytestmark = pytest.mark.timeout(600)


def has(python: str, modules: str) -> bool:
    if not python or not Path(python).exists():
        return False
    return subprocess.run([python, "-c", f"import {modules}"], capture_output=True, timeout=300).returncode == 0


@pytest.fixture(scope="module")
def horovod_python() -> str:
    python = os.environ.get("TONY_TEST_HOROVOD_PYTHON", "")
    if not has(python, "tensorflow, horovod.tensorflow"):
        pytest.skip("TONY_TEST_HOROVOD_PYTHON names no interpreter with TensorFlow and Horovod")
    return python


@pytest.fixture(scope="module")
def torch_python() -> str:
    python = os.environ.get("TONY_TEST_TORCH_PYTHON", "/usr/bin/python3")
    if not has(python, "torch, numpy"):
        pytest.skip("TONY_TEST_TORCH_PYTHON names no interpreter with torch")
    return python


def run(commands: list[tuple[list[str], dict[str, str]]]) -> list[tuple[int, str, str]]:
    """Run all at once; returns exit code, last line of stdout and stderr of each. Kills what is left."""
    with ExitStack() as stack:
        processes = []
        for command, environment in commands:
            process = subprocess.Popen(
                command,
                env=os.environ | environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        results = []
        for process in processes:
            out, err = process.communicate(timeout=TIMEOUT_S)
            results.append((process.returncode, (out.strip().splitlines() or [""])[-1], err))
    return results


def run_horovod(python: str, size: int, *arguments: str, **extra: str) -> list[tuple[int, str, str]]:
    with ExitStack() as stack:
        store = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gradients.rendezvous", "127.0.0.1", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(store)
        stack.callback(store.kill)
        assert store.stdout is not None
        port = json.loads(store.stdout.readline())["port"]
        commands = []
        for rank in range(size):
            environment = {
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
                "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
                "HOROVOD_RANK": str(rank),
                "HOROVOD_SIZE": str(size),
                "HOROVOD_LOCAL_RANK": str(rank),
                "HOROVOD_LOCAL_SIZE": str(size),
                "HOROVOD_CROSS_RANK": "0",
                "HOROVOD_CROSS_SIZE": "1",
                "HOROVOD_GLOO_IFACE": "lo",
                "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "CUDA_VISIBLE_DEVICES": "",
            }
            commands.append(([python, str(PROGRAMS), *arguments], environment | extra))
        return run(commands)


def run_ranks(kind: str, python: str, size: int, *arguments: str) -> list[tuple[int, str, str]]:
    """The program on so many ranks that find each other in the way of `kind`."""
    if kind == "horovod":
        return run_horovod(python, size, *arguments)
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(size)]
        ports = [one.getsockname()[1] for one in free]
    commands = []
    for rank in range(size):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0]), "WORLD_SIZE": str(size)}
        if kind == "collective":
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            config = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
            environment = {"TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        commands.append(([python, str(PROGRAMS), *arguments], environment | {"RANK": str(rank)}))
    return run(commands)


def answers(results: list[tuple[int, str, str]]) -> list[dict[str, Any]]:
    for code, _, error in results:
        assert code == 0, error[-3000:]
    return [json.loads(line) for _, line, _ in results]


@pytest.mark.parametrize("legacy", ["", "1"], ids=["Keras 3", "tf-keras"])
def test_all_ranks_end_a_fit_with_the_same_weights(horovod_python: str, tmp_path: Path, legacy: str) -> None:
    extra = {"TF_USE_LEGACY_KERAS": legacy} if legacy else {}
    found = answers(run_horovod(horovod_python, 2, "keras_fit", str(tmp_path), "2", **extra))
    assert found[0]["weights"] == found[1]["weights"] and found[0]["steps"] == 12


def test_a_killed_fit_resumes_with_the_bits_of_an_uninterrupted_one(horovod_python: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    wanted = answers(run_horovod(horovod_python, 2, "keras_fit", str(whole), "3"))
    codes = [code for code, _, _ in run_horovod(horovod_python, 2, "keras_fit", str(broken), "3", "15")]
    assert codes[1] == -9 and codes[0] != 0
    found = answers(run_horovod(horovod_python, 2, "keras_fit", str(broken), "3"))
    assert found[0]["first"] == 2
    assert [answer["weights"] for answer in found] == [answer["weights"] for answer in wanted]


def test_a_nan_is_skipped_by_all_and_another_layout_is_an_error_on_all(horovod_python: str) -> None:
    found = answers(run_horovod(horovod_python, 3, "custom_loop"))
    for answer in found:
        assert answer["finite"] == [True, True, False, True]
        assert answer["weights"] == found[0]["weights"]
        assert "(64, 32)" in answer["message"] and "(64, 33)" in answer["message"]


WORDS = {
    "three bits": ["bits=3 is not possible"],
    "no bits": ["many"],
    "bits": ["4", "8"],
    "auto": ["cannot exchange gradients"],
    "integer": ["'w' is int32"],
    "shape": ["'w'", "(64, 32)", "(64, 33)"],
    "shape of floats": ["'w'", "(64, 32)", "(64, 33)"],
    "integer of floats": ["'w' is int32"],
    "codec": ["codec version"],
    "damaged": ["damaged"],
    "model": ["another model", "'w'", "(64, 32)", "(64, 33)"],
}


@pytest.mark.parametrize("kind", ["horovod", "torch", "collective"])
def test_what_does_not_fit_is_a_clear_error_on_every_rank(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    python = request.getfixturevalue("torch_python" if kind == "torch" else "horovod_python")
    for answer in answers(run_ranks(kind, python, 2, "bad_inputs", kind, str(tmp_path))):
        assert answer.keys() == WORDS.keys()
        for case, expected in WORDS.items():
            assert all(word in answer[case] for word in expected), (case, answer[case])


@pytest.mark.parametrize("kind", ["horovod", "torch"])
def test_residuals_of_another_number_of_ranks_are_refused_or_divided(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    python = request.getfixturevalue("torch_python" if kind == "torch" else "horovod_python")
    answers(run_ranks(kind, python, 2, "bad_inputs", kind, str(tmp_path)))
    for answer in answers(run_ranks(kind, python, 3, "other_size", kind, str(tmp_path))):
        assert "of-00003.npz does not exist" in answer["refused"] and answer["step"] == "1"


def test_ranks_find_out_together_how_gradients_travel_best(horovod_python: str) -> None:
    found = answers(run_horovod(horovod_python, 2, "auto_loop", TONY_QUANTIZE="auto"))
    assert found[0] == found[1]
    assert {4, 8, 16, 32} <= set(found[0]["tried"]) and found[0]["kept"] in (4, 8, 16, 32)
    assert found[0]["steps"] < 60


def test_torch_ranks_learn_and_keep_the_same_weights(torch_python: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "3"}
    command = [torch_python, str(PROGRAMS), "torch_ddp"]
    found = answers(run([(command, environment | {"RANK": str(rank)}) for rank in range(3)]))
    for answer in found:
        assert answer["weights"] == found[0]["weights"] and answer["steps"] == 30
        assert answer["last"] < answer["first"]
