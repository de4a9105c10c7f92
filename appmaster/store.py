"""Calls to shared storage that nobody waits for longer than they are worth: a dead store delays no beat and no end.

Not `asyncio.to_thread`: its few threads also ask the cluster for containers, and the program's end waits for them.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable

from tony.errors import PackagingError, TonyError, Unreachable
from tony.events import Warned


class StoreThread:
    """One call at a time, each in a daemon thread. Only from the loop's own thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: asyncio.Future[None] | None = None

    async def call(self, function: Callable[[], None], limit_s: float) -> None:
        """Carry it out; raises what it raises, and Unreachable when it, or the one before, is not over in time."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + limit_s
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running], timeout=limit_s)
            if not self._running.done():
                raise Unreachable(f"shared storage has not answered for longer than {limit_s:.0f} s")
        running: asyncio.Future[None] = loop.create_future()
        running.add_done_callback(lambda future: future.exception())
        self._running = running

        def settle(error: BaseException | None) -> None:
            if error is None:
                running.set_result(None)
            else:
                running.set_exception(error)

        def work() -> None:
            caught: BaseException | None = None
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                caught = error
            try:
                loop.call_soon_threadsafe(settle, caught)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        threading.Thread(target=work, name=self._name, daemon=True).start()
        await asyncio.wait([running], timeout=max(0.0, give_up_at - loop.time()))
        if not running.done():
            raise Unreachable(f"shared storage has not answered within {limit_s:.0f} s")
        running.result()


class StoreHealth:
    """Says once that shared storage does not take what we keep there, and once that it does again."""

    def __init__(self, tell: Callable[[Warned | None, str], None]) -> None:
        """`tell(reason, text)`: a warning, or with None a note."""
        self._tell = tell
        self._failing: set[str] = set()

    def failed(self, what: str, error: Exception, kept: str = "on this node only") -> None:
        """A piece of our keeping did not work; it is `kept` elsewhere."""
        first = not self._failing
        self._failing.add(what)
        if first:
            words = error.message if isinstance(error, TonyError) else f"{type(error).__name__}: {error}"
            self._tell(_reason(error), f"{what} is kept {kept}, the job goes on: {words}")

    def worked(self, what: str) -> None:
        """That piece works."""
        if what in self._failing:
            self._failing.discard(what)
            if not self._failing:
                self._tell(None, "shared storage takes history and state again")


def _reason(error: Exception) -> Warned:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Warned.DISK_FULL
    return Warned.HDFS_QUOTA if isinstance(error, PackagingError) else Warned.HDFS_UNAVAILABLE
