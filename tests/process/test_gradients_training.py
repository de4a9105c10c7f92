"""Training with codes reaches what training with float32 reaches, and a broken exchange does not.

Also the bytes on a real interface, where this test may make network namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gradients.models import perceptron
from benchmarks.gradients.parity import MODES, Outcome, train
from benchmarks.gradients.tasks import Task

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def task() -> Task:
    """Five noisy clusters a class in 32 dimensions."""
    random = np.random.default_rng(2)
    centres = random.standard_normal((10, 5, 32)) * 1.1
    labels = random.integers(0, 10, 3000)
    x = centres[labels, random.integers(0, 5, 3000)] + random.standard_normal((3000, 32))
    x = x.astype(np.float32)
    return Task(
        "clusters", perceptron((32, 64, 32, 10)), x[:2400], labels[:2400], x[2400:], labels[2400:], 16, 300, 0.05
    )


@pytest.fixture(scope="module")
def exact(task: Task) -> Outcome:
    return train(task, MODES["fp32"], 0)


@pytest.mark.parametrize("mode", ["8 bit", "4 bit", "2 bit"])
def test_training_with_codes_ends_like_training_with_floats(task: Task, exact: Outcome, mode: str) -> None:
    outcome = train(task, MODES[mode], 0)
    assert outcome.score > exact.score - 1.5
    assert outcome.loss < 1.15 * exact.loss


def test_few_elements_end_like_floats_with_sixty_times_fewer_bytes(task: Task, exact: Outcome) -> None:
    outcome = train(task, MODES["sparse 3 %"], 0)
    assert outcome.score > exact.score - 1.5
    assert outcome.fewer > 60


def test_without_residuals_two_bits_end_worse(task: Task, exact: Outcome) -> None:
    outcome = train(task, MODES["ablation: 2 bit, no residual"], 0)
    assert outcome.loss > 1.3 * exact.loss


def test_the_published_method_with_alpha_one_diverges(task: Task, exact: Outcome) -> None:
    outcome = train(task, MODES["ablation: paper with alpha = 1"], 0)
    assert not outcome.loss < 2 * exact.loss


def test_codes_are_so_many_times_fewer_bytes_on_the_interface() -> None:
    python = os.environ.get("TONY_TEST_HOROVOD_PYTHON", "")
    if not python:
        pytest.skip("TONY_TEST_HOROVOD_PYTHON names no interpreter with TensorFlow and Horovod")
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    command = [sys.executable, "-m", "benchmarks.gradients.wire", "--python", python, "--ranks", "2"]
    command += ["--elements", "2097152", "--steps", "3", "--turns", "5", "--modes", "fp32", "8", "4", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["bytes/element/step"] == pytest.approx(4.0, rel=0.02)
    fewer = [row["fewer bytes than fp32"] for row in rows[1:]]
    assert all(found >= bar for found, bar in zip(fewer, (3.93, 7.8, 15.3), strict=True)), fewer
