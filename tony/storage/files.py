"""What a file system must do for us, and the values and errors that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tony.errors import PackagingError
from tony.units import format_bytes

CHUNK_BYTES = 1024 * 1024
UNFINISHED = ".partial"
"""How the names of half-written files end."""

_HALF_WRITTEN = re.compile(r"\.([^/]+)\.[0-9a-f]+\.partial$")

Chunks = Callable[[], Iterator[bytes]]
"""Starts the contents from the beginning, each time it is called."""


@dataclass(frozen=True)
class StoredFile:
    """One entry of a folder: size in bytes, times in seconds since the epoch (`used_at`: last known use)."""

    name: str
    size: int
    modified_at: float
    used_at: float
    folder: bool = False


class Files(Protocol):
    """What a file system must do, on absolute paths."""

    def read(self, path: str) -> Iterator[bytes]: ...
    def create(self, path: str, chunks: Chunks, size: int, replication: int | None) -> None: ...
    def status(self, path: str) -> StoredFile: ...
    def entries(self, path: str) -> list[StoredFile]: ...
    def make_folder(self, path: str, private: bool) -> None: ...
    def remove(self, path: str) -> None: ...
    def rename(self, source: str, target: str, overwrite: bool) -> None: ...
    def mark_used(self, path: str) -> None: ...
    def close(self) -> None: ...


def does_not_fit(path: str, need: int, why: str) -> PackagingError:
    return PackagingError(
        f"{meant(path)} does not fit: it needs {format_bytes(need)} ({why})",
        hint="Make room, ask for a larger quota, or remove unused archives with: tony gc",
    )


def meant(path: str) -> str:
    """The path that a half-written file will have, which is the one that people know."""
    return _HALF_WRITTEN.sub(r"\1", path)
