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
from appmaster.folder import JobFolder
from appmaster.history import History
from appmaster.loop import Loop
from appmaster.machine import JobMachine
from appmaster.store import StoreHealth, StoreThread
from tony.clock import SystemClock
from tony.containers import AppState, HandleState, Identity, Phase
from tony.errors import PackagingError, Unreachable
from tony.events import EventKind, Warned
from tony.snapshot import Verdict
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
