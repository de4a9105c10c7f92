"""Chunks of output to whole lines, each with the name of its task in front."""

from __future__ import annotations

from collections.abc import Iterator

from tony.text import safe

LONGEST = 64 * 1024
"""Bytes after which a line is cut, so that a task without line ends cannot fill our memory."""


class Lines:
    """Puts chunks together, task by task and stream by stream. `raw`: pass control characters on."""

    def __init__(self, raw: bool = False) -> None:
        self._raw = raw
        self._begun: dict[tuple[str, str], bytes] = {}

    def feed(self, task: str, stream: str, data: bytes, dropped: int = 0) -> Iterator[tuple[str, str, str]]:
        """Whole lines as (task, stream, text); what is dropped before the data is said in a line of its own."""
        key = (task, stream)
        if dropped:
            yield from self._flush(key)
            yield task, stream, f"... {dropped} bytes of output were dropped here ..."
        *whole, rest = (self._begun.pop(key, b"") + data).split(b"\n")
        for line in whole:
            yield task, stream, self._text(line)
        while len(rest) > LONGEST:
            yield task, stream, self._text(rest[:LONGEST])
            rest = rest[LONGEST:]
        if rest:
            self._begun[key] = rest

    def end(self) -> Iterator[tuple[str, str, str]]:
        """What is left without a line end."""
        for key in list(self._begun):
            yield from self._flush(key)

    def _flush(self, key: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
        rest = self._begun.pop(key, b"")
        if rest:
            yield *key, self._text(rest)

    def _text(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").removesuffix("\r")
        return text if self._raw else safe(text)


def prefixed(task: str, text: str) -> str:
    """``[worker:3] text``; every line of it, where it has several."""
    prefix = f"[{task}] "
    return prefix + text.replace("\n", "\n" + prefix)
