"""Both back-ends obey the same sentences; on YARN the body runs inside a real application master (test_yarn_edge)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from contract import obey

from appmaster.local import LocalContainers

EXECUTOR = Path(__file__).parents[1] / "cluster" / "edge" / "executor" / "__main__.py"


@pytest.fixture
def local(tmp_path: Path) -> LocalContainers:
    base = {"PATH": os.environ["PATH"]}
    return LocalContainers(tmp_path, [sys.executable, str(EXECUTOR)], lambda role: {"given": EXECUTOR}, base)


def test_processes_of_this_machine_obey_the_contract(local: LocalContainers, tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    try:
        obey(local, {"EDGE_SEEN": str(tmp_path / "seen")})
    finally:
        local.close()
    assert (tmp_path / "seen" / "task-worker:0").exists()


def test_an_executor_that_crashes_is_quoted(tmp_path: Path) -> None:
    from tony.containers import Identity, Phase
    from tony.spec import TaskId

    crashes = "import sys; print('noise'); raise KeyError('TONY_TASK')"
    local = LocalContainers(tmp_path, [sys.executable, "-c", crashes], lambda role: {}, {"PATH": os.environ["PATH"]})
    try:
        local.request(Identity(TaskId("worker", 0), 1), {})
        deadline = time.monotonic() + 20
        while (state := local.poll()[0]).phase is not Phase.ENDED and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        local.close()
    assert state.diagnostics == "the executor's process ended with exit code 1: KeyError: 'TONY_TASK'"


def test_closing_ends_what_still_runs_and_may_be_done_twice(local: LocalContainers, tmp_path: Path) -> None:
    from tony.containers import EndCause, Identity
    from tony.spec import TaskId

    local.request(Identity(TaskId("worker", 0), 1), {"TONY_TASK": "worker:0", "EDGE_BEHAVIOUR": "sleeps"})
    local.close()
    local.close()
    [state] = local.poll()
    assert state.cause is EndCause.KILLED_BY_US
