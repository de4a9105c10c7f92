"""Text from elsewhere (names, log lines, diagnostics) for people's eyes."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def safe(text: str) -> str:
    """The text without anything that a terminal would obey: colours are dropped, other control characters shown.

    Tabs and line ends stay. Of a line that overwrites itself (progress bars), the last state is kept.
    """
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if "\x08" in text:
        text = text.replace("\x08", "")
    if "\r" in text:
        text = "\n".join(_last_state(line) for line in text.split("\n"))
    return _UNSAFE.sub(_shown, text)


def _last_state(line: str) -> str:
    states = [state for state in line.split("\r") if state]
    return states[-1] if states else ""


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
