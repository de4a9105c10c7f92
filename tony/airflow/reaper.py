"""Ends a job from a process of its own, and reads back that it has ended.

Why not in the task's process: Airflow ends that 5 s after it has asked, and asks by a signal, whose handler must not
use the connections that it interrupts. This process belongs to nobody's group, and goes on until the job has ended.

``python -m tony.airflow.reaper`` reads an `Order` from its standard input and writes what it saw, line by line.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tony.client import attach
from tony.clusters import Address, connect
from tony.containers import Cluster
from tony.errors import NoSuchJob, TonyError
from tony.idempotency import find
from tony.records import decode, encode

Say = Callable[[str], None]

PATIENCE_S = 600.0
"""How long a cluster that does not answer is asked again."""
LEFTOVER_S = 30.0
"""What a submit that was interrupted has left shows itself within this time."""
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Order:
    """What to end: the application, or (empty) whatever a submit with `key` may yet bring about.

    `reason` is kept in the job's history; `grace_s` is the user's code's, to end by itself.
    """

    address: Address
    application_id: str
    key: str
    reason: str
    grace_s: float


class Reaper:
    """A running process that obeys an order."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    def start(cls, order: Order) -> Reaper:
        """Start it; returns at once. Raises OSError."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tony.airflow.reaper"],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(encode(order).decode())
        process.stdin.close()
        process.stdin = None
        return cls(process)

    def wait(self, timeout_s: float) -> tuple[bool, list[str]]:
        """Whether the end was confirmed, and what was seen. After `timeout_s` it goes on without us."""
        try:
            said, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return False, [f"not confirmed within {timeout_s:g} s; process {self._process.pid} goes on with it"]
        return self._process.returncode == 0, said.splitlines()


def obey(order: Order, say: Say) -> bool:
    """Carry it out; whether the end was confirmed. Blocks up to `PATIENCE_S` where the cluster is away."""
    deadline = time.monotonic() + PATIENCE_S
    if order.application_id:
        return _patiently(lambda: _end(order, order.application_id, say), deadline, say)
    looked_until = time.monotonic() + LEFTOVER_S
    while True:
        if not _patiently(lambda: _end_leftover(order, say), deadline, say):
            return False
        if time.monotonic() > looked_until:
            say("nothing of the interrupted submit is left")
            return True
        time.sleep(_PAUSE_S)


def end_application(cluster: Cluster, application_id: str, reason: str, grace_s: float, say: Say) -> None:
    """End it politely, else through the cluster; the last word is the cluster's.

    Raises Unreachable, NotPermitted, and NotFinished when the cluster does not confirm the end.
    """
    try:
        with contextlib.closing(attach(application_id, cluster)) as handle:
            if not handle.report().state.ended:
                say(f"stopping {application_id}: {grace_s:g} s for the user's code, then the cluster ends it")
                handle.stop(reason, grace_s)
            report = handle.report()
            if not report.state.ended:
                handle.kill()
                report = handle.report()
    except NoSuchJob:
        say(f"{application_id} is not known to the cluster")
        return
    say(f"{application_id} is {report.state.value}, says the cluster")


def _end(order: Order, application_id: str, say: Say) -> None:
    with contextlib.closing(connect(order.address)) as cluster:
        end_application(cluster, application_id, order.reason, order.grace_s, say)


def _end_leftover(order: Order, say: Say) -> None:
    with contextlib.closing(connect(order.address)) as cluster:
        found = find(order.key, cluster)
        if found is not None and not found.state.ended:
            end_application(cluster, found.application_id, order.reason, order.grace_s, say)


def _patiently(step: Callable[[], None], deadline: float, say: Say) -> bool:
    told = ""
    while True:
        try:
            step()
            return True
        except TonyError as error:
            if error.message != told:
                told = error.message
                say(f"not yet: {told}")
            if time.monotonic() > deadline:
                return False
        time.sleep(_PAUSE_S)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever started this may be gone
        print(line, flush=True)


def main() -> int:
    """Obey the order on standard input; 0 when the end was confirmed."""
    confirmed = obey(decode(sys.stdin.buffer.read(), Order), _say)
    # What could not be written to a reader that is gone must not fail the exit.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if confirmed else 1


if __name__ == "__main__":
    sys.exit(main())
