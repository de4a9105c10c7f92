"""Events: in memory for clients that follow, and on storage for ever. A slow or dead store delays nobody."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from appmaster.store import StoreHealth, StoreThread
from tony.events import Event, EventKind
from tony.records import encode

_log = logging.getLogger(__name__)

UNKEPT_EVENTS = 20_000
"""More than were recorded since the state that tells their number: a process that goes on leaves out so many."""

_MEMORY_LIMIT = 20_000
_UNWRITTEN_LIMIT = 20_000
_FIRST_PAUSE_S = 2.0
_LAST_PAUSE_S = 60.0
_WRITE_S = 15.0
_LOOK_S = 0.5
_URGENT = frozenset({EventKind.DECISION, EventKind.WARNING, EventKind.NODE, EventKind.RESIZE})


class History:
    """All events of the job, numbered from 1. `write(name, bytes)` blocks and may fail; it runs in a thread.

    `rescue(name, bytes)` keeps on this node what could not be written.
    """

    def __init__(
        self,
        write: Callable[[str, bytes], None],
        attempt: int,
        last_number: int = 0,
        rescue: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.last_number = last_number
        self.dropped = 0
        self.health: StoreHealth | None = None
        self._write = write
        self._rescue = rescue
        self._store = StoreThread("history")
        self._attempt = attempt
        self._events: deque[Event] = deque(maxlen=_MEMORY_LIMIT)
        self._unwritten: deque[Event] = deque()
        self._urgent = False
        self._changed = asyncio.Event()
        self._closed = False

    def record(self, kind: EventKind, at: float, text: str, task: str | None, fields: Mapping[str, str]) -> None:
        """Add an event. Never blocks."""
        self.last_number += 1
        event = Event(self.last_number, round(at, 3), kind, text, task, fields)
        self._events.append(event)
        if len(self._unwritten) >= _UNWRITTEN_LIMIT:
            self._unwritten.popleft()
            self.dropped += 1
        self._unwritten.append(event)
        self._urgent = self._urgent or kind in _URGENT
        self._changed.set()

    async def follow(self, since: int) -> AsyncIterator[Event]:
        """Events with a number above `since`, then new ones; ends when the history is closed."""
        while True:
            changed = self._changed
            for event in [event for event in self._events if event.number > since]:
                since = event.number
                yield event
            if self._closed:
                return
            if changed.is_set():
                # Only its own: another follower may wait for the one that has taken its place meanwhile.
                if self._changed is changed:
                    self._changed = asyncio.Event()
                continue
            await changed.wait()

    def close(self) -> None:
        """No more events: followers end after the last one."""
        self._closed = True
        self._changed.set()

    async def keep_writing(self) -> None:
        """Write what is new in batches, ever further apart: a long job makes few files. Runs until cancelled.

        What tells why something was done does not wait: this process may be the next to be killed.
        """
        pause_s, now = _FIRST_PAUSE_S, asyncio.get_running_loop().time
        while True:
            due_at = now() + pause_s
            while now() < due_at and not self._urgent:
                await asyncio.sleep(min(_LOOK_S, max(0.0, due_at - now())))
            if self._unwritten:
                self._urgent = False
                await self.flush()
                pause_s = min(_LAST_PAUSE_S, pause_s * 1.5)

    async def flush(self) -> None:
        """Write what is not written yet; failures are logged, and the events stay for the next try."""
        batch = list(self._unwritten)
        if not batch:
            return
        name = f"events-{self._attempt}-{batch[0].number:09d}.jsonl"
        lines = b"".join(encode(event) + b"\n" for event in batch)
        try:
            await self._store.call(lambda: self._write(name, lines), _WRITE_S)
        except Exception as error:  # noqa: BLE001 - whatever a store fails with, the job goes on
            _log.warning("history is not written: %s", error)
            if self._rescue is not None:
                self._rescue(f"events-{self._attempt}-unwritten.jsonl", lines)
            if self.health is not None:
                self.health.failed("the history", error)
            return
        if self.health is not None:
            self.health.worked("the history")
        last = batch[-1].number
        while self._unwritten and self._unwritten[0].number <= last:
            self._unwritten.popleft()
