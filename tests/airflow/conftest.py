"""A real Airflow for the tests of this folder: a database of its own for each session, and the components once."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.airflow.standing import Airflow, airflow, settings
from tests.airflow.world import World, wait_for

# Airflow reads its variables when it is imported, which tests do at their top.
HOME = Path(tempfile.mkdtemp(prefix="tony-airflow-home-"))
JOBS = Path(__file__).parents[1] / "jobs"
os.environ.update({**settings(HOME), "TONY_TEST_JOBS": str(JOBS)})

_GRACE_S = 20.0
"""A process that confirms a job's end may live so long after the task."""
_components: set[int] = set()


def pytest_unconfigure() -> None:
    """The home folder goes with the session."""
    shutil.rmtree(HOME, ignore_errors=True)


def _children() -> set[psutil.Process]:
    """Processes below this one that are alive, but for the components and their workers, which lead sessions."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if os.getsid(child.pid) not in _components and child.status() != psutil.STATUS_ZOMBIE:
                found.add(child)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test no thread and no process is there that was not there before; Airflow's components stay."""
    threads, children = set(threading.enumerate()), _children()
    yield
    deadline = time.monotonic() + _GRACE_S
    while True:
        left: list[object] = [*(_children() - children)]
        left += [t for t in threading.enumerate() if t not in threads and t.is_alive() and not t.daemon]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.05)


@pytest.fixture
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Jobs of this test alone; what still runs at its end is ended."""
    from tests.airflow.provider_jobs import forget_all

    for name in ("HADOOP_CONF_DIR", "TONY_SITE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TONY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AIRFLOW_CONN_TONY_DEFAULT", "tony://local")
    yield
    forget_all()


@pytest.fixture(scope="session")
def database() -> None:
    """The tables of the session's Airflow."""
    done = airflow("db", "migrate", environment=os.environ)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def user(yarn_environment: dict[str, str], database: None) -> dict[str, str]:
    """Variables of an Airflow worker that is a user of the test cluster."""
    return {**os.environ, **yarn_environment}


@pytest.fixture(scope="session")
def standing(user: dict[str, str]) -> Iterator[Airflow]:
    """All components, as one machine has them; the DAGs of this folder are known."""
    own = Airflow(HOME, user, _components)
    try:
        own.start()
        wait_for(lambda: own.knows("waits"), "the DAGs", 60.0, 0.2)
        yield own
    finally:
        own.stop()


@pytest.fixture
def world(user: dict[str, str]) -> Iterator[World]:
    """The test's own eyes. Afterwards no application lives, and no executor or master is left."""
    eyes = World(user["HADOOP_CONF_DIR"])
    yield eyes
    try:
        wait_for(lambda: not eyes.live(), "the end of all applications", 30.0, 0.2)
    finally:
        eyes.close()
