"""The command line as a user has it, on one of the back-ends: fixtures for tests that run whole jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tony.localcluster.cluster import LocalCluster
from tony.yarn import start_driver, stop_driver

JOBS = Path(__file__).parent / "jobs"
DEADLINE_S = 90.0


@dataclass
class Tony:
    """The command line, as a user with one cluster has it."""

    backend: str
    environment: dict[str, str]
    folder: Path
    tag: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tony", *arguments]

    def run(self, *arguments: str, timeout_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def submit(self, script: str, *arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Submit one of the scripts in tests/jobs and follow it to its end."""
        return self.run(*self._submit(script, arguments, flags))

    def begin(self, script: str, *arguments: str, flags: tuple[str, ...] = ()) -> Running:
        """Submit and follow in the background."""
        process = subprocess.Popen(
            self.command(*self._submit(script, arguments, flags)),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return Running(self, process)

    def applications(self, *flags: str) -> list[str]:
        """The ids of this test's jobs, newest first."""
        done = self.run("--json", "ls", "--all", "--tag", self.tag, *flags)
        assert done.returncode == 0, done.stderr
        return [job["application_id"] for job in json.loads(done.stdout)["jobs"]]

    def _submit(self, script: str, arguments: tuple[str, ...], flags: tuple[str, ...]) -> tuple[str, ...]:
        small = ("--workers", "2", "--memory", "256m", "--venv", "none", "--am-memory", "1g", "--tag", self.tag)
        return ("--json", "submit", *small, *flags, str(JOBS / script), "--", *arguments)


@dataclass
class Running:
    """A submit that is being followed."""

    tony: Tony
    process: subprocess.Popen[str]

    def result(self, timeout_s: float = DEADLINE_S) -> tuple[int, dict[str, Any]]:
        """Exit code and final document."""
        output, errors = self.process.communicate(timeout=timeout_s)
        assert output, errors
        return self.process.returncode, json.loads(output.splitlines()[-1])

    def processes(self, kind: str, count: int = 2) -> list[int]:
        """Wait until that many processes of the newest job are there: ``user``, ``executor`` or ``appmaster``."""
        application_id = self.application_id()
        return wait_for(lambda: found if len(found := processes_of(application_id, kind)) == count else None)

    def application_id(self) -> str:
        """Waits until it is submitted."""
        return wait_for(lambda: next(iter(self.tony.applications("--state", "RUNNING")), None), timeout_s=180.0)


def wait_for(look: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """The first true value of `look`, within a bounded time."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing within {timeout_s:.0f} s"
        time.sleep(0.05)
    return found


def processes_of(application_id: str, kind: str) -> list[int]:
    """Processes of that application, by what they are: ``user``, ``executor`` or ``appmaster``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        id_ = application_id.encode()
        if b"TONY_APPLICATION_ID=" + id_ not in environ and b"SKEIN_APPLICATION_ID=" + id_ not in environ:
            continue
        ours = [part for part in (b"executor", b"appmaster") if command[-2:-1] == [part] and b"-I" in command]
        names = {entry.split(b"=", 1)[0] for entry in environ}
        is_user = b"TONY_RANK" in names and not ours and any(part.endswith(b".py") for part in command)
        if ours == [kind.encode()] or (kind == "user" and is_user):
            found.append(int(folder.name))
    return sorted(found)


@contextmanager
def user_of(cluster: LocalCluster, state: Path) -> Iterator[dict[str, str]]:
    """Variables of a user of that cluster, whose submit driver lives as long as they are needed."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("TONY_STATE_DIR", str(state))
        start_driver(cluster.conf_dir, cluster.bin_dir, state / "driver")
        try:
            yield {
                "HADOOP_CONF_DIR": str(cluster.conf_dir),
                "PATH": f"{cluster.bin_dir}:{os.environ['PATH']}",
                "TONY_STATE_DIR": str(state),
            }
        finally:
            stop_driver()


@pytest.fixture(scope="session")
def yarn_environment(
    yarn_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Variables of a user of the test cluster."""
    with user_of(yarn_cluster, tmp_path_factory.mktemp("yarn-state")) as variables:
        yield variables


@pytest.fixture
def tony(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[Tony]:
    """The command line on the back-end that the test names. Afterwards nothing of a job is left."""
    own: dict[str, str] = {"TONY_CLUSTER": "local", "TONY_STATE_DIR": str(tmp_path / "state")}
    if backend == "yarn":
        own = request.getfixturevalue("yarn_environment")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TONY_")}
    tag = f"{tmp_path.name}-{os.getpid()}".lower()
    command = Tony(backend, {**environment, **own}, tmp_path, tag)
    yield command
    for process in command.started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    for application_id in command.applications():
        for kind in ("user", "executor", "appmaster"):
            wait_for(lambda a=application_id, k=kind: not processes_of(a, k), timeout_s=10.0)
