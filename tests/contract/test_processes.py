"""Several processes in each task, on every back-end."""

from __future__ import annotations

import re
import subprocess

import pytest
from command_line import Tony

pytestmark = pytest.mark.timeout(180)

PYTHON = "/usr/bin/python3"


@pytest.fixture(params=["local", "yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    """Processes of this machine, or containers of a real YARN."""
    return str(request.param)


@pytest.mark.parametrize("framework", ["pytorch", "auto"])
def test_processes_of_all_tasks_form_one_group(tony: Tony, framework: str) -> None:
    if subprocess.run([PYTHON, "-c", "import torch"], capture_output=True, timeout=120).returncode:
        pytest.skip("no torch in /usr/bin/python3 (Debian: python3-torch)")
    flags = ("--framework", framework, "--procs-per-task", "2", "--memory", "1g", "--python", PYTHON)
    done = tony.submit("all_reduces.py", flags=flags)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"rank (\d) local (\d) of 2 sum 6", done.stdout + done.stderr)
    assert sorted(said) == [("0", "0"), ("1", "1"), ("2", "0"), ("3", "1")]
