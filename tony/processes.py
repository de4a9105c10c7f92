"""Telling a process from a later one with the same number."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> str | None:
    """When the kernel started that process, in its own ticks; None when it is gone or a zombie."""
    try:
        # The command name, in parentheses, may itself hold blanks and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
