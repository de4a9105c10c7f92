"""Sizes and durations as people write them: ``4g``, ``512m``, ``5m``, ``1h30m``."""

from __future__ import annotations

import re

_MEMORY_MB = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.IGNORECASE)

MAX_MEMORY_MB = 1024 * 1024 * 1024
MAX_DURATION_S = 10 * 365 * 86400.0


def parse_memory_mb(text: str) -> int:
    """Mebibytes of a size like ``4g``, ``512m``, ``1.5 GiB``; fractions round up. Raises ValueError."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size. Write a number and a unit, like 4g or 4096m.")
    megabytes = float(match[1]) * _MEMORY_MB[match[2].lower()]
    whole = int(-(-megabytes // 1))
    if not 1 <= whole <= MAX_MEMORY_MB:
        raise ValueError("not a possible size: it must lie between 1m and 1024t.")
    return whole


def format_memory(memory_mb: int) -> str:
    """``4096`` → ``4g``, ``1536`` → ``1536m``: the shortest exact form that `parse_memory_mb` reads back."""
    if memory_mb >= 1024 and memory_mb % 1024 == 0:
        return f"{memory_mb // 1024}g"
    return f"{memory_mb}m"


def parse_duration_s(text: str) -> float:
    """Seconds of a duration like ``30s``, ``5m``, ``1h30m``, ``250ms``. Raises ValueError."""
    compact = text.strip().replace(" ", "")
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts).lower() != compact.lower():
        raise ValueError("not a duration. Write a number and a unit, like 30s, 5m or 1h30m.")
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if seconds > MAX_DURATION_S:
        raise ValueError("not a possible duration: it must be under ten years.")
    return seconds


def format_duration(seconds: float) -> str:
    """A duration for people, two parts at most: ``0.4s``, ``12s``, ``3m12s``, ``2h05m``, ``3d04h``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 10:
        text = f"{seconds:.1f}s"
        return text.replace(".0s", "s")
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, second = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{second:02d}s" if second else f"{minutes}m"
    hours, minute = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minute:02d}m" if minute else f"{hours}h"
    days, hour = divmod(hours, 24)
    return f"{days}d{hour:02d}h" if hour else f"{days}d"


def format_bytes(count: int) -> str:
    """A number of bytes for people: ``812 B``, ``1.4 MB`` (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    units = ["kB", "MB", "GB", "TB"]
    value /= 1000
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.1f} {units[0]}" if value < 10 else f"{value:.0f} {units[0]}"
