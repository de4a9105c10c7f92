"""Following a log that another process writes and rotates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tony.localcluster.daemons import last_lines

_POLL_S = 0.3
_READ_BYTES = 1024 * 1024


def follow(path: Path, lines: int, wait: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The last `lines` of a log, then every line as it is written; never ends by itself.

    Blocks in `wait` while nothing is written. A rotated log is read on from the start of the new file.
    """
    position = path.stat().st_size if path.exists() else 0
    yield from last_lines(path, lines)
    rest = b""
    while True:
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position, rest = 0, b""
        if size > position:
            with path.open("rb") as log:
                log.seek(position)
                fresh = log.read(_READ_BYTES)
            position += len(fresh)
            *whole, rest = (rest + fresh).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
        else:
            wait(_POLL_S)
