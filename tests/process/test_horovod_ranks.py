"""When one rank of Horovod dies, nobody waits for gloo's timeout: the gang is restarted, or ended, at once."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.training import HOROVOD, finish, interpreter, start_submit

pytestmark = pytest.mark.timeout(300)

SCRIPT = str(Path(__file__).parents[1] / "jobs" / "meets_in_horovod.py")
GLOO_TIMEOUT_S = 150
"""Longer than anything below may take: whoever waits for it fails the test."""


def run(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """The job on this machine and how long it took, in seconds."""
    words = ["--cluster", "local", "--framework", "horovod", "--workers", "3"]
    words += ["--env", f"HOROVOD_GLOO_TIMEOUT_SECONDS={GLOO_TIMEOUT_S}", "--python", interpreter(HOROVOD)]
    before = time.monotonic()
    environment = {"TONY_STATE_DIR": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = finish(start_submit(*words, SCRIPT, "--", *arguments, environment=environment))
    return done, time.monotonic() - before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_rank_releases_the_others_and_all_meet_again(tmp_path: Path, when: str) -> None:
    done, seconds = run(tmp_path, when, "killed")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = re.findall(r"\[worker:(\d)\].*total=(\S+) generation=(\d)", done.stdout)
    assert sorted(said) == [("0", "6.0", "2"), ("1", "6.0", "2"), ("2", "6.0", "2")]
    assert seconds < GLOO_TIMEOUT_S


def test_a_rank_that_fails_ends_those_who_still_wait_for_it(tmp_path: Path) -> None:
    done, seconds = run(tmp_path, "before", "fails")
    assert done.returncode == 100, f"{done.stdout}\n{done.stderr}"
    assert "total=" not in done.stdout
    assert re.search(r"worker:1.*exit code 3", done.stderr)
    assert seconds < GLOO_TIMEOUT_S
