"""Processes of a cluster that nobody keeps a record of: orphaned containers and daemons.

A container's child that made a session of its own survives its NodeManager; a NodeManager that was killed leaves
its containers running. Such processes hold memory and GPUs, so a stop looks for them.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from tony.localcluster.daemons import MARK, Pid

# Set by every NodeManager in every container, with folders below its own data folder.
_CONTAINER_PLACES = ("LOCAL_DIRS", "LOG_DIRS", "HADOOP_TOKEN_FILE_LOCATION")


def find(home: Path, *, daemons_only: bool = False) -> tuple[Pid, ...]:
    """Living processes of this user that belong to the cluster at `home`, ourselves and our parents excepted."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    uid = os.getuid()
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in mine or process.uids().real != uid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment = _environment(process)
            if daemons_only:
                ours = environment.get(MARK) == str(home)
            else:
                has_terminal = process.terminal() is not None
                ours = belongs(home, environment, _folder(process), has_terminal=has_terminal)
            if ours:
                found.append(Pid.of(process.pid))
        except psutil.Error:
            continue
    return tuple(found)


def belongs(home: Path, environment: dict[str, str], folder: str, *, has_terminal: bool) -> bool:
    """Whether a process with this environment and working directory is a daemon or container of `home`.

    A working directory alone counts only below a NodeManager's containers and without a terminal: the user's
    shell may stand in that folder to look around.
    """
    if environment.get(MARK) == str(home):
        return True
    if any(environment.get(name, "").startswith(f"{home}/data/nm") for name in _CONTAINER_PLACES):
        return True
    # The kernel reports a working directory with links resolved.
    return folder.startswith(f"{home.resolve()}/data/nm") and "/appcache/" in folder and not has_terminal


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _folder(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return ""
