"""The only place that writes: results to stdout for programs, everything for people to stderr.

Text from elsewhere (names, log lines, diagnostics) passes through `text.safe`, so that no terminal obeys it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, TextIO

_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2"}


class ReaderGone(Exception):
    """Whoever read our output has gone, as ``head`` does; nothing is wrong here."""


class Output:
    """Where a command's words go. `json`: stdout carries documents only.

    `goes_on`: the command has more to do than to be read, so that it does not end when nobody reads it any more.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out
        self._err = err
        self.json = False
        self.goes_on = False
        self.quiet = False
        self.verbose = False
        self.color: bool | None = None
        self._bar = False

    @property
    def out(self) -> TextIO:
        """Standard output, looked up late so that tests may replace it."""
        return self._out or sys.stdout

    @property
    def err(self) -> TextIO:
        """Standard error."""
        return self._err or sys.stderr

    @property
    def width(self) -> int:
        """Columns to use; 80 where there is no terminal."""
        return shutil.get_terminal_size((80, 24)).columns if self.err.isatty() else 80

    def colored(self, stream: TextIO) -> bool:
        """Whether that stream gets colours."""
        if self.color is not None:
            return self.color
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def style(self, text: str, name: str, stream: TextIO | None = None) -> str:
        """The text in that style, where the stream (default: stderr) shows colours."""
        return f"\x1b[{_STYLES[name]}m{text}\x1b[0m" if self.colored(stream or self.err) else text

    def say(self, text: str = "") -> None:
        """A line for people, unless --quiet."""
        if not self.quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """A line for people, even with --quiet: errors, and how a job ended."""
        self._end_bar()
        self._write(self.err, text + "\n")

    def data(self, text: str) -> None:
        """A line of the result. With --json it goes to stderr, because stdout carries documents."""
        self._end_bar()
        self._write(self.err if self.json else self.out, text + "\n")

    def document(self, value: Any, lines: bool = False) -> None:
        """A JSON document on stdout; `lines`: one of many, compact."""
        text = json.dumps(value, ensure_ascii=True, indent=None if lines or not self.out.isatty() else 2)
        self._write(self.out, text + "\n")

    def bar(self, step: str, done: int, total: int, unit: str = "") -> None:
        """Draw a progress line on a terminal; `bar_done` or the next line ends it."""
        if self.quiet or self.json or not self.err.isatty():
            return
        cells = 24
        full = cells * done // total if total else 0
        text = f"{step:<28} [{'#' * full}{'.' * (cells - full)}] {unit}"
        self._write(self.err, "\r\x1b[K" + text[: self.width - 1])
        self._bar = True

    def _end_bar(self) -> None:
        if self._bar:
            self._bar = False
            self._write(self.err, "\r\x1b[K")

    def bar_done(self) -> None:
        """Wipe the progress line."""
        self._end_bar()

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            _write(stream, text)
        except (ReaderGone, OSError):
            if not self.goes_on:
                raise
            # Nobody reads it any more, or a disk is full.
            mute(stream)


def mute(stream: TextIO) -> None:
    """What is still buffered, and whatever comes, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _write(stream: TextIO, text: str) -> None:
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError as error:
        # Not an OSError any more: click would take that for its own business.
        raise ReaderGone from error
