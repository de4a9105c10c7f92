"""Archives on the cluster's storage, by content: ``cache/<sha256>.<ext>``, uploaded once and never overwritten."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from tony.errors import PackagingError
from tony.packaging.archive import Archive, Progress
from tony.spec import Upload
from tony.storage import Storage

CACHE_FOLDER = "cache"

# A half-written upload older than this has nobody who will finish it.
_ABANDONED_S = 24 * 3600.0


@dataclass(frozen=True)
class Collected:
    """What `collect` removed."""

    archives: int
    bytes: int


class ArchiveCache:
    """The archives of one user below the storage's base. Any number of clients may use it at once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, archive: Archive, name: str | None = None) -> Upload | None:
        """The archive as it lies on the storage, marked as used now; None when it is not there whole.

        `name`: what containers shall call it (default: its name by content).
        """
        path = _path(archive)
        found = self._storage.status(path)
        if found is None or found.size != archive.size:
            return None
        self._storage.mark_used(path)
        return Upload(name or archive.name, self._storage.url(path), archive.sha256, archive.size)

    def put(
        self,
        archive: Archive,
        name: str | None = None,
        progress: Progress | None = None,
        replication: int | None = None,
    ) -> tuple[Upload, int]:
        """Upload the archive unless it is there; returns it and the bytes that this call has brought there.

        Two clients that put the same archive at once both succeed. Raises PackagingError when the storage holds
        something else under the name, and what `Storage.upload` raises.
        """
        known = self.find(archive, name)
        if known is not None:
            return known, 0
        path, sent = _path(archive), archive.size
        try:
            self._storage.upload(archive.path, path, progress, replication)
        except FileExistsError:
            # Somebody was quicker, and must see that we need it, too. Whether it is whole is looked at below.
            self._storage.mark_used(path)
            sent = 0
        stored = self._storage.size(path)
        if stored != archive.size:
            raise PackagingError(
                f"{self._storage.url(path)} holds {stored} bytes where {archive.size} belong",
                hint="Remove it, then submit again; running jobs may be using it.",
            )
        return Upload(name or archive.name, self._storage.url(path), archive.sha256, archive.size), sent

    def take_back(self, upload: Upload) -> None:
        """Remove what `put` has brought there, unless somebody has found it meanwhile: their job needs it."""
        found = self._storage.status(upload.url)
        if found is not None and found.used_at <= found.modified_at:
            self._storage.remove(upload.url)

    def collect(self, older_than_s: float, keep: Collection[str] = ()) -> Collected:
        """Remove archives that no submit has used for so long, but none whose hash is in `keep`.

        Half-written uploads of a day ago go too.
        """
        now = time.time()
        archives = size = 0
        for entry in self._storage.entries(CACHE_FOLDER):
            unfinished = entry.name.startswith(".")
            limit_s = _ABANDONED_S if unfinished else older_than_s
            if entry.folder or entry.name.partition(".")[0] in keep or now - entry.used_at < limit_s:
                continue
            self._storage.remove(f"{CACHE_FOLDER}/{entry.name}")
            archives += not unfinished
            size += entry.size
        return Collected(archives, size)


def _path(archive: Archive) -> str:
    return f"{CACHE_FOLDER}/{archive.name}"
