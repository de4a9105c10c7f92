"""Several processes in one task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from executor import ranks

PRINTS = "import os; print(*(os.environ.get(n, '-') for n in ('RANK', 'TONY_RANK', 'LOCAL_RANK', 'IS_CHIEF')))"


def run(processes: int, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ranks.argv(processes, [sys.executable, "-c", script])
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_ranks_count_on_from_that_of_the_task() -> None:
    done = run(3, PRINTS, RANK="4", TONY_RANK="4", LOCAL_RANK="0", IS_CHIEF="true")
    assert sorted(done.stdout.splitlines()) == ["4 4 0 true", "5 5 1 -", "6 6 2 -"]
    assert done.returncode == 0


def test_a_task_without_rank_gives_none_to_its_processes() -> None:
    assert set(run(2, PRINTS, TONY_RANK="-1").stdout.splitlines()) == {"- -1 - -"}


def test_the_first_that_fails_decides_and_the_others_do_not_wait_for_it() -> None:
    began = time.monotonic()
    done = run(3, "import os, sys, time; sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(60)", RANK="0")
    assert done.returncode == 7
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_stays_that_signal(number: signal.Signals) -> None:
    script = f"import os, time; os.kill(os.getpid(), {int(number)}) if os.environ['RANK'] == '1' else time.sleep(60)"
    assert run(2, script, RANK="0").returncode == -number


def test_processes_may_end_one_after_the_other() -> None:
    assert run(3, "import os, time; time.sleep(0.2 * int(os.environ['RANK']))", RANK="0").returncode == 0


def test_a_command_that_does_not_exist_is_named() -> None:
    done = subprocess.run(ranks.argv(2, ["no-such-command"]), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (127, "no-such-command: No such file or directory\n")


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close(); time.sleep(60)"
    parent = subprocess.Popen(ranks.argv(2, [sys.executable, "-c", script]))
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    parent.kill()
    parent.wait(10)
    assert len(pids) == 2
    while any(_lives(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_lines_of_several_processes_do_not_mix() -> None:
    script = "import os, sys\nfor n in range(200): sys.stdout.write('x' * 50); sys.stdout.write('\\n')"
    done = run(4, script, PYTHONUNBUFFERED="1")
    assert set(done.stdout.splitlines()) == {"x" * 50}
    assert len(done.stdout.splitlines()) == 800


def test_the_last_words_of_the_one_that_failed_come_last() -> None:
    script = "import os, sys, time\nif os.environ['RANK'] == '2': raise ValueError('mine')\ntime.sleep(60)"
    lines = run(3, script, RANK="1", LOCAL_RANK="0").stderr.splitlines()
    assert "local rank 1 ended first, with exit code 1:" in lines
    assert lines[-1] == "ValueError: mine"


def test_a_grandchild_that_holds_the_pipes_does_not_delay_the_end() -> None:
    script = "import subprocess, sys; subprocess.Popen(['sleep', '20'])"
    command = ranks.argv(2, [sys.executable, "-c", script])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert process.wait(15) == 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)
