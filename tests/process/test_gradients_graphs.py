"""Codes made by TensorFlow operations, and the exchange over TensorFlow's collectives, have the reference's bits.

Needs the interpreter of the TensorFlow examples (TONY_TENSORFLOW_PYTHON); without it the tests are skipped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("gradients_graphs.py")
TIMEOUT_S = 200

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def python() -> str:
    name = os.environ.get("TONY_TENSORFLOW_PYTHON", "")
    if not Path(name).is_file():
        pytest.skip("TONY_TENSORFLOW_PYTHON does not name an interpreter: run the tests with make")
    return name


def run(python: str, task: str, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One process for each TF_CONFIG; what each printed last."""
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        processes = []
        for config in configs:
            process = subprocess.Popen(
                [python, str(PROGRAM), task],
                env=os.environ | settings | {"TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        found = []
        for process in processes:
            out, error = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, error[-3000:]
            found.append(json.loads(out.strip().splitlines()[-1]))
    return found


def test_the_codec_in_a_graph_has_the_bits_of_the_reference(python: str) -> None:
    assert run(python, "codec", [{}])[0]["differences"] == []


@pytest.mark.parametrize("size", [2, 3])
def test_the_exchange_over_collectives_has_the_bits_of_the_reference(python: str, size: int) -> None:
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(size)]
        hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in free]
    # with three ranks the first is the chief
    spec = {"worker": hosts} if size == 2 else {"chief": hosts[:1], "worker": hosts[1:]}
    tasks = [(job, index) for job in spec for index in range(len(spec[job]))]
    configs = [{"cluster": spec, "task": {"type": job, "index": index}} for job, index in tasks]
    for answer in run(python, "collective", configs):
        assert answer["same"] == [True, True, True]
        assert answer["first"] == [6.0, 0]
        assert answer["mean"] == pytest.approx((size - 1) / 2, rel=0.02) and answer["finite"]
        assert "(64, 32)" in answer["message"] and "(64, 33)" in answer["message"]
