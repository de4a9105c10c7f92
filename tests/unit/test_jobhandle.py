"""Following a job survives its master's restart, and no ending is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tony.containers import AppReport, AppState, LogLine
from tony.errors import AppMasterUnreachable, NoSuchJob, NotFinished, Problem
from tony.events import Event, EventKind
from tony.jobhandle import JobHandle
from tony.plan import JobSecrets, Plan
from tony.protocol.messages import OutputChunk
from tony.records import encode
from tony.snapshot import JobSnapshot, Verdict
from tony.spec import JobSpec
from tony.state import JobState, Reason

ID = "application_1_0001"


class Reports:
    """A cluster that says what it is told to, in turn; the last answer stays."""

    name = "yarn"

    def __init__(self, storage: str, *states: AppState | Exception) -> None:
        self.storage = storage
        self.killed: list[str] = []
        self._states = list(states)

    def report(self, application_id: str) -> AppReport:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, Exception):
            raise state
        return AppReport(application_id, "x", "ann", "default", state)

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        self.killed.append(application_id)
        return AppReport(application_id, "x", "ann", "default", AppState.KILLED)

    def check(self, job: JobSpec) -> list[Problem]:
        return []

    def node_count(self) -> int:
        return 1

    def submit(self, plan: Plan, secrets: JobSecrets) -> str:
        return ID

    def list(
        self, states: Sequence[AppState] = (), user: str | None = None, tag: str | None = None
    ) -> list[AppReport]:
        return []

    def logs(self, application_id: str) -> Iterator[LogLine]:
        yield from ()

    def close(self) -> None:
        pass


class Connection:
    """What one life of a master says before it breaks off."""

    def __init__(
        self, events: Sequence[Event] = (), chunks: Sequence[OutputChunk] = (), broken: bool = False
    ) -> None:
        self._events, self._chunks, self._broken = events, chunks, broken
        self.stops: list[str] = []

    def events(self, since: int = 0) -> Iterator[Event]:
        yield from (event for event in self._events if event.number > since)
        self._end()

    def output(
        self, tasks: Sequence[str] = (), stream: str = "", tail_lines: int = -1, follow: bool = True
    ) -> Iterator[OutputChunk]:
        for chunk in self._chunks:
            copy = OutputChunk()
            copy.CopyFrom(chunk)
            yield copy
        self._end()

    def snapshot(self) -> JobSnapshot:
        raise AppMasterUnreachable("gone")

    def stop(self, reason: str, grace_s: float, by: str) -> str:
        self.stops.append(reason)
        return "STOPPING"

    def close(self) -> None:
        pass

    def _end(self) -> None:
        if self._broken:
            raise AppMasterUnreachable("gone")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "jobs" / ID
    path.mkdir(parents=True)
    return path


@pytest.fixture
def handle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobHandle]:
    monkeypatch.setattr("tony.jobhandle._FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("tony.jobhandle._YOUNG_PAUSE_S", 0.001)

    def make(*states: AppState | Exception, lives: Sequence[Connection] = ()) -> JobHandle:
        made = JobHandle(ID, Reports(f"file://{folder.parents[1]}", *(states or (AppState.RUNNING,))))
        waiting = list(lives)

        def connect() -> Connection:
            if not waiting:
                raise AppMasterUnreachable("nobody there")
            return waiting.pop(0)

        monkeypatch.setattr(made, "_connect", connect)
        return made

    return make


def event(number: int, kind: EventKind = EventKind.NOTE, **fields: str) -> Event:
    return Event(number, float(number), kind, f"event {number}", task=fields.pop("task", None), fields=fields)


def chunk(data: bytes, task: str = "worker:0", incarnation: int = 1, dropped: int = 0) -> OutputChunk:
    return OutputChunk(task=task, stream="stdout", data=data, incarnation=incarnation, dropped=dropped)


def verdict(state: JobState = JobState.SUCCEEDED, reason: Reason = Reason.SUCCEEDED) -> Verdict:
    return Verdict(ID, "x", state, reason, "why")


def test_events_go_on_after_a_restart_without_repetition(handle: Callable[..., JobHandle]) -> None:
    lives = [Connection([event(1), event(2)], broken=True), Connection([event(2), event(3)])]
    assert [one.number for one in handle(lives=lives).events()] == [1, 2, 3]


def test_events_of_a_finished_job_are_read_from_its_folder(handle: Callable[..., JobHandle], folder: Path) -> None:
    (folder / "verdict.json").write_bytes(encode(verdict()))
    (folder / "events-1-0001.jsonl").write_bytes(encode(event(3)) + b"\n" + b'{"half')
    (folder / "events-1-0000.jsonl").write_bytes(encode(event(1)) + b"\n" + encode(event(2)) + b"\n")
    assert [one.number for one in handle(AppState.SUCCEEDED).events()] == [1, 2, 3]
    assert [one.number for one in handle(AppState.SUCCEEDED).events(since=2)] == [3]


def test_output_goes_on_after_a_restart_where_it_was(handle: Callable[..., JobHandle]) -> None:
    first = Connection(chunks=[chunk(b"one\n"), chunk(b"tw")], broken=True)
    again = Connection(chunks=[chunk(b"one\ntwo\n"), chunk(b"three\n"), chunk(b"new\n", incarnation=2)])
    found = [(c.incarnation, c.data) for c in handle(lives=[first, again]).output()]
    assert found == [(1, b"one\n"), (1, b"tw"), (1, b"o\n"), (1, b"three\n"), (2, b"new\n")]


def test_output_that_was_dropped_counts_as_seen(handle: Callable[..., JobHandle]) -> None:
    first = Connection(chunks=[chunk(b"ab", dropped=10)], broken=True)
    again = Connection(chunks=[chunk(b"ab", dropped=10), chunk(b"cd")])
    found = [(c.dropped, c.data) for c in handle(lives=[first, again]).output()]
    assert found == [(10, b"ab"), (0, b"cd")]


def test_output_of_a_job_that_is_over_ends(handle: Callable[..., JobHandle]) -> None:
    assert list(handle(AppState.FAILED).output()) == []
    assert list(handle(NoSuchJob("forgotten")).output()) == []


def test_waiting_believes_the_verdict_first(handle: Callable[..., JobHandle], folder: Path) -> None:
    (folder / "verdict.json").write_bytes(encode(verdict(JobState.FAILED, Reason.GPU_OOM)))
    outcome = handle(AppState.SUCCEEDED).wait(1.0)
    assert (outcome.state, outcome.exit_code) == (JobState.FAILED, 107)


def test_waiting_without_a_verdict_believes_the_cluster(handle: Callable[..., JobHandle]) -> None:
    outcome = handle(AppState.ACCEPTED, AppState.RUNNING, AppState.FAILED).wait(5.0)
    assert (outcome.state, outcome.reason) == (JobState.FAILED, Reason.AM_LOST)


def test_waiting_ends_with_its_timeout(handle: Callable[..., JobHandle]) -> None:
    with pytest.raises(NotFinished):
        handle(AppState.RUNNING).wait(0.02)


def test_a_half_written_verdict_is_none(handle: Callable[..., JobHandle], folder: Path) -> None:
    (folder / "verdict.json").write_bytes(b'{"application_id": "a')
    assert handle(AppState.RUNNING).verdict() is None


def test_a_job_whose_master_does_not_answer_is_killed_through_the_cluster(handle: Callable[..., JobHandle]) -> None:
    made = handle(AppState.ACCEPTED)
    outcome = made.stop("enough", grace_s=0.0)
    assert (outcome.state, outcome.exit_code) == (JobState.KILLED, 103)
    assert made.cluster.killed == [ID]  # type: ignore[attr-defined]


def test_a_master_that_answers_is_asked_and_the_cluster_is_not(
    handle: Callable[..., JobHandle], folder: Path
) -> None:
    (folder / "verdict.json").write_bytes(encode(verdict(JobState.KILLED, Reason.CANCELLED)))
    connection = Connection()
    made = handle(AppState.KILLED, lives=[connection])
    assert made.stop("enough", grace_s=0.0).exit_code == 103
    assert connection.stops == ["enough"]
    assert made.cluster.killed == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("diagnostics", "words"),
    [
        ("", "the application master's container in queue a"),
        ("[Sun Nov 22 21:45:11 +0000 2026] no room.\n", "the application master's container in queue a: no room."),
        ("AM container is launched, waiting for AM container to Register with RM", "the application master to start"),
    ],
)
def test_status_without_a_master_says_what_is_waited_for(
    handle: Callable[..., JobHandle], monkeypatch: pytest.MonkeyPatch, diagnostics: str, words: str
) -> None:
    made = handle()
    report = AppReport(ID, "x", "ann", "root.a", AppState.ACCEPTED, diagnostics=diagnostics)
    monkeypatch.setattr(made.cluster, "report", lambda _: report)
    snapshot = made.snapshot()
    assert (snapshot.state, snapshot.waiting_for) == (JobState.NEW, words)


def test_containers_are_known_by_task_from_history(handle: Callable[..., JobHandle], folder: Path) -> None:
    events = [
        event(1, EventKind.TASK, task="worker:0", container="c2"),
        event(2, EventKind.TASK, task="worker:0", container="c5"),
        event(3, EventKind.NOTE, container="c9"),
    ]
    (folder / "events-1-0000.jsonl").write_bytes(b"".join(encode(one) + b"\n" for one in events))
    assert handle().containers() == {"c2": "worker:0", "c5": "worker:0"}


def test_closing_twice_is_fine_and_ends_following(handle: Callable[..., JobHandle]) -> None:
    made = handle(AppState.RUNNING)
    made.close()
    made.close()
    assert list(made.events()) == []
    assert list(made.output()) == []
