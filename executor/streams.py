"""The user process's output: from its pipes into rotated files, and from there to whoever follows."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from executor.rotation import RotatedLog
from executor.tail import TailBuffer
from tony.events import Warned
from tony.protocol.messages import CHUNK_LIMIT_BYTES, OutputChunk
from tony.units import format_bytes

RATE_BYTES_PER_S = 10 * 1000**2
"""What a stream may write for ever; more than that is dropped, and the number of lost bytes is told in its place."""

STDOUT, STDERR = "stdout", "stderr"

_READ_BYTES = 64 * 1024
_COALESCE_S = 0.05
_IDLE_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputEnded:
    """Both streams of the user process are read to their end."""

    generation: int


@dataclass
class _Source:
    """One pipe, and where it goes."""

    log: RotatedLog
    rate: float
    tail: TailBuffer | None
    warn: Callable[[Warned, str], None]
    tokens: float = field(init=False)
    filled_at: float = field(default_factory=time.monotonic)
    dropping: bool = False
    dropped: int = 0
    error: int = 0
    warned: set[Warned] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tokens = self.rate

    def take(self, data: bytes) -> None:
        """Keep the data, or count it as dropped."""
        if self.tail is not None:
            self.tail.feed(data)
        now = time.monotonic()
        self.tokens = min(self.rate, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.dropping and self.tokens >= self.rate / 2 and self.mark():
            # Go on with a whole line.
            skipped = data.find(b"\n") + 1
            self.dropped += skipped
            data = data[skipped:]
        elif not self.dropping and self.tokens < len(data):
            self.dropping = True
            self._warn_once(
                Warned.LOG_QUOTA,
                f"{self.log.path.name} grows faster than {self.rate / 1000**2:.0f} MB/s; what is more is dropped,"
                " with a marker in its place",
            )
        if self.dropping or not self._write(data):
            self.dropping = True
            self.dropped += len(data)
        else:
            self.tokens -= len(data)

    def mark(self) -> bool:
        """Say how much was dropped, in its place; whether there is room for that."""
        if self.dropped:
            why = "the disk is full" if self.error else f"more than {self.rate / 1000**2:.0f} MB/s"
            if not self._write(f"\n[tony] {self.dropped} bytes of output dropped: {why}\n".encode()):
                return False
        self.dropped, self.error, self.dropping = 0, 0, False
        return True

    def _write(self, data: bytes) -> bool:
        try:
            self.log.write(data)
            return True
        except OSError as error:
            # The user process goes on: its pipe is emptied, and later lines may find room again.
            self.error = error.errno or 0
            self._warn_once(
                Warned.DISK_FULL,
                f"{self.log.path} cannot be written ({error.strerror}, {_free(self.log.path)} free);"
                " the task goes on without its output",
            )
            return False

    def _warn_once(self, reason: Warned, text: str) -> None:
        if reason not in self.warned:
            self.warned.add(reason)
            log.warning("%s", text)
            self.warn(reason, text)


def _free(path: Path) -> str:
    try:
        return format_bytes(shutil.disk_usage(path.parent).free)
    except OSError:
        return "nothing known to be"


class Streams:
    """The two logs of a task, for all its generations."""

    def __init__(
        self,
        folder: Path,
        rate: float = RATE_BYTES_PER_S,
        warn: Callable[[Warned, str], None] = lambda reason, text: None,
    ) -> None:
        """`warn` is called in a thread, once for each stream and run. Raises OSError when `folder` takes no files."""
        self._warn = warn
        self._rate = rate
        self.changed = threading.Condition()
        self.logs: Mapping[str, RotatedLog] = {
            name: RotatedLog(folder / f"{name}.log", self.changed) for name in (STDOUT, STDERR)
        }
        self.tail = TailBuffer()
        self.heard_bytes = 0
        self._readers: list[threading.Thread] = []

    def attach(self, generation: int, ended: Callable[[OutputEnded], None]) -> tuple[int, int]:
        """Pipes for a new user process: returns the descriptors it writes to. `ended` is called in a thread."""
        self.tail = TailBuffer()
        sources: dict[int, _Source] = {}
        writers = []
        for name in (STDOUT, STDERR):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            sources[reader] = _Source(self.logs[name], self._rate, self.tail if name == STDERR else None, self._warn)
            writers.append(writer)

        def drain() -> None:
            self._drain(sources)
            ended(OutputEnded(generation))

        thread = threading.Thread(target=drain, name=f"output-{generation}", daemon=True)
        self._readers = [reader for reader in self._readers if reader.is_alive()] + [thread]
        thread.start()
        return writers[0], writers[1]

    def _drain(self, sources: dict[int, _Source]) -> None:
        with selectors.DefaultSelector() as selector:
            for descriptor, source in sources.items():
                selector.register(descriptor, selectors.EVENT_READ, source)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, _READ_BYTES)
                    if data:
                        self.heard_bytes += len(data)
                        key.data.take(data)
                    else:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        key.data.mark()

    def note(self, text: str) -> None:
        """Lines of ours among those of the user's standard error; nothing where the disk is full."""
        try:
            self.logs[STDERR].write(text.encode("utf-8", "replace"))
        except OSError as error:
            log.warning("cannot write %s: %s", self.logs[STDERR].path, error.strerror)

    def follow(
        self,
        task: str,
        incarnation: int,
        stream: str,
        tail_lines: int,
        cancelled: Callable[[], bool],
        follow: bool = True,
    ) -> Iterator[OutputChunk]:
        """Output from the last `tail_lines` lines on (negative: from the beginning), then as it is written.

        Whole lines where a line fits into a chunk; ends when the logs are closed and all was given, or `cancelled`;
        without `follow` after what there is when this begins. Blocks between chunks; a new line waits at most 0.1 s.
        """
        logs = {name: log for name, log in self.logs.items() if stream in ("", name)}
        positions = {
            name: log.start if tail_lines < 0 else log.tail_position(tail_lines) for name, log in logs.items()
        }
        limits = {name: float("inf") if follow else log.end for name, log in logs.items()}
        while not cancelled():
            # Asked before reading: what is written before the close is never missed.
            closed = not follow or all(log.closed for log in logs.values())
            ends = {name: log.end for name, log in logs.items()}
            idle = True
            for name, log in logs.items():
                wanted = positions[name]
                found, data = log.read(wanted, int(min(CHUNK_LIMIT_BYTES - 1024, limits[name] - wanted)))
                data = data if closed else _whole_lines(data, CHUNK_LIMIT_BYTES - 1024)
                if data:
                    idle = False
                    positions[name] = found + len(data)
                    yield OutputChunk(
                        task=task, stream=name, data=data, dropped=found - wanted, incarnation=incarnation
                    )
            if idle and closed:
                return
            if idle:
                self._wait(ends, logs)

    def _wait(self, seen: Mapping[str, int], logs: Mapping[str, RotatedLog]) -> None:
        with self.changed:
            if any(log.closed or log.end > seen[name] for name, log in logs.items()):
                return
            changed = self.changed.wait(_IDLE_S)
        if changed:
            # Lines come in bursts; one chunk for many of them.
            time.sleep(_COALESCE_S)

    def finish(self, timeout_s: float) -> None:
        """Read what the pipes still hold, at most `timeout_s`, and close the logs: followers come to an end."""
        deadline = time.monotonic() + timeout_s
        for reader in self._readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        for each in self.logs.values():
            each.close()

    def close(self) -> None:
        """Close the files. May be called twice."""
        for each in self.logs.values():
            each.release()


def _whole_lines(data: bytes, limit: int) -> bytes:
    """Up to the last line end (or carriage return, for progress bars); a line longer than a chunk is split."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    return data if end == 0 and len(data) >= limit else data[:end]
