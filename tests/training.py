"""Runs an example as a user does, through the command line, and reads what its tasks printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TIMEOUT_S = 240
"""TensorFlow alone takes 4 s to import, and four times that with four processes on two busy cores."""

_ACCURACY = re.compile(r"\[(\S+:\d+)\].*accuracy=(\d\.\d+)")


@dataclass(frozen=True)
class Example:
    """A folder below examples/: whose Python runs it, and which tasks print the accuracy that they reached.

    `goal`: the accuracy that its README states.
    """

    name: str
    python: str
    tellers: tuple[str, ...] = ()
    goal: float = 0.95

    def __str__(self) -> str:
        return self.name


HELLO = Example("hello", "ours")
STANDALONE = Example("standalone", "tensorflow", ("worker:0",))
PYTORCH = Example("pytorch-ddp", "torch", ("worker:0", "worker:1"))
MULTIWORKER = Example("tensorflow-multiworker", "tensorflow", ("worker:0", "worker:1"))
PARAMETER_SERVER = Example("tensorflow-parameter-server", "tensorflow", ("chief:0",))
V1_SERVER = Example("tensorflow-v1-server", "tensorflow", ("worker:0", "worker:1"))
HOROVOD = Example("horovod-mnist", "horovod", ("worker:0", "worker:1"))
SERVERS_QUANTIZED = Example("parameter-server-quantized", "tensorflow", ("chief:0",))
CHARACTERS = Example("horovod-characters", "horovod", ("worker:0", "worker:1"), goal=0.35)
ELASTIC = Example("horovod-elastic", "horovod", ("worker:0", "worker:1"))
SERVERS = (PARAMETER_SERVER, V1_SERVER, SERVERS_QUANTIZED)
ALL = (HELLO, STANDALONE, PYTORCH, MULTIWORKER, *SERVERS, HOROVOD, CHARACTERS, ELASTIC)


def interpreter(example: Example) -> str:
    """The Python that the example runs with; skips the test where this machine has none."""
    if example.python == "ours":
        return sys.executable
    if example.python == "torch":
        python = "/usr/bin/python3"
        probe = subprocess.run([python, "-c", "import torch, numpy"], capture_output=True, timeout=120)
        if probe.returncode:
            pytest.skip("no torch in /usr/bin/python3 (Debian: python3-torch)")
        return python
    if example.python == "horovod":
        python = os.environ.get("TONY_TEST_HOROVOD_PYTHON", "")
        if not list(Path(python).parent.parent.glob("lib/*/site-packages/horovod")):
            pytest.skip("TONY_TEST_HOROVOD_PYTHON names no interpreter with Horovod: make horovod")
        return python
    python = os.environ.get("TONY_TENSORFLOW_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("TONY_TENSORFLOW_PYTHON does not name an interpreter: run the tests with make")
    return python


def start(example: Example, *flags: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """``tony submit`` of the example with these flags, following the job."""
    words = [*flags, "--python", interpreter(example), "-f", str(EXAMPLES / example.name / "job.yaml")]
    return start_submit(*words, environment=environment)


def start_submit(*words: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """``tony submit`` with these words."""
    program = "import sys; from tony.cli.main import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, "submit", *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(started: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Waits for the end of the job; after `TIMEOUT_S` the client is interrupted, which ends the job."""
    with started:
        try:
            out, err = started.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=60)
            pytest.fail(f"not finished after {TIMEOUT_S} s:\n{out}\n{err}")
    return subprocess.CompletedProcess(started.args, started.returncode, out, err)


def submit(example: Example, *flags: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """``tony submit`` of the example with these flags, followed to its end."""
    return finish(start(example, *flags, environment=environment))


def user_process(task: str, state: Path) -> psutil.Process:
    """The running user process of that task of a local job; its working directory lies below the state folder."""
    role, _, index = task.partition(":")
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            same = (variables.get("TONY_ROLE"), variables.get("TONY_INDEX")) == (role, index)
            if same and process.cwd().startswith(str(state)):
                return process
        except psutil.Error:
            continue
    raise LookupError(task)


def assert_trained(example: Example, done: subprocess.CompletedProcess[str]) -> None:
    """The job succeeded, and each task that tells its accuracy reached what the README states."""
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    reached = {task: float(accuracy) for task, accuracy in _ACCURACY.findall(said)}
    assert set(reached) == set(example.tellers), said
    assert all(accuracy >= example.goal for accuracy in reached.values()), said
