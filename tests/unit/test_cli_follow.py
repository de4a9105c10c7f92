"""A followed job is printed as it happens, its end is told once, and Ctrl-C does what was chosen."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence

import pytest

from tony.cli.follow import Follower, Interrupted
from tony.cli.output import Output
from tony.containers import LogLine
from tony.errors import NoSuchJob, NotFinished, Unreachable
from tony.events import Event, EventKind
from tony.outcome import Outcome
from tony.protocol.messages import OutputChunk
from tony.snapshot import JobSnapshot
from tony.spec import OnInterrupt
from tony.state import JobState, Reason

DONE = Outcome(JobState.SUCCEEDED, Reason.SUCCEEDED, "", 0)
CANCELLED = Outcome(JobState.KILLED, Reason.CANCELLED, "", 103)


class Where:
    """The back-end's name is all that following asks of it."""

    def __init__(self, name: str) -> None:
        self.name = name


class Job:
    """A handle whose events and output are given; with `interrupt`, Ctrl-C comes while events are awaited."""

    application_id = "local_1_0001"

    def __init__(
        self,
        events: Sequence[Event] = (),
        chunks: Sequence[OutputChunk] = (),
        kept: Sequence[LogLine] = (),
        error: Exception | None = None,
        endless: bool = False,
        cluster: str = "local",
    ) -> None:
        self._events, self._chunks, self._kept, self._error = events, chunks, kept, error
        self._over = threading.Event()
        if not endless:
            self._over.set()
        self.cluster = Where(cluster)
        self.stopped: list[str] = []
        self.closed = False

    def events(self, since: int = 0) -> Iterator[Event]:
        yield from self._events
        self._over.wait(10)
        if self._error is not None:
            raise self._error

    def output(self) -> Iterator[OutputChunk]:
        yield from self._chunks
        self._over.wait(10)

    def logs(self) -> Iterator[LogLine]:
        yield from self._kept

    def containers(self) -> dict[str, str]:
        return {"c1": "worker:0"}

    def snapshot(self) -> JobSnapshot:
        return JobSnapshot(self.application_id, "x", "ann", JobState.RUNNING, 1, 1, waiting_for="room")

    def wait(self, timeout_s: float | None = None, confirm_s: float = 1.0) -> Outcome:
        return DONE

    def stop(self, reason: str = "", grace_s: float = 30.0) -> Outcome:
        self.stopped.append(reason)
        self._over.set()
        return CANCELLED

    def kill(self) -> Outcome:
        self.stopped.append("kill")
        self._over.set()
        return CANCELLED

    def close(self) -> None:
        self.closed = True
        self._over.set()


def chunk(data: bytes) -> OutputChunk:
    return OutputChunk(task="worker:0", stream="stdout", data=data, incarnation=1)


def event(number: int, kind: EventKind, text: str) -> Event:
    return Event(number, 1.0, kind, text)


def follow(
    job: Job, on_interrupt: OnInterrupt = OnInterrupt.KILL, interrupt_at: str = ""
) -> tuple[Outcome, str, str]:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)

    def emit(task: str, stream: str, text: str) -> None:
        output.data(f"[{task}] {text}")
        if interrupt_at and interrupt_at in text:
            raise KeyboardInterrupt

    outcome = Follower(job, output, emit).follow(on_interrupt)  # type: ignore[arg-type]
    return outcome, out.getvalue(), err.getvalue()


def test_output_and_the_moments_that_matter_are_shown() -> None:
    events = [
        event(1, EventKind.JOB, "ALLOCATING: 2 tasks"),
        event(2, EventKind.TASK, "worker:0 is HELD"),
        event(3, EventKind.WAITING, "waiting for 1 of 2"),
        event(4, EventKind.WAITING, "waiting for 1 of 2"),
        event(5, EventKind.VERDICT, "SUCCEEDED"),
    ]
    job = Job(events, [chunk(b"one\ntw"), chunk(b"o\nthree")])
    outcome, out, err = follow(job)
    assert outcome is DONE and job.closed
    assert out == "[worker:0] one\n[worker:0] two\n[worker:0] three\n"
    assert err == "tony: ALLOCATING: 2 tasks\ntony: waiting for 1 of 2\n"


def test_a_job_that_was_over_too_soon_is_shown_from_its_kept_logs() -> None:
    kept = [LogLine("c1", "stdout.log", "hello"), LogLine("c1", "executor.log", "ours")]
    assert follow(Job(kept=kept))[1] == "[worker:0] hello\n"
    assert follow(Job(kept=kept, cluster="yarn"))[1] == ""


def test_ctrl_c_stops_the_job_and_returns_its_confirmed_end() -> None:
    job = Job(chunks=[chunk(b"go\n")], endless=True)
    with pytest.raises(Interrupted) as caught:
        follow(job, interrupt_at="go")
    assert caught.value.outcome is CANCELLED
    assert job.stopped == ["Ctrl-C in the client"]


def test_ctrl_c_can_leave_the_job_alone() -> None:
    job = Job(chunks=[chunk(b"go\n")], endless=True)
    with pytest.raises(Interrupted) as caught:
        follow(job, OnInterrupt.DETACH, interrupt_at="go")
    assert caught.value.outcome is None
    assert job.stopped == [] and job.closed


def test_nobody_can_be_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    job = Job(chunks=[chunk(b"go\n")], endless=True)
    with pytest.raises(Interrupted):
        follow(job, OnInterrupt.ASK, interrupt_at="go")
    assert job.stopped == ["Ctrl-C in the client"]


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "stopped"), [("k\n", True), ("d\n", False)])
def test_somebody_at_a_terminal_decides(monkeypatch: pytest.MonkeyPatch, answer: str, stopped: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    job = Job(chunks=[chunk(b"go\n")], endless=True)
    with pytest.raises(Interrupted):
        follow(job, OnInterrupt.ASK, interrupt_at="go")
    assert bool(job.stopped) is stopped


def test_a_lost_cluster_is_told_as_not_finished_because_the_job_may_go_on() -> None:
    with pytest.raises(NotFinished) as caught:
        follow(Job(error=Unreachable("no answer")))
    assert "tony wait local_1_0001" in (caught.value.hint or "")


def test_a_job_that_the_cluster_has_forgotten_is_not_said_to_go_on() -> None:
    with pytest.raises(NoSuchJob, match="the cluster has lost the job") as caught:
        follow(Job(error=NoSuchJob("the resource manager knows no application_1_0001.")))
    assert "go on" not in f"{caught.value.message} {caught.value.hint}"
