"""What the machine may ask of the world. The loop obeys; outcomes come back as stimuli."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tony.containers import Identity
from tony.events import EventKind
from tony.snapshot import Verdict
from tony.spec import ClusterSpec


@dataclass(frozen=True)
class RequestContainer:
    """Ask the back-end for a container."""

    identity: Identity


@dataclass(frozen=True)
class StopContainer:
    """Give a request back, or end a container."""

    identity: Identity
    handle: str


@dataclass(frozen=True)
class SayWelcome:
    """Accept an executor; it prepares for `generation`."""

    identity: Identity
    generation: int


@dataclass(frozen=True)
class SayRefused:
    """Turn away an executor that is not, or no longer, wanted."""

    identity: Identity
    reason: str


@dataclass(frozen=True)
class SayRelease:
    """Let a task start its user process."""

    identity: Identity
    cluster: ClusterSpec
    hold_ports: bool


@dataclass(frozen=True)
class SayStopUser:
    """End the user process, keep the container; get ready for `next_generation`."""

    identity: Identity
    generation: int
    next_generation: int
    grace_s: float
    reason: str


@dataclass(frozen=True)
class SayLiveOn:
    """Keep the user process; be ready to go on with it in `next_generation`. If it has ended, as `SayStopUser`."""

    identity: Identity
    generation: int
    next_generation: int
    grace_s: float
    reason: str


@dataclass(frozen=True)
class SayLeave:
    """End the user process if there is one, then the executor."""

    identity: Identity
    grace_s: float
    reason: str


@dataclass(frozen=True)
class SayResultAck:
    """The result arrived and is kept."""

    identity: Identity
    generation: int


@dataclass(frozen=True)
class SayBeatNow:
    """Something failed elsewhere: ask for a sign of life at once."""

    identity: Identity


@dataclass(frozen=True)
class SayDumpStacks:
    """Something hangs: have it said where everybody is."""

    identity: Identity


@dataclass(frozen=True)
class DropStream:
    """Close the control stream of an incarnation that is no longer spoken with."""

    identity: Identity


@dataclass(frozen=True)
class RecordEvent:
    """Keep it in the history and show it to whoever follows."""

    kind: EventKind
    text: str
    task: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SaveState:
    """Keep what a restarted application master needs; before anything later in the same list is done.

    `soon`: within a second, and nothing waits for it; for what a restart can do without.
    """

    soon: bool = False


@dataclass(frozen=True)
class ShowProgress:
    """Tell the cluster how far the job is, from 0 to 1."""

    fraction: float


@dataclass(frozen=True)
class Finish:
    """Nothing more to wait for: keep the verdict where attempts and clients find it, report it, and end."""

    verdict: Verdict


Command = (
    RequestContainer
    | StopContainer
    | SayWelcome
    | SayRefused
    | SayRelease
    | SayStopUser
    | SayLiveOn
    | SayLeave
    | SayResultAck
    | SayBeatNow
    | SayDumpStacks
    | DropStream
    | RecordEvent
    | SaveState
    | ShowProgress
    | Finish
)
