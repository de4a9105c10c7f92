"""What a user of the ``airflow`` command sees: the provider, and DAGs that run without a scheduler."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.airflow.standing import DAGS, airflow, settings
from tests.airflow.world import World, wait_for
from tests.training import EXAMPLES, HOROVOD, interpreter

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def home(database: None, tmp_path: Path) -> Path:
    """An Airflow of its own, whose database has its tables already."""
    copy = tmp_path / "airflow"
    copy.mkdir()
    for name in ("airflow.db", "airflow.cfg"):
        shutil.copy(Path(os.environ["AIRFLOW_HOME"]) / name, copy / name)
    return copy


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("list", ["tony-yarn", "YARN"]),
        ("hooks", ["tony", "tony.airflow.hook.TonyHook"]),
        ("links", ["tony.airflow.link.TonyYarnLink"]),
        ("get tony-yarn", ["tony-yarn"]),
    ],
)
def test_airflow_knows_the_provider(command: str, words: list[str], database: None) -> None:
    done = airflow("providers", *command.split(), "--output", "json", environment=os.environ)
    assert done.returncode == 0, done.stdout
    for word in words:
        assert word in done.stdout


def test_the_nightly_example_trains_evaluates_and_registers(
    home: Path, user: dict[str, str], world: World, tmp_path: Path
) -> None:
    before = {app.id for app in world.applications()}
    environment = {
        **user,
        **settings(home, EXAMPLES / "airflow"),
        "DIGITS_PYTHON": interpreter(HOROVOD),
        "DIGITS_FOLDER": str(tmp_path / "digits"),
    }
    done = airflow("dags", "test", "digits", "2026-11-01", environment=environment, timeout_s=800)
    assert done.returncode == 0, done.stdout
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        states = dict(database.execute("select task_id, state from task_instance where dag_id = 'digits'"))
        sizes = dict(
            database.execute("select task_id || '.' || key, length(value) from xcom where dag_id = 'digits'")
        )
    skipped = states.pop("reject")
    assert (skipped, set(states.values())) == ("skipped", {"success"}), done.stdout
    # One application for each of the three jobs, and nothing else.
    applications = {app.id: app.final for app in world.applications() if app.id not in before}
    assert list(applications.values()) == ["SUCCEEDED"] * 3
    model = json.loads((tmp_path / "digits" / "models" / "latest.json").read_text())
    assert model["accuracy"] >= HOROVOD.goal
    assert model["application_id"] in applications
    assert {"check_data.return_value", "train.return_value", "evaluate.return_value"} <= set(sizes)
    assert max(sizes.values()) <= 4096, sizes


def test_no_jvm_is_held_while_a_task_waits(home: Path, user: dict[str, str], world: World, tmp_path: Path) -> None:
    # A state folder without a kept driver: this submit has to start its own.
    state = tmp_path / "state"
    environment = {**user, **settings(home, DAGS), "TONY_STATE_DIR": str(state)}
    before = {app.id for app in world.applications()}

    def java() -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if _is_java_of(one, state)]

    command = [sys.executable, "-m", "airflow", "dags", "test", "waits", "--conf", '{"seconds": 30}']
    with (tmp_path / "output").open("wb") as output:
        running = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_for(java, "the driver of the submit", 300.0)
            wait_for(lambda: {app.id for app in world.live()} - before, "the application", 120.0)
            wait_for(lambda: not java(), "the end of the driver", 60.0)
            assert {app.id for app in world.live()} - before, "the job has ended, too"
            assert running.wait(240) == 0, (tmp_path / "output").read_text()
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait(10)


def _is_java_of(process: psutil.Process, state: Path) -> bool:
    try:
        return process.name() == "java" and process.environ().get("TONY_STATE_DIR") == str(state)
    except psutil.Error:
        return False
