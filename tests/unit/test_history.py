"""Events reach every follower, in order, however many there are."""

from __future__ import annotations

import asyncio

from appmaster.history import History
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
