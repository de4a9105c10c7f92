"""One daemon: its command line, its process (start, alive, stop) and its log.

A process is named by pid *and* start time, so that a reused pid is never taken for ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tony.localcluster.ports import LOOPBACK, Ports

MARK = "TONY_LOCAL_CLUSTER"
_SPAWN_TIMEOUT_S = 10.0
_TAIL_BYTES = 256 * 1024

NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_MAIN = {
    "namenode": (NAMENODE, 128),
    "datanode": ("org.apache.hadoop.hdfs.server.datanode.DataNode", 128),
    "resourcemanager": ("org.apache.hadoop.yarn.server.resourcemanager.ResourceManager", 256),
    "nodemanager": ("org.apache.hadoop.yarn.server.nodemanager.NodeManager", 192),
}

# The script leaves at once: the daemon becomes init's child, in a session of its own, and survives the terminal.
_LAUNCH = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'


@dataclass(frozen=True)
class Pid:
    """A process that cannot be mistaken for a later one: its pid and when it started (see `start_mark`)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Pid:
        """The process that has this pid now; one that is gone already is never alive."""
        return cls(pid, start_mark(pid))

    def process(self) -> psutil.Process | None:
        """The living process, or None when it ended (a zombie has ended) or the pid is somebody else's now."""
        if self.started < 0 or start_mark(self.pid) != self.started:
            return None
        try:
            process = psutil.Process(self.pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.Error:
            return None

    def alive(self) -> bool:
        return self.process() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        process = self.process()
        if process is not None:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                pass


def start_mark(pid: int) -> int:
    """When a process started: clock ticks since boot on Linux, seconds elsewhere; -1 when there is none.

    Not psutil's create_time on Linux: that follows the wall clock, so a clock correction would make every
    daemon look like another process.
    """
    try:
        if psutil.LINUX:
            # The command name, in parentheses, may itself hold blanks and parentheses.
            return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        return int(psutil.Process(pid).create_time())
    except (OSError, ValueError, IndexError, psutil.Error):
        return -1


def daemon_names(nodes: int) -> tuple[str, ...]:
    """All daemons of a cluster, in the order of their start."""
    return ("namenode", "datanode", "resourcemanager", *(f"nodemanager-{n}" for n in range(1, nodes + 1)))


def java_command(java: Path, home: Path, jars: Path, name: str, heap_mb: int) -> list[str]:
    """The JVM with its options and class path, up to but without the main class."""
    conf, logs, tmp = home / "conf", home / "logs", home / "data" / "tmp"
    flags = [
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:ReservedCodeCacheSize=64m",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.net.preferIPv4Stack=true",
        f"-Djava.io.tmpdir={tmp}",
        f"-Dhadoop.log.dir={logs}",
        f"-Dyarn.log.dir={logs}",
        f"-Dlog4j.configuration=file:{conf}/daemon-log4j.properties",
        f"-Ddaemon.log={log_file(home, name)}",
    ]
    if psutil.LINUX:
        # A NodeManager forks a chmod for every localised file; this way of forking is the cheapest.
        flags.append("-Djdk.lang.Process.launchMechanism=VFORK")
    return [str(java), *flags, f"-Xmx{heap_mb}m", "-cp", f"{conf}:{jars}/*"]


def command(java: Path, home: Path, jars: Path, ports: Ports, name: str) -> list[str]:
    """The whole command line of a daemon."""
    kind, _, number = name.partition("-")
    main, heap_mb = _MAIN[kind]
    line = [*java_command(java, home, jars, name, heap_mb), main]
    if kind == "nodemanager":
        # What differs between NodeManagers goes on the command line, so that all share one configuration folder.
        address, localizer, web = ports.node(int(number))
        own = home / "data" / f"nm{number}"
        for key, value in (
            ("address", f"{LOOPBACK}:{address}"),
            ("localizer.address", f"{LOOPBACK}:{localizer}"),
            ("webapp.address", f"{LOOPBACK}:{web}"),
            ("local-dirs", f"{own}/local"),
            ("log-dirs", f"{own}/logs"),
            ("recovery.dir", f"{own}/recovery"),
        ):
            line += ["-D", f"yarn.nodemanager.{key}={value}"]
    return line


def environment(home: Path, java_home: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of daemons: little of the user's (no other Hadoop's settings), and the mark of this cluster.

    JAVA_HOME must be there: the command of every application master is ``$JAVA_HOME/bin/java``.
    """
    kept = {name: inherited[name] for name in ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ") if name in inherited}
    return {**kept, "JAVA_HOME": str(java_home), "HADOOP_CONF_DIR": str(home / "conf"), MARK: str(home)}


def spawn(line: Sequence[str], home: Path, name: str, env: Mapping[str, str]) -> Pid:
    """Start a daemon detached from us. Returns as soon as the process exists."""
    done = subprocess.run(
        ["/bin/sh", "-c", _LAUNCH, "sh", str(out_file(home, name)), *line],
        cwd=home,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        timeout=_SPAWN_TIMEOUT_S,
        check=True,
    )
    return Pid.of(int(done.stdout))


def log_file(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def out_file(home: Path, name: str) -> Path:
    """What the JVM itself prints: empty unless it could not start or crashed."""
    return home / "logs" / f"{name}.out"


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of a file, reading no more than its last 256 KiB; empty when there is none."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return lines[-count:] if count > 0 else []


def wait_gone(pids: Sequence[Pid], timeout_s: float) -> list[Pid]:
    """Wait until the processes have ended; returns those that have not when the time is over."""
    deadline = time.monotonic() + timeout_s
    left = [pid for pid in pids if pid.alive()]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if pid.alive()]
    return left


def end(pids: Sequence[Pid], grace_s: float) -> None:
    """TERM to all, KILL to those that are still there after the grace. Blocks until they are gone."""
    for pid in pids:
        pid.send(signal.SIGTERM)
    left = wait_gone(pids, grace_s)
    for pid in left:
        pid.send(signal.SIGKILL)
    wait_gone(left, 5.0)
