"""For the user's script: who am I in this job, and a way to tell how far I am.

    from tony import current
    job = current()
    job.report(step=10, loss=0.3)

Standard library only, Python 3.8 or newer. Outside of a job it describes a job of one task, and `report` does
nothing.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STACKS_FILE = "stacks"
"""Beside the socket of the reports."""

_DATAGRAM_BYTES = 8 * 1024


@dataclass(frozen=True)
class Context:
    """This task's place in the job.

    `rank` counts from 0 over all processes of the stage that take part in training, -1 for one that only watches;
    `local_rank` counts those of this task, which share its GPUs; `incarnation` counts the containers that carried
    this task, `generation` the releases of the whole gang.
    `cluster_spec` maps each role to its ``host:port`` addresses. `checkpoint_dir` is shared by all tasks, a URL or
    a path; None if there is none.
    """

    rank: int = 0
    world_size: int = 1
    role: str = "worker"
    index: int = 0
    local_rank: int = 0
    local_world_size: int = 1
    generation: int = 1
    incarnation: int = 1
    application_id: str | None = None
    checkpoint_dir: str | None = None
    is_chief: bool = True
    cluster_spec: Mapping[str, Any] = field(default_factory=dict)
    _channel: _Channel | None = field(default=None, repr=False, compare=False)

    def report(self, **numbers: float) -> None:
        """Tell the newest value of some quantities, as ``report(step=10, loss=0.3)``.

        Shown by ``tony status``, kept in the history; `step` is progress; `step_s` is what this rank itself needed
        for a step, without waiting for others, and lets tony name slow nodes. Never blocks, never raises: a value
        that is not a number, or one too many, is left out.
        """
        if self._channel is not None:
            self._channel.send(numbers)


class _Channel:
    """The way to this task's executor: a Unix datagram socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process = 0

    def send(self, numbers: Mapping[str, Any]) -> None:
        values = {}
        for name, value in numbers.items():
            try:
                values[name] = float(value)
            except Exception:  # noqa: BLE001 - any object may come, and none may stop the training
                continue
        if not values:
            return
        try:
            datagram = json.dumps(values).encode()
            if len(datagram) <= _DATAGRAM_BYTES:
                self._connected().send(datagram)
        except (OSError, ValueError) as error:
            with self._lock:
                self._drop(error)

    def _connected(self) -> socket.socket:
        with self._lock:
            # A forked child opens its own.
            if self._socket is None or self._process != os.getpid():
                self._drop()
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                opened.setblocking(False)
                self._socket, self._process = opened, os.getpid()
                opened.connect(self._path)
            return self._socket

    def _drop(self, error: Exception | None = None) -> None:
        if self._socket is not None:
            if isinstance(error, OSError) and error.errno in (errno.EBADF, errno.ENOTSOCK):
                # The script has closed our descriptor; its number may be that of a file of the script by now.
                self._socket.detach()
            else:
                self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        # Nobody closes a context: without this, a script under ``-W error`` would hear of an open socket.
        self._drop()


_current: Context | None = None


def current() -> Context:
    """The context of this process; the same object each time."""
    global _current
    if _current is None:
        _current = from_environment(os.environ)
        _tell_stacks_when_asked(os.environ.get("TONY_REPORT_SOCKET"))
    return _current


def _tell_stacks_when_asked(report_socket: str | None) -> None:
    """Let the executor ask where this process is.

    On a signal that nobody else uses, the interpreter writes the stacks of all threads into a file beside the
    socket, even while a C function holds it. Where that cannot be, nothing happens.
    """
    if report_socket is None:
        return
    try:
        path = os.path.join(os.path.dirname(report_socket), STACKS_FILE)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        faulthandler.register(stacks_signal(), file=descriptor, all_threads=True)
    except Exception:  # noqa: BLE001 - a script must run whatever its platform lacks
        return


def stacks_signal() -> int:
    """The number of that signal."""
    return int(signal.SIGRTMIN) + 10


def from_environment(environment: Mapping[str, str]) -> Context:
    """The context that those variables describe. What is missing or unreadable has its value outside of a job."""
    outside = Context()

    def number(name: str, default: int) -> int:
        try:
            return int(environment.get("TONY_" + name, ""))
        except ValueError:
            return default

    try:
        cluster_spec = json.loads(environment.get("TONY_CLUSTER_SPEC", "{}"))
    except ValueError:
        cluster_spec = {}
    path = environment.get("TONY_REPORT_SOCKET")
    return Context(
        rank=number("RANK", outside.rank),
        world_size=number("WORLD_SIZE", outside.world_size),
        role=environment.get("TONY_ROLE", outside.role),
        index=number("INDEX", outside.index),
        local_rank=number("LOCAL_RANK", outside.local_rank),
        local_world_size=number("LOCAL_WORLD_SIZE", outside.local_world_size),
        generation=number("GENERATION", outside.generation),
        incarnation=number("INCARNATION", outside.incarnation),
        application_id=environment.get("TONY_APPLICATION_ID"),
        checkpoint_dir=environment.get("TONY_CHECKPOINT_DIR"),
        is_chief=environment.get("TONY_IS_CHIEF", "true").lower() == "true",
        cluster_spec=cluster_spec if isinstance(cluster_spec, dict) else {},
        _channel=_Channel(path) if path else None,
    )
