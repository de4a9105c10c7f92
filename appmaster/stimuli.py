"""What can happen to a job. Facts only; what follows from them is decided in `machine`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tony.containers import HandleState, Identity


@dataclass(frozen=True)
class Begin:
    """The application master is up: ask for the first gang."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class StoodStill:
    """This process itself did nothing for so long: swapped out, frozen, on a stalled host."""

    seconds: float


@dataclass(frozen=True)
class ContainerAsked:
    """The back-end took the request; `handle` is its name for it."""

    identity: Identity
    handle: str


@dataclass(frozen=True)
class ContainerRefused:
    """The back-end could not even ask."""

    identity: Identity
    message: str


@dataclass(frozen=True)
class ContainerSeen:
    """What the back-end knows of a container has changed."""

    identity: Identity
    state: HandleState


@dataclass(frozen=True)
class ExitReport:
    """How a user process, or its preparation, ended: the wire's Result."""

    generation: int
    phase: str = "RUN"
    exit_code: int = 0
    signal: str = ""
    reason: str = ""
    message: str = ""
    tail: tuple[str, ...] = ()
    traceback: str = ""
    seconds: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether the user process ran and exited with 0."""
        return self.phase == "RUN" and self.exit_code == 0 and not self.signal and not self.reason


@dataclass(frozen=True)
class Ports:
    """The executor's workspace is ready and its ports are reserved, for this generation.

    `kept`: the user process of an earlier generation is still there and is to go on in this one.
    """

    generation: int
    port: int
    tensorboard_port: int = 0
    kept: bool = False


@dataclass(frozen=True)
class Greeted:
    """An executor said Hello: for the first time, or again after its stream broke."""

    identity: Identity
    host: str
    container_id: str = ""
    generation: int = 0
    user_running: bool = False
    result: ExitReport | None = None
    ports: Ports | None = None
    gpus: tuple[str, ...] = ()
    stood_still_s: float = 0.0
    """For how long the executor itself did not run lately, although it could have."""


@dataclass(frozen=True)
class Prepared:
    """Ready for a release."""

    identity: Identity
    ports: Ports


@dataclass(frozen=True)
class Beaten:
    """A sign of life."""

    identity: Identity
    metrics: Mapping[str, float] = field(default_factory=dict)
    progress: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UserStarted:
    """The user process runs."""

    identity: Identity
    generation: int


@dataclass(frozen=True)
class CanLiveOn:
    """A user process has said that it can go on when its peers change; how to tell it that they do.

    `number` counts the processes of the task from 0; it listens at `port` for messages signed with `key`.
    """

    identity: Identity
    number: int
    port: int
    key: str


@dataclass(frozen=True)
class UserEnded:
    """The user process, or its preparation, has ended."""

    identity: Identity
    report: ExitReport


@dataclass(frozen=True)
class UserStopped:
    """The user process was ended because we asked."""

    identity: Identity
    generation: int


@dataclass(frozen=True)
class Departed:
    """The executor has left, as asked."""

    identity: Identity


@dataclass(frozen=True)
class StreamClosed:
    """The executor's control stream broke."""

    identity: Identity


@dataclass(frozen=True)
class PageOffered:
    """A task offers a page to look at."""

    identity: Identity
    kind: str
    url: str


@dataclass(frozen=True)
class Remark:
    """A task has something to say for the history; `reason` is one of `Warned` when it is a warning."""

    identity: Identity
    text: str
    reason: str = ""


@dataclass(frozen=True)
class Confessed:
    """An executor ends by a defect of its own; the end of its container follows."""

    identity: Identity
    message: str
    traceback: str


@dataclass(frozen=True)
class StacksTaken:
    """Where the user's processes of a task are."""

    identity: Identity
    text: str


@dataclass(frozen=True)
class StopAsked:
    """Somebody who may wants the job to end."""

    by: str
    reason: str
    grace_s: float


@dataclass(frozen=True)
class ResizeAsked:
    """Somebody who may wants the elastic role to have so many tasks."""

    by: str
    size: int


@dataclass(frozen=True)
class BackendLost:
    """The cluster's side of the application master is gone: nothing can be asked for or reported any more."""

    message: str


Stimulus = (
    Begin
    | Tick
    | StoodStill
    | ContainerAsked
    | ContainerRefused
    | ContainerSeen
    | Greeted
    | Prepared
    | Beaten
    | UserStarted
    | CanLiveOn
    | UserEnded
    | UserStopped
    | Departed
    | StreamClosed
    | PageOffered
    | Remark
    | Confessed
    | StacksTaken
    | StopAsked
    | ResizeAsked
    | BackendLost
)
