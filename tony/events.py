"""What happened to a job, for people, history and following clients: one JSON line each, kept for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class EventKind(str, Enum):
    """What an event is about. Kinds are only ever added."""

    JOB = "JOB"
    """The job changed its state; `fields` has ``state`` and, at the end, ``reason``."""
    TASK = "TASK"
    """A task changed its state; `fields` has ``state``, ``incarnation``, ``host``, ``node``, ``container``.

    Of a task with GPUs, REGISTERED also tells in ``gpus`` which they are.
    """
    WAITING = "WAITING"
    """What the job is waiting for, in words, whenever that changes."""
    DECISION = "DECISION"
    """What the restart policy decided for a root cause, with its reasons."""
    URL = "URL"
    """A page to look at: ``page`` (``tensorboard``) and ``url``."""
    NODE = "NODE"
    """A node was excluded or let in again, or a container on one was declined; `fields` has ``node``."""
    RESIZE = "RESIZE"
    """The gang has, or shall have, another size; `fields` has ``size`` and ``target``."""
    WARNING = "WARNING"
    """Something is wrong, and the job goes on; `fields` has ``reason``, one of `Warned`."""
    NOTE = "NOTE"
    """A sentence worth keeping."""
    VERDICT = "VERDICT"
    """The last one: how the job ended."""


class Warned(str, Enum):
    """What a WARNING is about."""

    HUNG = "HUNG"
    """No progress for longer than ``hang_timeout``."""
    STRAGGLER = "STRAGGLER"
    """A task is slower than its peers, for a minute and more."""
    LOG_QUOTA = "LOG_QUOTA"
    """A task writes more than its log takes: the rest is dropped, with a marker in its place."""
    DISK_FULL = "DISK_FULL"
    """A task's log cannot be written because the node's disk is full; the task goes on."""
    HDFS_QUOTA = "HDFS_QUOTA"
    """Shared storage has no room for history and state; they are kept beside the application master."""
    HDFS_UNAVAILABLE = "HDFS_UNAVAILABLE"
    """Shared storage does not answer; history and state are kept beside the application master."""


@dataclass(frozen=True)
class Event:
    """`number` counts from 1 within the job; `at` is wall time in seconds since the epoch, for people only."""

    number: int
    at: float
    kind: EventKind
    text: str
    task: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
