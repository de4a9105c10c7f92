"""Requests of clients for the stacks of tasks: asked of executors a few at a time, answered as they come."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from tony.containers import Identity
from tony.errors import NotPermitted
from tony.protocol.messages import DumpStacks, Stacks, TaskStacks, ToExecutor

_AT_ONCE = 64
_ANSWER_S = 40.0
_REQUESTS_LIMIT = 8


class StackRequests:
    """`send(identity, message)` speaks to one executor. Lives in the loop's thread."""

    def __init__(self, send: Callable[[Identity, ToExecutor], None]) -> None:
        self._send = send
        self._requests: dict[str, asyncio.Queue[tuple[Identity, str]]] = {}

    def arrived(self, identity: Identity, stacks: Stacks) -> None:
        """An executor has answered; answers to requests that are over are dropped."""
        queue = self._requests.get(stacks.request_id)
        if queue is not None:
            queue.put_nowait((identity, stacks.text))

    async def gather(self, tasks: Sequence[tuple[Identity, str]]) -> AsyncIterator[TaskStacks]:
        """The answer of each task (given with its host), in the order of arrival; one that is silent is named so."""
        if len(self._requests) >= _REQUESTS_LIMIT:
            raise NotPermitted(f"more than {_REQUESTS_LIMIT} requests for stacks at once")
        request_id = secrets.token_hex(8)
        # Bounded by what is asked for: an executor that answers twice is not heard the second time.
        queue = self._requests[request_id] = asyncio.Queue()
        try:
            for start in range(0, len(tasks), _AT_ONCE):
                missing = dict(tasks[start : start + _AT_ONCE])
                for identity in missing:
                    self._send(identity, ToExecutor(dump_stacks=DumpStacks(request_id=request_id)))
                give_up_at = asyncio.get_running_loop().time() + _ANSWER_S
                while missing:
                    rest_s = give_up_at - asyncio.get_running_loop().time()
                    try:
                        identity, text = await asyncio.wait_for(queue.get(), max(0.0, rest_s))
                    except asyncio.TimeoutError:
                        break
                    host = missing.pop(identity, None)
                    if host is not None:
                        yield TaskStacks(task=str(identity.task), host=host, text=text)
                for identity, host in missing.items():
                    yield TaskStacks(task=str(identity.task), host=host, text="the executor does not answer")
        finally:
            del self._requests[request_id]
