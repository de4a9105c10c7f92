"""Horovod's elastic mode on a real YARN: a container is lost, and the other's process lives on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import Tony, processes_of

from tests.elastic_horovod import Begun, begin, finish, next_round, wait_while_running

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(params=["yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_lost_container_is_replaced_and_the_job_grows_without_losing_its_state(tony: Tony, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    seen: list[Begun] = []
    job = begin(tony, folder, "--min-workers", "1", "--max-workers", "3")
    application_id = job.application_id()
    first = next_round(job, folder, seen, 2)
    wait_while_running(job, lambda: (folder / "steps").exists())
    executors = {read_index(pid): pid for pid in processes_of(application_id, "executor")}
    os.kill(executors[first[0].index], signal.SIGKILL)
    replaced = next_round(job, folder, seen, 2)
    assert replaced[0].pid == first[1].pid and replaced[0].step > 0
    assert replaced[1].index == first[0].index

    assert tony.run("resize", application_id, "3", "--timeout", "3m", timeout_s=200.0).returncode == 0
    grown = next_round(job, folder, seen, 3)
    assert [one.pid for one in grown[:2]] == [one.pid for one in replaced]
    assert grown[0].step > replaced[0].step
    assert finish(job, folder)["generations"] == 3


def read_index(pid: int) -> int:
    """The index of the task that an executor runs."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    task = next(entry for entry in variables if entry.startswith(b"TONY_TASK="))
    return int(task.rpartition(b":")[2])
