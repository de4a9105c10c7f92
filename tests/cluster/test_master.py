"""The application master's own failures, on a real YARN."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import Tony, wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def jvm_of(application_id: str) -> int:
    """The process of skein's own application master."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environ = (folder / "environ").read_bytes()
        except OSError:
            continue
        number = application_id.removeprefix("application_").encode()
        if b"com.anaconda.skein.ApplicationMaster" in command and number in environ:
            return int(folder.name)
    raise AssertionError("no application master runs")


def test_a_killed_application_master_process_costs_no_training_step(tony: Tony) -> None:
    job = tony.begin("sleeps.py", "8")
    job.processes("user")
    os.kill(job.processes("appmaster", 1)[0], signal.SIGKILL)
    code, document = job.result()
    assert code == 0, document
    assert document["generations"] == 1
    assert [task["incarnations"] for task in document["tasks"]] == [1, 1]


def test_a_second_attempt_goes_on_with_the_job_under_the_same_id(tony: Tony) -> None:
    job = tony.begin("sleeps_in_generation_1.py", flags=("--am-attempts", "2"))
    application_id = job.application_id()
    job.processes("user")
    os.kill(jvm_of(application_id), signal.SIGKILL)
    code, document = job.result(150.0)
    assert (code, document["application_id"], document["generations"]) == (0, application_id, 2)


def test_a_failed_job_is_not_run_again_by_a_second_attempt(tony: Tony) -> None:
    job = tony.begin("exit_1.py", flags=("--am-attempts", "2"))
    code, document = job.result(150.0)
    assert (code, document["reason"], document["generations"]) == (100, "WORKER_EXIT", 1)


def test_a_lost_application_master_ends_a_job_of_one_attempt_and_leaves_nothing(tony: Tony) -> None:
    job = tony.begin("sleeps.py", "600")
    application_id = job.application_id()
    users = job.processes("user")
    os.kill(jvm_of(application_id), signal.SIGKILL)
    code, document = job.result()
    assert (code, document["state"], document["reason"]) == (104, "FAILED", "AM_LOST")
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in users), timeout_s=15.0)
