"""Horovod's elastic mode: when ranks are lost, added or taken away, the processes of the others live on."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from command_line import Tony, wait_for

from tests.elastic_horovod import PATIENCE_S, Begun, begin, finish, next_round, wait_while_running
from tests.training import ELASTIC, HOROVOD, Example, assert_trained, interpreter, start, user_process
from tests.training import finish as finish_submit

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def backend() -> str:
    return "local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_replaced_grown_and_shrunk_and_the_state_is_never_lost(tony: Tony, folder: Path) -> None:
    seen: list[Begun] = []
    job = begin(tony, folder, "--min-workers", "1", "--max-workers", "3")
    application_id = job.application_id()
    first = next_round(job, folder, seen, 2)
    wait_while_running(job, lambda: (folder / "steps").exists())

    os.kill(first[0].pid, signal.SIGKILL)
    replaced = next_round(job, folder, seen, 2)
    assert replaced[0].pid == first[1].pid, "the one that knows is rank 0"
    assert replaced[1].index == first[0].index and replaced[1].pid != first[0].pid
    assert replaced[0].step > 0

    assert tony.run("resize", application_id, "3", "--timeout", "3m", timeout_s=200.0).returncode == 0
    grown = next_round(job, folder, seen, 3)
    assert [one.pid for one in grown[:2]] == [one.pid for one in replaced]
    assert grown[0].step > replaced[0].step, "training went on until the new one was there"

    assert tony.run("resize", application_id, "1", "--timeout", "3m", timeout_s=200.0).returncode == 0
    alone = next_round(job, folder, seen, 1)
    assert alone[0].pid in {one.pid for one in grown} and alone[0].step >= grown[0].step
    document = finish(job, folder)
    assert document["generations"] == 4


def test_a_keras_model_in_horovods_own_classes_goes_on_with_a_new_rank(tony: Tony, folder: Path) -> None:
    seen: list[Begun] = []
    job = begin(tony, folder, script="lives_on_keras.py")
    first = next_round(job, folder, seen, 2)
    wait_while_running(job, lambda: (folder / "steps").exists())
    os.kill(first[0].pid, signal.SIGKILL)
    replaced = next_round(job, folder, seen, 2)
    assert replaced[0].pid == first[1].pid and replaced[0].step >= 2
    finish(job, folder)


def test_a_script_that_cannot_live_on_is_started_again_as_before(tony: Tony, tmp_path: Path) -> None:
    done = tony.submit(
        "meets_in_horovod.py",
        "after",
        "killed",
        flags=("--framework", "horovod", "--python", interpreter(HOROVOD), "--memory", "1g", "--min-workers", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["generations"] == 2


def test_the_example_trains_on_when_a_rank_is_killed_and_exchanges_codes_with_the_new_one(tmp_path: Path) -> None:
    flags = ("--cluster", "local", "--workers", "3", "--env", "HOROVOD_GLOO_TIMEOUT_SECONDS=10")
    state = tmp_path / "state"
    following = start(ELASTIC, *flags, environment={"TONY_STATE_DIR": str(state)})
    try:
        said = wait_for(
            lambda: [one for one in state.rglob("stdout.log") if "at step 0" in one.read_text()], PATIENCE_S
        )
        assert said
        victim = user_process("worker:1", state)
        victim.kill()
    finally:
        done = finish_submit(following)
    three = Example(ELASTIC.name, ELASTIC.python, ("worker:0", "worker:1", "worker:2"))
    assert_trained(three, done)
    assert "worker:1 WORKER_SIGNAL" in done.stderr
    started = re.findall(r"\[(worker:\d)\] at step (\d+): rank", done.stdout)
    assert len(started) > 3, done.stdout
