"""Reports of the user's script over a real socket."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from pathlib import Path

from executor.reports import Reports, ReportSocket
from tony.context import from_environment


def test_a_report_arrives_through_the_socket() -> None:
    reports = Reports()
    listening = ReportSocket(reports)
    try:
        context = from_environment({"TONY_REPORT_SOCKET": listening.path})
        context.report(step=3, loss=math.inf)
        for _ in range(200):
            fresh = reports.fresh()
            if fresh:
                break
            time.sleep(0.01)
        assert fresh == {"step": 3.0}
        assert reports.fresh() == {}
    finally:
        listening.close()
        listening.close()
    listening._thread.join(5)
    assert not listening._thread.is_alive()
    assert not Path(listening.path).parent.exists()


def test_a_full_socket_never_blocks_the_script(tmp_path: Path) -> None:
    path = tmp_path / "full"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.bind(str(path))
        context = from_environment({"TONY_REPORT_SOCKET": str(path)})
        for step in range(5000):
            context.report(step=step)
        first = json.loads(listener.recv(8192))
        assert first == {"step": 0.0}
    finally:
        listener.close()


def test_a_script_may_close_what_it_did_not_open(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.bind(str(tmp_path / "reports"))
        context = from_environment({"TONY_REPORT_SOCKET": str(tmp_path / "reports")})
        context.report(step=1)
        channel = context._channel
        assert channel is not None and channel._socket is not None
        os.close(channel._socket.fileno())
        # The script's next file gets that number.
        with (tmp_path / "checkpoint").open("w") as checkpoint:
            context.report(step=2)
            context.report(step=3)
            checkpoint.write("whole")
        assert [json.loads(listener.recv(8192))["step"] for _ in range(2)] == [1.0, 3.0]
        assert (tmp_path / "checkpoint").read_text() == "whole"
    finally:
        listener.close()
