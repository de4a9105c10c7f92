"""Waiting until freshly started daemons are healthy, and saying why when they are not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tony.errors import Refused, TonyError
from tony.localcluster import daemons, rest
from tony.localcluster.daemons import Pid
from tony.localcluster.ports import Ports, holder, listening_ports

START_TIMEOUT_S = 180.0
_POLL_S = 0.2
_EXPLAIN_AFTER_S = 10.0
_LINES_READ = 400
_LINES_SHOWN = 8
_IN_THE_WAY = re.compile(r"BindException|Address already in use|Port in use")


def wait_healthy(
    home: Path,
    ports: Ports,
    pids: Mapping[str, Pid],
    offsets: Mapping[str, int],
    tell: Callable[[str], None],
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Block until all daemons listen on their ports, all nodes are active and HDFS can be written.

    `offsets` says where in a daemon's log this start begins. Raises TonyError as soon as one daemon has died, with
    the end of its log, or when the time is over, with what is still missing. An answer counts only if the port it
    came from belongs to our own process: a neighbour's cluster may sit there.
    """
    deadline = time.monotonic() + timeout_s
    explain_at = time.monotonic() + _EXPLAIN_AFTER_S
    while True:
        for name, pid in pids.items():
            if not pid.alive():
                raise death(home, ports, name, offsets.get(name, 0))
        waiting = missing(ports, pids)
        if not waiting:
            return
        now = time.monotonic()
        if now > deadline:
            raise TonyError(
                f"the local cluster is not healthy after {timeout_s:.0f} s; still waiting for {', '.join(waiting)}",
                f"its logs: {home}/logs",
            )
        if now > explain_at:
            tell(f"  waiting for {', '.join(waiting)}")
            explain_at = now + _EXPLAIN_AFTER_S
        time.sleep(_POLL_S)


def missing(ports: Ports, pids: Mapping[str, Pid]) -> list[str]:
    """What is not there yet, in words; empty when the cluster is healthy."""
    silent = [name for name, pid in pids.items() if not set(ports.of_daemon(name)) <= listening_ports(pid.pid)]
    if silent:
        return silent
    health = rest.health(ports)
    waiting = []
    if not health.hdfs_ready():
        waiting.append("HDFS to leave safe mode")
    if health.active_nodes != ports.nodes:
        bad = f", {health.unhealthy_nodes} unhealthy: is the disk full?" if health.unhealthy_nodes else ""
        waiting.append(f"nodes ({health.active_nodes or 0} of {ports.nodes} active{bad})")
    return waiting


def death(home: Path, ports: Ports, name: str, offset: int) -> TonyError:
    """The error for a daemon that ended by itself: a port that was taken, or else the end of its log."""
    log = daemons.log_file(home, name)
    lines = lines_since(log, offset) or daemons.last_lines(daemons.out_file(home, name), _LINES_READ)
    if any(_IN_THE_WAY.search(line) for line in lines):
        for port in ports.of_daemon(name):
            owner = holder(port)
            if owner:
                return Refused(f"{name} could not start: port {port} is taken by {owner}", "start again: other ports")
    shown = "\n".join("    " + line[:300] for line in telling(lines)) or "    (it wrote nothing)"
    return TonyError(f"{name} ended by itself:\n{shown}", f"the whole log: tony cluster logs {name}, or {log}")


def lines_since(log: Path, offset: int) -> list[str]:
    """The last lines that a log got after `offset`; all of it when it was rotated meanwhile."""
    try:
        with log.open("rb") as source:
            source.seek(0, 2)
            source.seek(offset if source.tell() >= offset else 0)
            return source.read().decode(errors="replace").splitlines()[-_LINES_READ:]
    except OSError:
        return []


def telling(lines: list[str]) -> list[str]:
    """The lines a person needs: from the last error on, without stack frames and banners."""
    plain = [line for line in lines if line.strip() and not re.match(r"\s+at |\s*\.\.\. \d+ more|[/*]", line)]
    plain = [line for line in plain if "SHUTDOWN_MSG" not in line]
    errors = [number for number, line in enumerate(plain) if re.search(r" (ERROR|FATAL) ", line)]
    start = errors[-1] if errors else max(0, len(plain) - _LINES_SHOWN)
    return plain[start : start + _LINES_SHOWN]
