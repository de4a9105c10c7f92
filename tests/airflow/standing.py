"""A whole Airflow on this machine: its four components as processes, one SQLite database, and its REST interface."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import requests

DAGS = Path(__file__).parent / "dags"
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
ANSWER_S = 240.0
"""The API server's first answer of each kind takes seconds on a busy machine, and blocks all others."""
_TRIES = 10
_ENDED_IN_TURN = ("scheduler", "triggerer", "dag-processor", "api-server")
"""The API server last: a worker that ends tells it so."""
HEARTBEAT_TIMEOUT_S = 20
"""A worker that is silent so long is dead, for this scheduler; Airflow's own default is 300."""

_SETTINGS = {
    "core__load_examples": "False",
    "core__executor": "LocalExecutor",
    "core__parallelism": "4",
    "core__dags_are_paused_at_creation": "False",
    "core__simple_auth_manager_all_admins": "True",
    "api__workers": "1",
    "api__host": "127.0.0.1",
    "workers__min_heartbeat_interval": "2",
    "workers__execution_api_timeout": "120",
    "scheduler__task_instance_heartbeat_timeout": str(HEARTBEAT_TIMEOUT_S),
    "scheduler__task_instance_heartbeat_timeout_detection_interval": "1",
    "scheduler__parsing_processes": "1",
    "dag_processor__parsing_processes": "1",
    "dag_processor__refresh_interval": "30",
    "triggerer__job_heartbeat_sec": "2",
    "triggerer__triggerer_health_check_threshold": "8",
    "usage_data_collection__enabled": "False",
    "logging__colored_console_log": "False",
}


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(home: Path, dags: Path = DAGS) -> dict[str, str]:
    """The variables of an Airflow that keeps everything in `home`."""
    own = {f"AIRFLOW__{name.upper()}": value for name, value in _SETTINGS.items()}
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        # Four components write to one file: on a busy machine the driver's 5 s are not enough for their turns.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        **own,
    }


def airflow(
    *words: str, environment: Mapping[str, str], timeout_s: float = 400.0
) -> subprocess.CompletedProcess[str]:
    """The ``airflow`` command with these variables, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "airflow", *words],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )


class Airflow:
    """The components, started one by one; `stop` ends what this has started and nothing else."""

    def __init__(self, home: Path, environment: Mapping[str, str], components: set[int] | None = None) -> None:
        """`components`: a set that knows the ids of the components' processes, each of which leads a session."""
        self.home = home
        self.components = set() if components is None else components
        self.port = free_port()
        self.environment = {
            **environment,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._session = requests.Session()
        self._session.trust_env = False

    # Components -----------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 600.0) -> None:
        """All components; returns when every one of them says that it is healthy, and a first task has run."""
        for name in COMPONENTS:
            self.start_component(name)
        deadline = time.monotonic() + timeout_s
        while not self.healthy():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended:\n{self.output(name)[-4000:]}"
            assert time.monotonic() < deadline, f"{self.health()} after {timeout_s:.0f} s"
            time.sleep(0.2)
        while not self.knows("trivial"):
            assert time.monotonic() < deadline, "no DAGs"
            time.sleep(0.2)
        first = self.trigger("trivial", f"first-{time.time_ns():x}")
        while first.state != "success":
            assert time.monotonic() < deadline, f"the first task is {first.state}"
            time.sleep(0.2)

    def start_component(self, name: str) -> None:
        """Start one, with its output in a file below the home folder."""
        with (self.home / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", name],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.components.add(self.processes[name].pid)

    def kill_component(self, name: str) -> None:
        """SIGKILL to it and to all processes below it."""
        process = self.processes.pop(name)
        _kill([*_below(process.pid), psutil.Process(process.pid)])
        process.wait(10)

    def stop(self, grace_s: float = 20.0) -> None:
        """End everything that was started here, by force what does not end within the grace."""
        own = [process for name in _ENDED_IN_TURN if (process := self.processes.pop(name, None)) is not None]
        below = [one for process in own for one in _below(process.pid)]
        try:
            for process in own:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
        finally:
            for process in own:
                process.kill()
                process.wait(10)
            _kill(below)
            self._session.close()

    def output(self, name: str) -> str:
        """What a component has printed."""
        return (self.home / f"{name}.out").read_text(errors="replace")

    def health(self) -> dict[str, str]:
        """Each component's own word."""
        try:
            told = self._session.get(self._url("monitor/health"), timeout=5).json()
        except (requests.RequestException, ValueError):
            return {}
        return {name: str(one["status"]) for name, one in told.items()}

    def healthy(self) -> bool:
        """Whether all of them are."""
        told = self.health()
        return len(told) >= 4 and set(told.values()) == {"healthy"}

    # Runs -----------------------------------------------------------------------------------------------------

    def knows(self, dag: str) -> bool:
        """Whether the DAG was parsed."""
        return bool(self._session.get(self._url(f"dags/{dag}"), timeout=ANSWER_S).ok)

    def trigger(self, dag: str, run: str, **conf: Any) -> Task:
        """A new run of a DAG whose only task is called ``job``."""
        body = {"dag_run_id": run, "logical_date": None, "conf": conf}
        for _ in range(_TRIES):
            answer = self._session.post(self._url(f"dags/{dag}/dagRuns"), json=body, timeout=ANSWER_S)
            # SQLite refuses a writer whose snapshot is older than another's write; 409: it was made after all.
            if answer.ok or answer.status_code == 409:
                return Task(self, dag, run, "job")
            assert answer.status_code == 500, answer.text
            time.sleep(1)
        raise AssertionError(f"no run of {dag} after {_TRIES} tries: {answer.text}")

    def _ask(self, verb: str, path: str, body: object = None, missing: bool = False) -> Any:
        answer = self._session.request(verb, self._url(path), json=body, timeout=ANSWER_S)
        if missing and answer.status_code == 404:
            return None
        assert answer.ok, f"{verb} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2/{path}"


class Task:
    """One task of one run, as the REST interface shows it."""

    def __init__(self, airflow: Airflow, dag: str, run: str, name: str) -> None:
        self.airflow, self.dag, self.run, self.name = airflow, dag, run, name
        self._path = f"dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances/{name}"

    def now(self) -> dict[str, Any]:
        """State, try number, process id and more."""
        told: dict[str, Any] = self.airflow._ask("GET", self._path)
        return told

    @property
    def state(self) -> str:
        """Empty while it was not scheduled."""
        return str(self.now()["state"] or "")

    def xcom(self, key: str = "return_value") -> Any:
        """The value, or None."""
        told = self.airflow._ask("GET", f"{self._path}/xcomEntries/{key}?deserialize=false", missing=True)
        return None if told is None else told["value"]

    def log(self, attempt: int) -> str:
        """The log of one try, as its page shows it."""
        headers = {"Accept": "application/x-ndjson"}
        url = self.airflow._url(f"{self._path}/logs/{attempt}?full_content=true")
        return self.airflow._session.get(url, headers=headers, timeout=ANSWER_S).text

    def mark(self, state: str) -> None:
        """What a user does who presses "mark as failed"."""
        self.airflow._ask("PATCH", self._path, {"new_state": state})

    def clear(self) -> None:
        """What a user does who presses "clear task"."""
        body = {"dry_run": False, "dag_run_id": self.run, "task_ids": [self.name], "only_failed": False}
        self.airflow._ask("POST", f"dags/{self.dag}/clearTaskInstances", body)

    def processes(self) -> tuple[psutil.Process, psutil.Process] | None:
        """Its worker (which supervises) and its own process; None while it has none."""
        process_id = self.now()["pid"]
        try:
            own = psutil.Process(process_id)
            parent = own.parent()
        except (psutil.Error, TypeError):
            return None
        return None if parent is None else (parent, own)


def _below(process_id: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process_id).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to those that are left; returns when they are gone."""
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(processes, 10)
