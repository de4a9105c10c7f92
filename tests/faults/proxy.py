"""A TCP proxy between an executor and its application master: delay, loss, partition, half-open connections."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable

_BLOCK = 1 << 16
_LOOK_S = 0.05


class Proxy:
    """Listens on `address`; forwards to `target()`. Its settings may be changed at any time, from any thread.

    `delay_s` holds every block back that long. `up` and `down` say whether bytes to the master and from it pass; what
    does not pass waits in the sender's kernel, as behind a router that drops packets: no end of stream is seen.
    """

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self.delay_s = 0.0
        self.up = self.down = True
        self.accepts = True
        self._target = target
        self._closed = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_S)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._begin(self._accept)

    def partition(self) -> None:
        """Nothing passes any more, in either direction, and nobody hears of it."""
        self.up = self.down = self.accepts = False

    def heal(self) -> None:
        """Everything passes again."""
        self.up = self.down = self.accepts = True
        self.delay_s = 0.0

    def cut(self) -> None:
        """End every connection that is open now; new ones are taken."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _close(one)

    def close(self) -> None:
        """End it. May be called twice."""
        self._closed.set()
        self.cut()
        for thread in self._threads:
            thread.join(5.0)
        self._listener.close()

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            if not self.accepts:
                time.sleep(_LOOK_S)
                continue
            try:
                ours, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                theirs = socket.create_connection(self._target(), timeout=2.0)
            except OSError:
                ours.close()
                continue
            self._pairs.append((ours, theirs))
            self._begin(self._pump, ours, theirs, lambda: self.up)
            self._begin(self._pump, theirs, ours, lambda: self.down)

    def _pump(self, source: socket.socket, sink: socket.socket, passes: Callable[[], bool]) -> None:
        try:
            while not self._closed.is_set():
                if not passes():
                    time.sleep(_LOOK_S)
                    continue
                if not select.select([source], [], [], _LOOK_S)[0]:
                    continue
                block = source.recv(_BLOCK)
                if not block:
                    break
                if self.delay_s:
                    self._closed.wait(self.delay_s)
                while not passes() and not self._closed.is_set():
                    time.sleep(_LOOK_S)
                sink.settimeout(30.0)
                sink.sendall(block)
        except (OSError, ValueError):
            pass
        finally:
            _close(source)
            _close(sink)


def _close(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
