"""Where a user process is: told by its own interpreter, by py-spy, or by the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from executor_bench import JOBS, REPOSITORY, ScriptedMaster, eventually, executor_process

from executor.reports import Reports, ReportSocket
from executor.stacks import StackReader
from tony.protocol import messages

WAITS = """\
import sys, threading
sys.path.insert(0, {root!r})
{prelude}
def waits_for_a_peer():
    print("there", flush=True)
    threading.Event().wait()
waits_for_a_peer()
"""


@contextmanager
def waiting(prelude: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that waits in a function of a telling name."""
    code = WAITS.format(root=str(REPOSITORY), prelude=prelude)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def socket() -> Iterator[ReportSocket]:
    opened = ReportSocket(Reports())
    yield opened
    opened.close()
    assert not os.path.exists(os.path.dirname(opened.path))


def test_a_script_that_knows_tony_tells_its_own_stack_again_and_again(socket: ReportSocket) -> None:
    prelude = "import tony; tony.current()"
    with waiting(prelude, {"TONY_REPORT_SOCKET": socket.path}) as process:
        for _ in range(2):
            text = StackReader().take(os.getpid(), socket.stacks, "")
            assert text.count("in waits_for_a_peer") == 1
        assert process.poll() is None


def test_a_script_that_does_not_is_never_sent_the_signal_and_the_kernel_is_asked(socket: ReportSocket) -> None:
    with waiting("", {"TONY_REPORT_SOCKET": socket.path}) as process:
        text = StackReader().take(os.getpid(), socket.stacks, "")
        assert f"process {process.pid} python" in text and "sleeping" in text
        assert process.poll() is None


def test_a_frozen_process_is_shown_as_such_and_stays_frozen(socket: ReportSocket) -> None:
    with waiting("import tony; tony.current()", {"TONY_REPORT_SOCKET": socket.path}) as process:
        process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: "T (stopped)" in Path(f"/proc/{process.pid}/status").read_text())
        assert "T (stopped)" in StackReader().take(os.getpid(), socket.stacks, "")
        assert process.poll() is None


def test_py_spy_is_used_where_it_is_found(tmp_path: Path) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text('#!/bin/sh\necho "spied $*"\n')
    spy.chmod(0o755)
    with waiting("", {}) as process:
        text = StackReader().take(os.getpid(), None, f"{tmp_path}:/usr/bin:/bin")
    assert f"spied dump --nonblocking --pid {process.pid}" in text


def test_stacks_of_a_hang_go_into_the_log_those_for_a_client_do_not(tmp_path: Path) -> None:
    master = ScriptedMaster()
    try:
        with executor_process(master, tmp_path):
            master.greet()
            master.say(dump_stacks=messages.DumpStacks(request_id="early"))
            early = master.expect("stacks")
            assert (early.request_id, early.text) == ("early", "no user process runs")
            master.release(str(JOBS / "sleeps.py"), "60")
            master.expect("started")
            master.say(dump_stacks=messages.DumpStacks(request_id="x"))
            assert "python" in master.expect("stacks").text
            log = tmp_path / "logs" / "stderr.log"
            assert "[tony] stacks" not in log.read_text()
            master.say(dump_stacks=messages.DumpStacks())
            assert master.expect("stacks").request_id == ""
            assert "[tony] end of stacks" in log.read_text()
    finally:
        master.close()
