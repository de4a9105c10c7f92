"""Archives built before, found again by a key of what they were built from, so that nothing is packed twice.

A folder of ``<sha256>.tar.gz`` files and an index beside them. All of it may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tony.packaging.archive import Archive

_INDEX = "index"
_KEPT_S = 30 * 86400.0
_MOST_BYTES = 20 * 1000**3
# An archive may be on its way to the cluster; what was used within the hour is left alone.
_IN_USE_S = 3600.0
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z.]+")


@dataclass(frozen=True)
class Remembered:
    """An archive of the folder, and a number that its builder wanted to know again."""

    archive: Archive
    note: int = 0


class BuiltArchives:
    """The built archives below one folder. Safe against other processes: files appear whole, by renaming."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = folder / _INDEX

    def find(self, key: str) -> Remembered | None:
        """The archive built for the key, if it is still there; marks it as used now."""
        entry = self._index / f"{key}.json"
        try:
            known = json.loads(entry.read_text("utf-8"))
            name, size = str(known["name"]), int(known["size"])
            path = self._folder / name
            if _NAME.fullmatch(name) is None or path.stat().st_size != size:
                return None
            for used in (entry, path):
                os.utime(used)
            sha256, _, suffix = name.partition(".")
            return Remembered(Archive(path, sha256, size, f".{suffix}", int(known["entries"])), int(known["note"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, key: str, archive: Archive, note: int = 0) -> None:
        """Keep the archive, which lies in the folder, under the key; makes room by removing old ones."""
        self._index.mkdir(parents=True, exist_ok=True, mode=0o700)
        entry = {"name": archive.name, "size": archive.size, "entries": archive.entries, "note": note}
        partial = self._index / f".{key}.{os.getpid()}.partial"
        partial.write_text(json.dumps(entry), "utf-8")
        partial.replace(self._index / f"{key}.json")
        self._make_room(archive)

    def _make_room(self, newest: Archive) -> None:
        now = time.time()
        aged = []
        for path in [*self._folder.iterdir(), *self._index.iterdir()]:
            with suppress(OSError):
                found = path.stat()
                if path.is_file():
                    aged.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in aged)
        for used_at, size, path in sorted(aged):
            too_old = now - used_at > _KEPT_S
            if path == newest.path or now - used_at < _IN_USE_S or not (too_old or total > _MOST_BYTES):
                continue
            with suppress(OSError):
                path.unlink()
                total -= size
