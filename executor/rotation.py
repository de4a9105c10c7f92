"""A log file that is rotated by size, and read by position while it is written."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 50 * 1000**2
SEGMENTS = 4
_BACKWARDS_BYTES = 64 * 1024
_TAIL_SCAN_BYTES = 4 * 1024**2


@dataclass
class _Segment:
    descriptor: int
    start: int
    size: int = 0

    @property
    def end(self) -> int:
        return self.start + self.size


class RotatedLog:
    """``stdout.log``, older parts in ``stdout.log.1`` …: at most `segments` files of `segment_bytes` each.

    Positions count the bytes ever written. Any number of threads write and read. `changed` is notified after every
    write and on close; several logs may share it.
    """

    def __init__(
        self,
        path: Path,
        changed: threading.Condition,
        segment_bytes: int = SEGMENT_BYTES,
        segments: int = SEGMENTS,
    ) -> None:
        """Raises OSError when the file cannot be made."""
        self.path = path
        self.changed = changed
        self.closed = False
        self._segment_bytes = segment_bytes
        self._limit = segments
        self._segments = [_Segment(_open(path), 0)]

    @property
    def start(self) -> int:
        """Position of the oldest byte that is still kept."""
        return self._segments[0].start

    @property
    def end(self) -> int:
        """Position after the newest byte."""
        return self._segments[-1].end

    def write(self, data: bytes) -> None:
        """Append. Raises OSError (ENOSPC …); what was written before the error stays."""
        view = memoryview(data)
        while view:
            with self.changed:
                if self._segments[-1].size >= self._segment_bytes:
                    self._rotate()
                current = self._segments[-1]
                written = os.write(current.descriptor, view[: self._segment_bytes - current.size])
                current.size += written
                self.changed.notify_all()
            view = view[written:]

    def read(self, position: int, limit: int) -> tuple[int, bytes]:
        """Up to `limit` bytes from `position`, or from `start` if that is later; with the position of the first."""
        with self.changed:
            position = max(position, self.start)
            for segment in self._segments:
                if segment.start <= position < segment.end:
                    size = min(limit, segment.end - position)
                    return position, os.pread(segment.descriptor, size, position - segment.start)
        return position, b""

    def tail_position(self, lines: int) -> int:
        """Where the last `lines` lines begin; scans at most 4 MB back."""
        position = end = self.end
        lowest = max(self.start, end - _TAIL_SCAN_BYTES)
        if lines == 0:
            return end
        missing = lines
        while position > lowest:
            begin = max(lowest, position - _BACKWARDS_BYTES)
            block = self._exactly(begin, position)
            if position == end and block.endswith(b"\n"):
                missing += 1
            found = len(block)
            while (found := block.rfind(b"\n", 0, found)) >= 0:
                missing -= 1
                if missing == 0:
                    return begin + found + 1
            position = begin
        return lowest

    def _exactly(self, begin: int, end: int) -> bytes:
        parts = []
        while begin < end:
            begin, block = self.read(begin, end - begin)
            if not block:
                break
            parts.append(block)
            begin += len(block)
        return b"".join(parts)

    def close(self) -> None:
        """Nothing more will be written; what is there can still be read. May be called twice."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def release(self) -> None:
        """Close the files. Reading ends. May be called twice."""
        self.close()
        with self.changed:
            for segment in self._segments:
                if segment.descriptor >= 0:
                    os.close(segment.descriptor)
            self._segments = [_Segment(-1, self.end)]

    def _rotate(self) -> None:
        for number in range(self._limit - 1, 0, -1):
            source = self._part(number - 1)
            if source.exists():
                source.replace(self._part(number))
        descriptor = _open(self.path)
        self._segments.append(_Segment(descriptor, self.end))
        while len(self._segments) > self._limit:
            os.close(self._segments.pop(0).descriptor)

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
