"""Archives whose bytes depend on nothing but their contents: same members, same bytes, same name, on any day.

A ``.tar.gz`` is written member by member in the order of names, with one time, owner and pair of modes for all,
hashed while it is written, and compressed by several threads (zlib lets them run side by side). Blocks have a
fixed size and carry the end of the block before as their dictionary, so the number of threads changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from tony.errors import PackagingError

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

FIXED_TIME_S = 315532800
"""Modification time of every member: 1980-01-01, the first that a zip can hold as well."""

_BLOCK_BYTES = 1024 * 1024
_DICTIONARY_BYTES = 32 * 1024
_RECORD_BYTES = 512
_PLAIN_SIZE_LIMIT = 8**11
_READ_BYTES = 1024 * 1024
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_DEFLATE_END = b"\x03\x00"


class Kind(Enum):
    """What an entry of an archive is, with the byte that tar writes for it."""

    FILE = b"0"
    LINK = b"2"
    FOLDER = b"5"


@dataclass(frozen=True)
class Member:
    """One thing to pack: contents from `source`, or `data` as given, or the `target` of a symbolic link.

    `start` replaces the first bytes of the source. `size`, in bytes, is for progress only.
    """

    name: str
    kind: Kind = Kind.FILE
    source: str | Path | None = None
    data: bytes = b""
    start: bytes = b""
    target: str = ""
    executable: bool = False
    size: int = 0


@dataclass(frozen=True)
class Archive:
    """A finished archive on this machine. `suffix` has its dot; `entries` is 0 where nobody counted."""

    path: Path
    sha256: str
    size: int
    suffix: str
    entries: int = 0

    @property
    def name(self) -> str:
        """The name by content: ``<sha256>.tar.gz``."""
        return self.sha256 + self.suffix


def existing_archive(path: Path) -> Archive:
    """An archive that somebody else made, hashed. Raises PackagingError when it cannot be read."""
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as source:
            while chunk := source.read(_READ_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise PackagingError(f"{path} cannot be read: {error.strerror or error}") from error
    return Archive(path, digest.hexdigest(), size, archive_suffix(path.name))


def archive_suffix(name: str) -> str:
    """``.tar.gz``, ``.zip``, ``.tar`` …, in lower case and with its dot; empty for a name without one."""
    lower = name.lower()
    for suffix, normal in ((".tar.gz", ".tar.gz"), (".tgz", ".tar.gz"), (".tar", ".tar"), (".zip", ".zip")):
        if lower.endswith(suffix):
            return normal
    return os.path.splitext(lower)[1]


def write_archive(
    members: Iterable[Member],
    into: Path,
    level: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Archive:
    """Pack the members into ``<into>/<sha256>.tar.gz`` and return it. Names must be unique.

    `level` 1 is the default because a slower one saves a fifth of the size for thrice the time.
    `progress` counts the bytes of contents. Raises PackagingError when a file cannot be read, changes while it
    is read, or the disk is full; a half-written archive is removed.
    """
    ordered = sorted(members, key=lambda member: os.fsencode(member.name))
    total = sum(member.size for member in ordered)
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = into / f".{secrets.token_hex(8)}.partial"
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            with _TarStream(_Gzip(out, level, threads or min(4, os.cpu_count() or 1))) as stream:
                done = 0
                for member in ordered:
                    done += stream.add(member)
                    if progress is not None:
                        progress(min(done, total), total)
            sha256, size = stream.finished
        archive = Archive(into / f"{sha256}.tar.gz", sha256, size, ".tar.gz", len(ordered))
        partial.replace(archive.path)
    except OSError as error:
        raise PackagingError(f"the archive could not be written below {into}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return archive


class _TarStream:
    """Members in, tar out, gathered to whole blocks."""

    def __init__(self, gzip: _Gzip) -> None:
        self._gzip = gzip
        self._pending = bytearray()
        self.finished = ("", 0)

    def __enter__(self) -> _TarStream:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._write(b"\0" * (2 * _RECORD_BYTES))
                self._gzip.block(bytes(self._pending))
                self.finished = self._gzip.finish()
        finally:
            self._gzip.close()

    def add(self, member: Member) -> int:
        """Write one member; returns the bytes of its contents."""
        if member.source is None:
            size = len(member.data) if member.kind is Kind.FILE else 0
            self._write(_header(member, size))
            self._write(member.data)
        else:
            size = self._add_file(member, member.source)
        self._write(b"\0" * (-size % _RECORD_BYTES))
        return size

    def _add_file(self, member: Member, source: str | Path) -> int:
        try:
            handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise PackagingError(f"{source} cannot be read: {error.strerror or error}") from error
        try:
            size = os.fstat(handle).st_size
            self._write(_header(member, size))
            left = size
            start = member.start
            while left and (chunk := os.read(handle, min(left, _READ_BYTES))):
                self._write(start + chunk[len(start) :] if start else chunk)
                left -= len(chunk)
                start = b""
        finally:
            os.close(handle)
        if left:
            raise PackagingError(
                f"{source} became shorter while it was packed", hint="Try again when it is finished."
            )
        return size

    def _write(self, piece: bytes) -> None:
        self._pending += piece
        while len(self._pending) >= _BLOCK_BYTES:
            self._gzip.block(bytes(memoryview(self._pending)[:_BLOCK_BYTES]))
            del self._pending[:_BLOCK_BYTES]


class _Gzip:
    """One gzip member made of blocks that are compressed side by side and written in order."""

    def __init__(self, out: BinaryIO, level: int, threads: int) -> None:
        self._out = out
        self._level = level
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pack")
        self._waiting: deque[Future[bytes]] = deque()
        self._most_waiting = 2 * threads + 2
        self._before = b""
        self._crc = 0
        self._length = 0
        self._digest = hashlib.sha256()
        self._size = 0
        self._emit(_GZIP_HEADER)

    def block(self, block: bytes) -> None:
        """Take the next block; waits when too many are on their way."""
        if not block:
            return
        self._crc = zlib.crc32(block, self._crc)
        self._length += len(block)
        self._waiting.append(self._pool.submit(_deflated, block, self._before, self._level))
        self._before = block[-_DICTIONARY_BYTES:]
        while len(self._waiting) > self._most_waiting:
            self._emit(self._waiting.popleft().result())

    def finish(self) -> tuple[str, int]:
        """Write what is left; returns the hash and the size of the whole file."""
        while self._waiting:
            self._emit(self._waiting.popleft().result())
        trailer = self._crc.to_bytes(4, "little") + (self._length & 0xFFFFFFFF).to_bytes(4, "little")
        self._emit(_DEFLATE_END + trailer)
        return self._digest.hexdigest(), self._size

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _emit(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += len(piece)
        self._out.write(piece)


def _deflated(block: bytes, before: bytes, level: int) -> bytes:
    """The block as raw deflate that continues after `before` and ends on a whole byte."""
    if before:
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    else:
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)


def _header(member: Member, size: int) -> bytes:
    """The tar header. Plain ones are put together here: tarfile's way costs more than reading a small file."""
    mode = 0o755 if member.executable or member.kind is Kind.FOLDER else 0o777 if member.kind is Kind.LINK else 0o644
    name = os.fsencode(member.name) + (b"/" if member.kind is Kind.FOLDER else b"")
    target = os.fsencode(member.target)
    if len(name) > 100 or len(target) > 100 or size >= _PLAIN_SIZE_LIMIT:
        info = tarfile.TarInfo(member.name)
        info.type, info.mode, info.size, info.mtime = member.kind.value, mode, size, FIXED_TIME_S
        info.linkname = member.target
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        b"%011o\0%011o\0" % (size, FIXED_TIME_S),
        b"        ",
        member.kind.value,
        target.ljust(100, b"\0"),
        b"ustar  \0".ljust(255, b"\0"),
    )
    header = b"".join(fields)
    # The sum of the bytes, far faster than by `sum`: adler32 counts modulo 65521, which no plain header reaches.
    total = (zlib.adler32(header) & 0xFFFF) - 1
    return header[:148] + b"%06o\0 " % total + header[156:]
