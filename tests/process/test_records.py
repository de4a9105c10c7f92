"""Values are read in many threads at once, from the first moment on."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
from tony.events import Event, EventKind
from tony.records import decode, encode
from tony.snapshot import Failure, Verdict
from tony.state import JobState, Reason

failure = Failure("worker:0", Reason.WORKER_EXIT, "x")
values = (Verdict("a", "n", JobState.FAILED, Reason.WORKER_EXIT, "m", 1, failure), Event(1, 1.0, EventKind.NOTE, "x"))
raws = [(encode(value), type(value), value) for value in values]
together = threading.Barrier(6)

def read(raw, kind, value):
    together.wait()
    assert decode(raw, kind) == value

threads = [threading.Thread(target=read, args=each) for each in raws * 3]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("whole")
"""


@pytest.mark.parametrize("time", range(5))
def test_threads_that_meet_a_type_first_at_the_same_time_crash_nothing(time: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
