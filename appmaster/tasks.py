"""What the application master knows of one task: its current incarnation, its moves, its story."""

from __future__ import annotations

from dataclasses import dataclass, field

from appmaster.stimuli import ExitReport, Ports
from tony.containers import HandleState, Identity
from tony.snapshot import Failure, TaskSnapshot
from tony.spec import Endpoint, TaskId
from tony.state import TASK_MOVES, InvalidMove, TaskState

_STORY_LIMIT = 60


@dataclass
class TaskRecord:
    """One task. Everything but `story` belongs to the newest incarnation. Times are monotonic seconds.

    A user process that failed leaves the incarnation in RUNNING with `failure` set until the policy has decided:
    the container may carry the next generation. FAILED, LOST and STOPPED are final for an incarnation.
    """

    task: TaskId
    tracked: bool = True
    wanted: bool = True
    """Whether it belongs to the gang at its present size."""
    incarnation: int = 1
    state: TaskState = TaskState.NEW
    handle: str = ""
    container_id: str = ""
    host: str = ""
    node: str = ""
    ports: Ports | None = None
    report: ExitReport | None = None
    failure: Failure | None = None
    ended: HandleState | None = None
    defect: tuple[str, str] | None = None
    """Last words of an executor that ends by a defect of its own: a sentence and its traceback."""
    connected: bool = False
    stop_asked: bool = False
    asked_at: float | None = None
    held_at: float | None = None
    heard_at: float | None = None
    ended_at: float | None = None
    user_stop_deadline: float | None = None
    fences: dict[int, float] = field(default_factory=dict)
    """Until when earlier incarnations may still run, unknown to us, by incarnation."""
    metrics: dict[str, float] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    warning: str = ""
    """What is wrong with it although it runs."""
    started_in: int = 0
    """The generation in which its user process was started."""
    doors: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Of its processes that can live on, by number: the port and key with which they are told that peers change."""
    story: list[str] = field(default_factory=list)

    @property
    def release_after(self) -> float:
        """A successor is released, and the gang goes on, only when no earlier incarnation can run any more."""
        return max(self.fences.values(), default=0.0)

    def fence(self, lease_s: float) -> None:
        """This incarnation was heard of, and may run on until its lease is over."""
        if self.heard_at is not None:
            self.fences[self.incarnation] = self.heard_at + lease_s

    @property
    def identity(self) -> Identity:
        """The task and its incarnation."""
        return Identity(self.task, self.incarnation)

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the framework of this task listens, once ports are reserved."""
        return Endpoint(self.host, self.ports.port) if self.ports else None

    def can_live_on(self, processes: int) -> bool:
        """Whether its user process is there and can go on with other peers; it has so many processes."""
        return len(self.doors) == processes and self.report is None and self.failure is None

    @property
    def shown_state(self) -> TaskState:
        """The state for people: a failed user process is FAILED, whatever becomes of its container."""
        return TaskState.FAILED if self.failure and self.state.live else self.state

    def is_well(self, quiet_since: float) -> bool:
        """Whether nothing about it needs a second look: connected, prepared, heard from since that moment."""
        return (
            self.connected
            and self.ended is None
            and self.user_stop_deadline is None
            and self.ports is not None
            and self.heard_at is not None
            and self.heard_at > quiet_since
        )

    def ready_for(self, generation: int, now: float) -> bool:
        """Whether it may be released in that generation now."""
        return (
            self.state is TaskState.REGISTERED
            and self.connected
            and self.ports is not None
            and self.ports.generation == generation
            and self.release_after <= now
        )

    def move(self, new: TaskState, why: str, now: float) -> None:
        """Change the state; raises InvalidMove, with the story, where the table has no such move."""
        if new not in TASK_MOVES[self.state]:
            raise InvalidMove(f"{self.task} incarnation {self.incarnation}", self.state, new, tuple(self.story))
        self.tell(f"{self.state.value} -> {new.value}: {why}", now)
        self.state = new

    def tell(self, sentence: str, now: float) -> None:
        """Add a line to the story."""
        self.story.append(f"{now:.1f} #{self.incarnation} {sentence}")
        del self.story[:-_STORY_LIMIT]

    def next_incarnation(self) -> None:
        """Forget the incarnation and begin the next one, in NEW."""
        self.incarnation += 1
        self.state = TaskState.NEW
        self.handle = self.container_id = self.host = self.node = ""
        self.ports = self.report = self.failure = self.ended = self.defect = None
        self.connected = self.stop_asked = False
        self.asked_at = self.held_at = self.heard_at = None
        self.ended_at = self.user_stop_deadline = None
        self.metrics, self.gpus, self.warning = {}, (), ""
        self.doors = {}

    def next_generation(self) -> None:
        """Forget what the user process of the generation before did."""
        self.ports = self.report = self.failure = None
        self.warning = ""

    def snapshot(self, now: float) -> TaskSnapshot:
        """A row of ``tony status``."""
        report = self.report
        exited = report is not None and report.phase == "RUN" and not report.signal
        return TaskSnapshot(
            task=str(self.task),
            state=self.shown_state,
            incarnation=self.incarnation,
            host=self.host,
            node=self.node,
            container=self.container_id,
            endpoint=str(self.endpoint or ""),
            age_s=round(now - self.asked_at, 1) if self.asked_at is not None else 0.0,
            last_beat_s=round(max(0.0, now - self.heard_at), 1) if self.heard_at is not None else None,
            exit_code=report.exit_code if exited and report else None,
            signal=report.signal if report and report.signal else None,
            tracked=self.tracked,
            gpus=self.gpus,
            metrics=dict(self.metrics),
            progress=dict(self.progress),
            warning=self.warning if self.state is TaskState.RUNNING else "",
        )
