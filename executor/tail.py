"""The last lines of a stream, in bounded memory, whatever the stream holds."""

from __future__ import annotations

from collections import deque

LINES = 40
LINE_BYTES = 2048
_KEPT_LINES = 400


class TailBuffer:
    """Keeps the last 400 lines, each cut at 2 KB. Lines end with LF; a CR overwrites, as on a terminal.

    Not thread-safe: fed by one thread, read after the stream has ended (or for a report, where a torn read is fine).
    """

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        first, *rest = data.split(b"\n")
        if len(self._partial) < LINE_BYTES:
            self._partial += first[: LINE_BYTES - len(self._partial)]
        if not rest:
            return
        self._lines.append(self._partial)
        self._partial = rest.pop()[:LINE_BYTES]
        self._lines.extend(line[:LINE_BYTES] for line in rest[-_KEPT_LINES:])

    def lines(self, count: int = LINES) -> list[str]:
        """The last `count` lines as text, an unfinished one included; what is not UTF-8 is replaced, NUL removed."""
        kept = list(self._lines)[-count:]
        if self._partial:
            kept = [*kept, self._partial][-count:]
        return [_text(line) for line in kept]


def _text(line: bytes) -> str:
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return shown.replace(b"\0", b"").decode("utf-8", "replace")
