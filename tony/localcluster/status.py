"""What can be said of the local cluster at one moment, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from tony.localcluster.daemons import Pid
from tony.localcluster.settings import ClusterSettings


@dataclass(frozen=True)
class DaemonStatus:
    """One daemon: `memory_mb` is what it has resident, 0 when it is not alive."""

    name: str
    pid: int
    alive: bool
    memory_mb: int

    @classmethod
    def of(cls, name: str, pid: Pid) -> DaemonStatus:
        """How the daemon with this pid is now."""
        process = pid.process()
        try:
            memory_mb = process.memory_info().rss // (1024 * 1024) if process else 0
        except psutil.Error:
            process, memory_mb = None, 0
        return cls(name, pid.pid, process is not None, memory_mb)


@dataclass(frozen=True)
class ClusterStatus:
    """What is known of the cluster now. `running` is true while every one of its daemons is alive.

    `active_nodes` and `running_applications` are None when the ResourceManager does not answer.
    `started_at` is seconds since the epoch, None for a cluster that is stopped.
    """

    running: bool
    home: Path
    conf_dir: Path
    bin_dir: Path
    settings: ClusterSettings | None = None
    rm_url: str | None = None
    webhdfs_url: str | None = None
    hdfs_url: str | None = None
    daemons: tuple[DaemonStatus, ...] = ()
    active_nodes: int | None = None
    running_applications: int | None = None
    started_at: float | None = None

    @property
    def dead(self) -> tuple[str, ...]:
        """Daemons that should be there and are not; empty for a cluster that was stopped."""
        return tuple(daemon.name for daemon in self.daemons if not daemon.alive)


@dataclass(frozen=True)
class StopReport:
    """What a stop found: daemons that were alive, and stray processes of containers that it ended."""

    daemons: int
    strays: int
