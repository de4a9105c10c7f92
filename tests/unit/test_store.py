"""Shared storage that fails, is full or never answers: nobody waits for it, nothing that can be kept is lost."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from machine_driver import job

from appmaster import history as history_module
from appmaster import loop as loop_module
from appmaster import stimuli as on
from appmaster.__main__ import _what_was_before
from appmaster.folder import JobFolder
from appmaster.history import History
from appmaster.loop import Loop
from appmaster.machine import JobMachine
from appmaster.resume import KeptState
from appmaster.store import StoreHealth, StoreThread
from tony.clock import SystemClock
from tony.containers import AppState, EndCause, HandleState, Identity, Phase
from tony.errors import PackagingError, Unreachable
from tony.events import EventKind, Warned
from tony.records import decode
from tony.snapshot import Verdict
from tony.spec import RestartPolicy, RestartSpec, TaskId
from tony.state import TaskState
from tony.storage import Storage


class Backend:
    """Holds every container at once."""

    def __init__(self) -> None:
        self.polls = 0
        self._handles: list[str] = []

    def request(self, identity: Identity, environment: Mapping[str, str]) -> str:
        self._handles.append(f"{identity.task}#{identity.incarnation}")
        return self._handles[-1]

    def stop(self, handle: str) -> None:
        pass

    def poll(self) -> list[HandleState]:
        self.polls += 1
        return [HandleState(handle, Phase.HELD, f"c_{handle}", "node1") for handle in self._handles]

    def progress(self, fraction: float) -> None:
        pass

    def finish(self, state: AppState, diagnostics: str) -> None:
        pass

    def close(self) -> None:
        pass


class BlockedStorage(Storage):
    """Accepts a call and answers when it is allowed to."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.answers = threading.Event()

    def write(self, path: str, data: bytes, overwrite: bool = False) -> None:
        self.answers.wait(30.0)
        super().write(path, data, overwrite)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(history_module, "_LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(history_module, "_WRITE_S", 0.1)
    monkeypatch.setattr(loop_module, "_VERDICT_S", 0.1)


def test_a_store_that_never_answers_delays_neither_the_job_nor_its_end(quick: None, tmp_path: Path) -> None:
    base = tmp_path / "store"
    base.mkdir()
    storage = BlockedStorage(f"file://{base}")

    async def run() -> Verdict:
        clock = SystemClock()
        machine = JobMachine(job(2), "application_1_0001", "ann", now=clock.monotonic(), wall=clock.wall())
        folder = JobFolder(storage, "application_1_0001", tmp_path, tmp_path)
        history = History(folder.write_events, 1, rescue=folder.rescue)
        backend = Backend()
        loop = Loop(machine, backend, folder, history, clock, lambda identity: {})
        loop.feed(on.Begin())
        running = asyncio.create_task(loop.run())
        deadline = clock.monotonic() + 20.0
        while history.last_number < 4 or backend.polls < 5 or not (tmp_path / "events-1-unwritten.jsonl").exists():
            assert clock.monotonic() < deadline
            await asyncio.sleep(0.01)
        began = clock.monotonic()
        loop.feed(on.StopAsked("ann", "enough", 0.0))
        verdict = await asyncio.wait_for(running, 10.0)
        await asyncio.wait_for(loop.report(verdict), 10.0)
        loop.close()
        assert clock.monotonic() - began < 8.0
        return verdict

    try:
        before = time.monotonic()
        verdict = asyncio.run(run())
        # The program's end does not wait for the store's threads either.
        assert time.monotonic() - before < 25.0
    finally:
        storage.answers.set()
    assert verdict.state.value == "KILLED"
    assert "HDFS_UNAVAILABLE" in (tmp_path / "events-1-unwritten.jsonl").read_text()
    assert b"KILLED" in (tmp_path / "verdict.json").read_bytes()
    assert (tmp_path / "state.json").exists()


def test_what_could_not_be_written_is_written_once_the_store_is_back() -> None:
    async def run() -> None:
        answers = threading.Event()
        written: dict[str, bytes] = {}
        busy: list[int] = []

        def write(name: str, lines: bytes) -> None:
            busy.append(1)
            answers.wait(30.0)
            written[name] = lines

        history = History(write, attempt=1)
        for number in range(3):
            history.record(EventKind.NOTE, 1.0, str(number), None, {})
        await history.flush()
        await history.flush()
        assert len(busy) == 1 and not written
        history.record(EventKind.NOTE, 1.0, "3", None, {})
        answers.set()
        await history.flush()
        lines = b"".join(written.values()).splitlines()
        assert [b'"text":"%d"' % number in line for number, line in enumerate(lines)] == [True] * 4
        await history.flush()
        assert len(written) == 1

    before = history_module._WRITE_S
    history_module._WRITE_S = 0.1
    try:
        asyncio.run(run())
    finally:
        history_module._WRITE_S = before


def test_a_call_raises_what_the_storage_raises() -> None:
    def full() -> None:
        raise PackagingError("does not fit")

    with pytest.raises(PackagingError):
        asyncio.run(StoreThread("test").call(full, 5.0))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PackagingError("/user/ann/.tony/x does not fit: it needs 2 kB"), Warned.HDFS_QUOTA),
        (Unreachable("HDFS does not answer"), Warned.HDFS_UNAVAILABLE),
        (OSError(errno.ENOSPC, "No space left on device"), Warned.DISK_FULL),
    ],
)
def test_trouble_is_told_once_and_so_is_its_end(error: Exception, reason: Warned) -> None:
    told: list[tuple[Warned | None, str]] = []
    tell: Callable[[Warned | None, str], None] = lambda kind, text: told.append((kind, text))  # noqa: E731
    health = StoreHealth(tell)
    for _ in range(3):
        health.failed("the history", error)
        health.failed("the state", error)
    assert [kind for kind, _ in told] == [reason]
    assert str(getattr(error, "message", error.args[-1])) in told[0][1]
    health.worked("the state")
    assert len(told) == 1
    health.worked("the history")
    assert told[1][0] is None


def test_a_full_disk_of_the_node_does_not_stop_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Warned | None] = []
    folder = JobFolder(Storage(f"file://{tmp_path}"), "application_1_0001", tmp_path / "gone")
    folder.health = StoreHealth(lambda kind, text: told.append(kind))
    machine = JobMachine(job(1), "application_1_0001", "ann", now=0.0, wall=0.0)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    folder.keep_state(machine, 1)
    assert told == [Warned.DISK_FULL]


def test_whoever_is_asked_for_stands_in_the_kept_state_already(quick: None, tmp_path: Path) -> None:
    class Witness(Backend):
        def request(self, identity: Identity, environment: Mapping[str, str]) -> str:
            kept = decode((tmp_path / "state.json").read_bytes(), KeptState)
            known.append({(record.task, record.incarnation) for record in kept.tasks if record.asked_at is not None})
            return super().request(identity, environment)

    known: list[set[object]] = []

    async def run() -> None:
        clock = SystemClock()
        spec = job(2, restart=RestartSpec(RestartPolicy.TASK, max_user=1))
        machine = JobMachine(spec, "application_1_0001", "ann", now=clock.monotonic(), wall=clock.wall())
        folder = JobFolder(Storage(f"file://{tmp_path}/store"), "application_1_0001", tmp_path)
        loop = Loop(machine, Witness(), folder, History(lambda *_: None, 1), clock, lambda identity: {})
        loop.feed(on.Begin())
        running = asyncio.create_task(loop.run())
        deadline = clock.monotonic() + 20.0
        victim = machine.tasks[TaskId("worker", 1)]
        while len(known) < 3:
            assert clock.monotonic() < deadline
            await asyncio.sleep(0.01)
            if victim.incarnation == 1 and victim.state is TaskState.HELD:
                failed = HandleState("worker:1#1", Phase.ENDED, "c", "node1", EndCause.EXITED)
                loop.feed(on.ContainerSeen(victim.identity, failed))
        loop.feed(on.StopAsked("ann", "enough", 0.0))
        await asyncio.wait_for(running, 10.0)
        loop.close()

    asyncio.run(run())
    workers = [TaskId("worker", 0), TaskId("worker", 1)]
    assert known[0] == {(workers[0], 1), (workers[1], 1)}
    assert known[2] == {(workers[0], 1), (workers[1], 2)}


def kept_by(folder: JobFolder, generation: int) -> None:
    """A state of that generation, here and on storage."""
    machine = JobMachine(job(1), "application_1_0001", "ann", now=0.0, wall=0.0)
    machine.generation = generation
    folder.keep_state(machine, 1)
    assert folder._unwritten is not None
    folder._write_state(*folder._unwritten)


def test_after_a_restart_the_newest_state_on_storage_is_still_the_newest(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/store")
    first = JobFolder(storage, "application_1_0001", tmp_path)
    for generation in range(1, 8):
        kept_by(first, generation)
    second = JobFolder(storage, "application_1_0001", tmp_path)
    assert second.own_state() is not None
    kept_by(second, 8)
    last = JobFolder(storage, "application_1_0001", tmp_path / "elsewhere").last_state()
    assert last is not None and last.generation == 8


@pytest.mark.parametrize("damage", ["truncated", "empty", "gone"])
def test_a_state_that_cannot_be_read_here_is_read_from_storage(tmp_path: Path, damage: str) -> None:
    storage = Storage(f"file://{tmp_path}/store")
    kept_by(JobFolder(storage, "application_1_0001", tmp_path), 5)
    state = tmp_path / "state.json"
    if damage == "gone":
        state.unlink()
    else:
        state.write_bytes(state.read_bytes()[: 40 if damage == "truncated" else 0])
    folder = JobFolder(storage, "application_1_0001", tmp_path)
    kept, settled = asyncio.run(_what_was_before(folder, 1, again=True))
    assert kept is not None and (kept.generation, settled) == (5, None)


def test_nobody_believes_an_old_state_when_the_newer_one_found_no_room(tmp_path: Path) -> None:
    folder = JobFolder(Storage(f"file://{tmp_path}/store"), "application_1_0001", tmp_path)
    kept_by(folder, 1)
    # What stands in the way of a file is as good as a full disk.
    (tmp_path / "state.json.new").mkdir()
    kept_by(folder, 2)
    again = JobFolder(Storage(f"file://{tmp_path}/store"), "application_1_0001", tmp_path)
    kept, _ = asyncio.run(_what_was_before(again, 1, again=True))
    assert kept is not None and kept.generation == 2


def test_the_first_process_of_a_job_looks_for_nothing(tmp_path: Path) -> None:
    folder = JobFolder(Storage(f"file://{tmp_path}/store"), "application_1_0001", tmp_path)
    assert asyncio.run(_what_was_before(folder, 1, again=False)) == (None, None)
