"""What is left of a local job whose application master is killed: nothing."""

from __future__ import annotations

import os
import signal

import pytest
from command_line import Tony, processes_of, wait_for


@pytest.fixture
def backend() -> str:
    return "local"


@pytest.mark.parametrize("when", ["running", "starting"])
def test_a_killed_local_master_takes_its_executors_along(tony: Tony, when: str) -> None:
    job = tony.begin("sleeps.py", "600")
    if when == "running":
        job.processes("user")
    application_id = job.application_id()
    os.kill(job.processes("appmaster", 1)[0], signal.SIGKILL)
    wait_for(lambda: not processes_of(application_id, "executor"), timeout_s=5.0)
    code, document = job.result()
    assert (code, document["state"], document["reason"]) == (104, "FAILED", "AM_LOST")
