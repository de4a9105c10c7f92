"""What the user's script reports: datagrams on a Unix socket, reduced to the newest number of each name."""

from __future__ import annotations

import json
import logging
import math
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from tony.context import STACKS_FILE

NAMES_LIMIT = 256
NAME_CHARACTERS = 64
DATAGRAM_BYTES = 8 * 1024
_PATH_BYTES = 100
"""A Unix socket's path holds 108 bytes at most, the end mark included."""
_MARK = b"\0"
"""No report: what was sent before it has been taken when it arrives."""

log = logging.getLogger(__name__)


class Reports:
    """The newest number of each name, however many were reported. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fresh: dict[str, float] = {}
        self._names: set[str] = set()

    def take(self, datagram: bytes) -> None:
        """One report as JSON; what makes no sense in it is ignored."""
        if not datagram or len(datagram) > DATAGRAM_BYTES:
            return
        try:
            values = json.loads(datagram)
        except (ValueError, RecursionError):
            return
        if not isinstance(values, dict):
            return
        with self._lock:
            for name, value in values.items():
                if not _is_number(value) or not 0 < len(name) <= NAME_CHARACTERS:
                    continue
                if name not in self._names:
                    if len(self._names) >= NAMES_LIMIT:
                        continue
                    self._names.add(name)
                self._fresh[name] = float(value)

    def fresh(self) -> dict[str, float]:
        """The newest value of each name that was reported since the last call."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
        return fresh


class ReportSocket:
    """Listens in a thread, and goes on whatever arrives."""

    def __init__(self, reports: Reports) -> None:
        """Raises OSError when no socket can be made."""
        self._reports = reports
        self._closed = False
        self._caught_up = threading.Event()
        # The container's own folder is too deep for a socket's path.
        self._folder = Path(tempfile.mkdtemp(prefix="tony-"))
        self.path = str(self._folder / "report")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stacks = self._folder / STACKS_FILE
        try:
            self.stacks.touch(0o600)
            if len(self.path.encode()) > _PATH_BYTES:
                raise OSError(f"the path of the report socket is too long: {self.path}")
            self._socket.bind(self.path)
        except OSError:
            self.close()
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._listen, name="reports", daemon=True)
        self._thread.start()

    @property
    def remove(self) -> list[str]:
        """What has to go when nobody reports any more."""
        return [self.path, str(self.stacks), str(self._folder)]

    def catch_up(self, timeout_s: float) -> None:
        """Block until everything that was sent before this call has been taken, or the time is over."""
        self._caught_up.clear()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
                own.settimeout(timeout_s)
                own.sendto(_MARK, self.path)
        except OSError:
            # Closed: the thread takes what has arrived, and ends.
            self._thread.join(timeout_s)
            return
        self._caught_up.wait(timeout_s)

    def close(self) -> None:
        """Stop listening and remove the socket. May be called twice."""
        self._closed = True
        try:
            # Wakes the thread up, which closes the socket: closing it here would not wake it.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self) -> None:
        with self._socket:
            while True:
                try:
                    datagram = self._socket.recv(DATAGRAM_BYTES + 1)
                except OSError:
                    return
                if not datagram and self._closed:
                    return
                if datagram == _MARK:
                    self._caught_up.set()
                self._reports.take(datagram)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
