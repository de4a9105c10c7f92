"""Output of the tasks, carried from executors to followers: opened on request, bounded, in no beat's way."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field

from tony.errors import NotPermitted
from tony.protocol.messages import OutputChunk, SendOutput

_QUEUE_CHUNKS = 64
_FOLLOWER_LIMIT = 32
_DRAIN_S = 3.0


RATE_BYTES_PER_S = 50 * 1000**2
"""What all followers of a job get together. Who is slower than the output loses the oldest of it, and is told."""


class _Pace:
    """Lets so many bytes pass in a second, whoever sends them; more than a second's worth never at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - 1.0) + size / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


@dataclass
class _Request:
    """One follower: what it wants, and what was carried to it so far."""

    tasks: Collection[str]
    stream: str
    tail_lines: int
    follow: bool
    queue: asyncio.Queue[OutputChunk | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE_CHUNKS))
    asked: set[tuple[str, int]] = field(default_factory=set)
    open: int = 0
    awaited: int = 0


class OutputRelay:
    """Matches followers with the streams that executors open for them.

    `send(task, incarnation, SendOutput)` asks one executor; it is given by the service.
    """

    def __init__(self, send: Callable[[str, int, SendOutput], None]) -> None:
        self._send = send
        self._requests: dict[str, _Request] = {}
        self._present: dict[str, int] = {}
        self._closing = False
        self._pace = _Pace(RATE_BYTES_PER_S)

    def arrived(self, task: str, incarnation: int) -> None:
        """An executor is there: everybody who follows its task gets its output from the beginning."""
        self._present[task] = incarnation
        for request_id, request in self._requests.items():
            self._ask(request_id, request, task, incarnation, tail_lines=-1)

    def departed(self, task: str, incarnation: int) -> None:
        """An executor's control stream ended; an output stream that it promised will not come any more."""
        if self._present.get(task) == incarnation:
            del self._present[task]

    async def carry(self, task: str, incarnation: int, request_id: str, chunks: AsyncIterator[OutputChunk]) -> None:
        """Take one executor's stream; the follower's pace is its pace. Raises NotPermitted for an unknown id."""
        request = self._requests.get(request_id)
        if request is None or (task, incarnation) not in request.asked:
            raise NotPermitted("nobody asked for this output")
        request.open += 1
        request.awaited -= 1
        try:
            async for chunk in chunks:
                await self._pace.take(len(chunk.data))
                chunk.task, chunk.incarnation = task, incarnation
                if request_id not in self._requests:
                    return
                await request.queue.put(chunk)
        finally:
            request.open -= 1
            self._end_if_done(request)

    async def follow(
        self, tasks: Collection[str], stream: str, tail_lines: int, follow: bool
    ) -> AsyncIterator[OutputChunk]:
        """Chunks for one follower. Ends when every task has left (or, without `follow`, has sent what there is)."""
        if len(self._requests) >= _FOLLOWER_LIMIT:
            raise NotPermitted(f"more than {_FOLLOWER_LIMIT} followers at once")
        request_id = secrets.token_hex(8)
        request = _Request(frozenset(tasks), stream, tail_lines, follow)
        self._requests[request_id] = request
        try:
            for task, incarnation in list(self._present.items()):
                self._ask(request_id, request, task, incarnation, tail_lines)
            self._end_if_done(request)
            while (chunk := await request.queue.get()) is not None:
                yield chunk
        finally:
            del self._requests[request_id]
            while not request.queue.empty():
                request.queue.get_nowait()

    async def drain(self) -> None:
        """The job is over: wait, a bounded time, until followers have everything, then end them."""
        self._closing = True
        deadline = asyncio.get_running_loop().time() + _DRAIN_S
        while any(r.open or not r.queue.empty() for r in self._requests.values()):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
        for request in self._requests.values():
            _put_end(request)

    def _ask(self, request_id: str, request: _Request, task: str, incarnation: int, tail_lines: int) -> None:
        wanted = not request.tasks or task in request.tasks
        if not wanted or (task, incarnation) in request.asked:
            return
        request.asked.add((task, incarnation))
        request.awaited += 1
        message = SendOutput(
            request_id=request_id, stream=request.stream, tail_lines=tail_lines, follow=request.follow
        )
        self._send(task, incarnation, message)

    def _end_if_done(self, request: _Request) -> None:
        if request.open == 0 and (self._closing or (not request.follow and request.awaited <= 0)):
            _put_end(request)


def _put_end(request: _Request) -> None:
    while True:
        try:
            request.queue.put_nowait(None)
            return
        except asyncio.QueueFull:
            # The follower takes nothing: what it has not read by now is given up.
            request.queue.get_nowait()
