"""Events reach every follower, in order, however many there are."""

from __future__ import annotations

import asyncio

import pytest

from appmaster import history as history_module
from appmaster.history import UNKEPT_EVENTS, History
from tony.events import EventKind


def record(history: History, text: str) -> None:
    history.record(EventKind.NOTE, 1.0, text, None, {})


async def followed(history: History, since: int = 0) -> list[int]:
    return [event.number async for event in history.follow(since)]


def test_every_follower_gets_every_event_and_the_end() -> None:
    async def run() -> None:
        history = History(lambda name, lines: None, attempt=1)
        followers = [asyncio.create_task(followed(history)) for _ in range(3)]
        for number in range(30):
            record(history, str(number))
            await asyncio.sleep(0.001 if number % 3 else 0)
        history.close()
        for follower in followers:
            assert await asyncio.wait_for(follower, 5.0) == list(range(1, 31))
        assert await followed(history, since=28) == [29, 30]

    asyncio.run(run())


def test_a_store_that_fails_keeps_nothing_back_but_its_own_copy() -> None:
    async def run() -> None:
        written: list[bytes] = []
        broken = True

        def write(name: str, lines: bytes) -> None:
            if broken:
                raise OSError("no space left")
            written.append(lines)

        history = History(write, attempt=1)
        record(history, "one")
        await history.flush()
        assert written == []
        broken = False
        record(history, "two")
        await history.flush()
        assert written[0].count(b"\n") == 2

    asyncio.run(run())


def test_a_process_that_goes_on_writes_over_nothing_and_uses_no_number_twice() -> None:
    written: dict[str, bytes] = {}

    async def run(last_number: int, texts: list[str]) -> int:
        history = History(written.__setitem__, 1, last_number)
        for text in texts:
            record(history, text)
            await history.flush()
        return history.last_number

    asyncio.run(run(0, ["one", "two", "three"]))
    # The state that is found knows of the first event only.
    assert asyncio.run(run(1 + UNKEPT_EVENTS, ["four"])) > 3
    lines = b"".join(written[name] for name in sorted(written)).splitlines()
    assert [word for word in ("one", "two", "three", "four") if word.encode() in b"".join(lines)] == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert len(lines) == 4


def test_a_decision_is_written_soon_however_rarely_the_rest_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(history_module, "_LOOK_S", 0.01)
    written: list[bytes] = []

    async def run() -> None:
        history = History(lambda name, lines: written.append(lines), attempt=1)
        writing = asyncio.create_task(history.keep_writing())
        record(history, "one")
        await asyncio.sleep(0.05)
        assert written == []
        history.record(EventKind.DECISION, 1.0, "restart the gang", "worker:1", {})
        while not written:
            await asyncio.sleep(0.01)
        writing.cancel()

    asyncio.run(asyncio.wait_for(run(), 10.0))
    assert [line.count(b"\n") for line in written] == [2]
