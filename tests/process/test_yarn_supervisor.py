"""The bash text that watches the Python application master, run by a real bash."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tony.yarn.scripts import MAX_STARTS, UNUSABLE, executor_script, master_script

# What the launcher does is named by the file `behaviour`; every start leaves a file.
LAUNCHER = """\
import os, signal, sys, time
from pathlib import Path
count = len(list(Path().glob("start-*"))) + 1
Path(f"start-{count}").write_text(f"{os.getpid()} {os.environ.get('TONY_APPLICATION_ID')} {sys.argv[1:]}")
behaviour = Path("behaviour").read_text()
if behaviour.startswith("exit "):
    sys.exit(int(behaviour.split()[1]))
if behaviour == "second succeeds":
    sys.exit(0 if count == 2 else 9)
def term(*_):
    Path("term").touch()
    sys.exit(5)
if behaviour == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, term)
Path("ready").touch()
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    (tmp_path / "tony-launch.py").write_text(LAUNCHER)
    (tmp_path / "master.sh").write_text(master_script(sys.executable))
    started: list[subprocess.Popen[bytes]] = []

    def run(behaviour: str, *parent: str) -> subprocess.Popen[bytes]:
        (tmp_path / "behaviour").write_text(behaviour)
        environment = {**os.environ, "SKEIN_APPLICATION_ID": "application_1_0001"}
        command = [*parent, "bash", "master.sh"]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True))
        return started[-1]

    yield run
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


Start = Callable[..., "subprocess.Popen[bytes]"]


def starts(tmp_path: Path) -> int:
    return len(list(tmp_path.glob("start-*")))


def test_a_regular_end_is_final(start: Start, tmp_path: Path) -> None:
    assert start("exit 0").wait(20) == 0
    assert starts(tmp_path) == 1
    assert (tmp_path / "start-1").read_text().split(" ", 1)[1] == "application_1_0001 ['appmaster']"


def test_a_crash_is_followed_by_another_start(start: Start, tmp_path: Path) -> None:
    assert start("second succeeds").wait(20) == 0
    assert starts(tmp_path) == 2


def test_crashes_without_end_are_given_up_with_the_last_exit_code(start: Start, tmp_path: Path) -> None:
    assert start("exit 9").wait(40) == 9
    assert starts(tmp_path) == MAX_STARTS


def test_an_interpreter_that_cannot_run_here_is_not_tried_again(start: Start, tmp_path: Path) -> None:
    assert start(f"exit {UNUSABLE}").wait(20) == UNUSABLE
    assert starts(tmp_path) == 1


def test_term_reaches_python_and_nothing_is_started_after_it(start: Start, tmp_path: Path) -> None:
    supervisor = start("waits")
    eventually((tmp_path / "ready").exists)
    supervisor.terminate()
    assert supervisor.wait(10) == 5
    assert (tmp_path / "term").exists() and starts(tmp_path) == 1


@pytest.mark.parametrize(("behaviour", "polite"), [("waits", True), ("ignores", False)])
def test_python_ends_when_the_jvm_is_gone(start: Start, tmp_path: Path, behaviour: str, polite: bool) -> None:
    jvm = start(behaviour, sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])")
    eventually((tmp_path / "ready").exists)
    pid = int((tmp_path / "start-1").read_text().split()[0])
    jvm.kill()
    jvm.wait()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 25)
    assert (tmp_path / "term").exists() is polite


@pytest.mark.parametrize("python", ["/usr/bin/python3", "/opt/my python's/bin/python", "/opt/$(touch x)/python"])
def test_scripts_are_bash_and_name_the_interpreter_as_one_word(python: str) -> None:
    for script in (master_script(python), executor_script(python)):
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=10)
        assert checked.stderr == ""
        assert shlex.quote(python) in script


def test_the_executors_script_becomes_the_executor(tmp_path: Path) -> None:
    (tmp_path / "tony-launch.py").write_text("import os, sys; print(os.getpid(), os.environ['LANG'], sys.argv[1:])")
    environment = {"PATH": os.defpath, "JDK_JAVA_OPTIONS": "x", "PYTHONPATH": "/nonsense"}
    script = executor_script(sys.executable)
    process = subprocess.Popen(
        ["bash", "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    printed, _ = process.communicate(timeout=20)
    assert printed.strip() == f"{process.pid} C.UTF-8 ['executor']"
