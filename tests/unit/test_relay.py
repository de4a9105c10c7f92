"""Output on its way to followers: bounded for the whole job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from appmaster import relay as relay_module
from appmaster.relay import OutputRelay
from tony.protocol.messages import OutputChunk, SendOutput


async def chunks(count: int, size: int) -> AsyncIterator[OutputChunk]:
    for _ in range(count):
        yield OutputChunk(stream="stdout", data=b"x" * size)


def test_all_tasks_together_stay_below_the_rate_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "RATE_BYTES_PER_S", 1_000_000)

    async def run() -> tuple[int, float]:
        asked: list[tuple[str, int, str]] = []
        relay = OutputRelay(lambda task, incarnation, wish: asked.append((task, incarnation, wish.request_id)))
        for task in ("worker:0", "worker:1"):
            relay.arrived(task, 1)
        follower = relay.follow([], "", -1, False)
        first = asyncio.ensure_future(anext(follower))
        while len(asked) < 2:
            await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        carried = [
            asyncio.create_task(relay.carry(task, incarnation, request_id, chunks(20, 50_000)))
            for task, incarnation, request_id in asked
        ]
        total = len((await first).data)
        async for chunk in follower:
            total += len(chunk.data)
        await asyncio.gather(*carried)
        return total, asyncio.get_running_loop().time() - began

    total, seconds = asyncio.run(run())
    assert total == 2_000_000
    # A second's worth may pass at once.
    assert seconds > 0.9


def test_a_wish_reaches_every_task_that_is_there() -> None:
    asked: list[SendOutput] = []
    relay = OutputRelay(lambda task, incarnation, wish: asked.append(wish))

    async def run() -> None:
        relay.arrived("worker:0", 1)
        follower = relay.follow(["worker:0"], "stderr", 5, True)
        waiting = asyncio.ensure_future(anext(follower))
        while not asked:
            await asyncio.sleep(0)
        await relay.drain()
        with pytest.raises(StopAsyncIteration):
            await waiting

    asyncio.run(run())
    assert (asked[0].stream, asked[0].tail_lines, asked[0].follow) == ("stderr", 5, True)
