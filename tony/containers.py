"""The two interfaces that both back-ends obey: real YARN (`tony.yarn`) and child processes of one machine.

`ContainerBackend` is the application master's side, `Cluster` the client's. They are structural, so that no
back-end has to import the room that uses it; the contract tests hold each of them to these sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from tony.errors import Problem
from tony.spec import JobSpec, TaskId

if TYPE_CHECKING:
    from tony.plan import JobSecrets, Plan


class Phase(str, Enum):
    """Where a container is, as far as the back-end knows. It may know late."""

    REQUESTED = "REQUESTED"
    """Asked for; nothing is held yet."""
    HELD = "HELD"
    """Allocated to us; the process may or may not have started."""
    ENDED = "ENDED"
    """Its process is gone, or will never start."""


class EndCause(str, Enum):
    """Why a container ended, when the back-end can tell."""

    EXITED = "EXITED"
    """The executor's process ended by itself, or by a signal nobody here sent."""
    KILLED_BY_US = "KILLED_BY_US"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUT_OF_VMEM = "OUT_OF_VMEM"
    PREEMPTED = "PREEMPTED"
    NODE_LOST = "NODE_LOST"
    DISK_FAILED = "DISK_FAILED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    ARTIFACT_CHANGED = "ARTIFACT_CHANGED"
    """A file that it was to get is not there any more, or another one."""
    BAD_IMAGE = "BAD_IMAGE"
    """Its Docker image, or what was asked for it, will be refused by every node."""
    BAD_ENV = "BAD_ENV"
    """The interpreter cannot start the executor."""
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Identity:
    """Who a container is to be: the task, and which try of it."""

    task: TaskId
    incarnation: int


@dataclass(frozen=True)
class HandleState:
    """What the back-end knows of one container. `exit_code` and `node` are None where it cannot tell.

    `node` is a host; `node_id` tells nodes apart that share one, where the back-end has such a name.
    """

    handle: str
    phase: Phase
    container_id: str | None = None
    node: str | None = None
    cause: EndCause | None = None
    exit_code: int | None = None
    diagnostics: str = ""
    node_id: str | None = None


class ContainerBackend(Protocol):
    """What the application master needs of a cluster. All calls may block; the loop runs them in threads."""

    def request(self, identity: Identity, environment: Mapping[str, str]) -> str:
        """Ask for one container of the task's role; return a handle at once, before anything is allocated.

        `environment` reaches the executor; names and values hold only ``[A-Za-z0-9_./:@%+=,-]``, because YARN
        passes them through an unescaped ``export`` in bash. Raises TonyError when the ask cannot be made.
        """

    def stop(self, handle: str) -> None:
        """Withdraw the request or end the container. Unknown and ended handles are ignored."""

    def poll(self) -> Sequence[HandleState]:
        """The state of every container asked for in this application, ended ones included."""

    def progress(self, fraction: float) -> None:
        """Show how far the job is, from 0 to 1, where people look (the resource manager's list)."""

    def finish(self, state: AppState, diagnostics: str) -> None:
        """Report the final status, once, as the very last thing: our own process may be ended by it."""

    def close(self) -> None:
        """Let go of connections; ends child processes that are still there. May be called twice."""


class AppState(str, Enum):
    """An application's life as the cluster tells it."""

    SUBMITTED = "SUBMITTED"
    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def ended(self) -> bool:
        """Whether this is final."""
        return self in (AppState.SUCCEEDED, AppState.FAILED, AppState.KILLED)


@dataclass(frozen=True)
class AppReport:
    """One application in the cluster's list. Times are seconds since the epoch, 0 where not yet known."""

    application_id: str
    name: str
    user: str
    queue: str
    state: AppState
    started_at: float = 0.0
    finished_at: float = 0.0
    diagnostics: str = ""
    tracking_url: str = ""
    tags: tuple[str, ...] = ()
    progress: float = 0.0
    containers: int = 0
    memory_mb: int = 0
    am_host: str = ""
    am_attempts: int = 0


@dataclass(frozen=True)
class LogLine:
    """A line of a container's log. `stream` is the file's name: ``stdout.log``, ``stderr.log``, …"""

    container_id: str
    stream: str
    text: str


@dataclass(frozen=True)
class SubmitProgress:
    """How far a submit is: the `step` in words, bytes `done` of `total` (0 when unknown)."""

    step: str
    done: int = 0
    total: int = 0


class Cluster(Protocol):
    """What the client needs of a cluster. Every call blocks, under a deadline of its own."""

    name: str
    """``yarn`` or ``local``."""

    @property
    def storage(self) -> str:
        """Base URL of this user's folder on the cluster's storage."""

    def check(self, job: JobSpec) -> list[Problem]:
        """What of the job could never run here: sizes, queue, GPU type, labels. Raises Unreachable."""

    def node_count(self) -> int:
        """How many nodes are up, for the application master, which has no ticket to ask."""

    def submit(self, plan: Plan, secrets: JobSecrets) -> str:
        """Submit what was planned and uploaded; return the application id once the cluster has accepted it."""

    def report(self, application_id: str) -> AppReport:
        """Raises NoSuchJob or Unreachable."""

    def list(
        self, states: Sequence[AppState] = (), user: str | None = None, tag: str | None = None
    ) -> list[AppReport]:
        """Newest first."""

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        """End the application and return its final report once the cluster confirms it."""

    def logs(self, application_id: str) -> Iterator[LogLine]:
        """The kept logs of a finished application; what aggregation has not yet brought is waited for, bounded."""

    def close(self) -> None:
        """Let go of the driver and connections. May be called twice."""
