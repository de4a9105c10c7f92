"""What is in an archive that somebody else made, and whether a node may unpack it. Nothing is ever written.

Reading stops at the first limit, so a bomb costs a bounded time and no disk. Every problem is reported, each
with the entry's name quoted so that it stays one printable word of one line.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO, cast

from tony.errors import PackagingError
from tony.packaging.archive import archive_suffix
from tony.units import format_bytes


class EntryKind(Enum):
    """What an entry would become on disk."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "symbolic link"
    HARD_LINK = "hard link"
    SPECIAL = "device or FIFO"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as stored: `target` of links, `head` the first bytes of the files that were asked for."""

    name: str
    kind: EntryKind
    size: int = 0
    mode: int = 0o644
    target: str = ""
    crc: int = 0
    head: bytes = b""


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to. The ratio counts only above `free_bytes`: a small file of zeros is fine."""

    entries: int = 1_000_000
    bytes: int = 64 * 1024**3
    ratio: int = 200
    free_bytes: int = 256 * 1024**2


@dataclass
class Contents:
    """The entries of one archive, and why reading it ended early, if it did."""

    suffix: str
    entries: list[Entry] = field(default_factory=list)
    broken: str | None = None


# One read may not be larger: tarfile reads the longest of headers whole.
_MOST_AT_ONCE = 16 * 1024 * 1024
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP_ENTRY_BYTES = 46


def read_archive(path: Path, limits: Limits | None = None, wanted: Callable[[str], int] = lambda name: 0) -> Contents:
    """Read what the archive holds: its directory if it is a zip, all of it if it is a tar.

    `wanted(name)` says how many first bytes of a file are kept. Raises PackagingError when the file cannot be
    read, or is no .zip, .tar.gz, .tgz or .tar. A damaged archive is told in `broken`.
    """
    bounds = limits or Limits()
    try:
        with path.open("rb") as source:
            contents = Contents(_kind(path, source.read(512)))
            source.seek(0)
            entries = (_zip_entries if contents.suffix == ".zip" else _tar_entries)(source, path, bounds, wanted)
            total = 0
            try:
                for entry in entries:
                    contents.entries.append(entry)
                    total += entry.size
                    _within(bounds, len(contents.entries), total, path.stat().st_size)
            except _Broken as broken:
                contents.broken = str(broken)
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
                contents.broken = f"is damaged: {error}"
            except (UnicodeDecodeError, ValueError, struct.error, NotImplementedError, RuntimeError) as error:
                contents.broken = f"cannot be read: {error}"
    except OSError as error:
        raise PackagingError(f"{path} cannot be read: {error.strerror or error}") from error
    return contents


class _Broken(Exception):
    """Why reading stops here."""


def _kind(path: Path, start: bytes) -> str:
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ".zip"
    if start[:2] == b"\x1f\x8b":
        return ".tar.gz"
    if start[257:262] == b"ustar":
        return ".tar"
    named = archive_suffix(path.name) or "a file without an ending"
    raise PackagingError(
        f"{path} ({named}) is no archive that nodes unpack", hint="Use .tar.gz or .zip; tony pack makes one."
    )


def _within(limits: Limits, entries: int, total: int, packed: int) -> None:
    if entries > limits.entries:
        raise _Broken(f"holds more than {limits.entries} entries")
    if total > limits.bytes:
        raise _Broken(f"unpacks to more than {format_bytes(limits.bytes)}")
    if total > limits.free_bytes and total > packed * limits.ratio:
        raise _Broken(f"unpacks to more than {limits.ratio} times its size ({format_bytes(total)} and more)")


def _zip_entries(source: BinaryIO, path: Path, limits: Limits, wanted: Callable[[str], int]) -> Iterator[Entry]:
    count = _zip_count(source, path)
    if count > limits.entries:
        raise _Broken(f"holds more than {limits.entries} entries")
    with zipfile.ZipFile(source) as archive:
        infos = archive.infolist()
        _refuse_overlaps(infos, archive.start_dir)
        for info in infos:
            mode = info.external_attr >> 16
            shape = stat.S_IFMT(mode)
            name = info.orig_filename
            head, target, kind = b"", "", EntryKind.FILE
            if shape == stat.S_IFLNK:
                kind = EntryKind.LINK
                target = os.fsdecode(_zip_head(archive, info, 4096))
            elif info.is_dir() or shape == stat.S_IFDIR:
                kind = EntryKind.FOLDER
            elif shape not in (0, stat.S_IFREG):
                kind = EntryKind.SPECIAL
            elif wanted(name):
                head = _zip_head(archive, info, wanted(name))
            yield Entry(name, kind, info.file_size, stat.S_IMODE(mode), target, info.CRC, head)


def _zip_count(source: BinaryIO, path: Path) -> int:
    """The number of entries that the end of the file promises, before anything of that size is built."""
    size = path.stat().st_size
    source.seek(max(0, size - 65557))
    tail = source.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _ZIP_END.size:
        raise _Broken("is damaged: it lacks its directory")
    _, _, _, _, count, directory, _, _ = _ZIP_END.unpack_from(tail, at)
    at64 = tail.rfind(b"PK\x06\x06", 0, at)
    if at64 >= 0 and len(tail) - at64 >= _ZIP64_END.size:
        values = _ZIP64_END.unpack_from(tail, at64)
        count, directory = max(count, values[7]), max(directory if directory != 0xFFFFFFFF else 0, values[8])
    source.seek(0)
    # The count may lie; the directory's own size cannot be smaller than its entries.
    return int(max(count, directory // (_ZIP_ENTRY_BYTES * 40)))


def _refuse_overlaps(infos: list[zipfile.ZipInfo], end: int) -> None:
    """Entries that share their bytes are how a small zip unpacks to anything at all."""
    before = 0
    for info in sorted(infos, key=lambda each: each.header_offset):
        if info.header_offset < before:
            raise _Broken("holds entries that overlap")
        before = info.header_offset + 30 + info.compress_size
    if before > end:
        raise _Broken("holds entries that reach into its directory")


def _zip_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.flag_bits & 0x1:
        raise _Broken("is encrypted")
    with archive.open(info) as inside:
        return inside.read(limit)


def _tar_entries(source: BinaryIO, path: Path, limits: Limits, wanted: Callable[[str], int]) -> Iterator[Entry]:
    packed = path.stat().st_size
    plain: BinaryIO = source
    if _kind(path, source.read(512)) == ".tar.gz":
        source.seek(0)
        plain = cast(BinaryIO, gzip.GzipFile(fileobj=source))
    else:
        source.seek(0)
    stream = _Forward(plain, limits, packed)
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (info := archive.next()) is not None:
            # What was read is forgotten, or a million entries would be kept twice.
            archive.__dict__["members"] = []
            head = b""
            if info.isreg() and wanted(info.name):
                # Contents lie right behind the header, where the stream stands now.
                head = stream.peek(info.offset_data, min(wanted(info.name), info.size))
            yield Entry(info.name, _tar_kind(info), info.size, stat.S_IMODE(info.mode), info.linkname, 0, head)
    if stream.rest_holds_more():
        raise _Broken("goes on behind its end, which programs read differently")


def _tar_kind(info: tarfile.TarInfo) -> EntryKind:
    if info.isdir():
        return EntryKind.FOLDER
    if info.issym():
        return EntryKind.LINK
    if info.islnk():
        return EntryKind.HARD_LINK
    return EntryKind.FILE if info.isreg() else EntryKind.SPECIAL


class _Forward(io.RawIOBase):
    """A stream that only goes forward, as far as the limits allow, and never hands out much at once."""

    def __init__(self, plain: BinaryIO, limits: Limits, packed: int) -> None:
        self._plain = plain
        self._limits = limits
        self._packed = packed
        self._at = 0
        self._ahead = b""
        self._ahead_at = 0

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < self._at:
            raise _Broken("is damaged: its headers lead backwards")
        while self._at < offset and self.read(min(offset - self._at, 1024 * 1024)):
            pass
        return self._at

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _MOST_AT_ONCE:
            raise _Broken(f"holds a header of more than {format_bytes(_MOST_AT_ONCE)}")
        if self._ahead:
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            if len(piece) < size:
                piece += self._plain.read(size - len(piece))
        else:
            piece = self._plain.read(size)
        self._at += len(piece)
        _within(self._limits, 0, self._at, self._packed)
        return piece

    def peek(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, without going past them."""
        self.seek(offset)
        if len(self._ahead) < size:
            self._ahead += self._plain.read(size - len(self._ahead))
        return self._ahead[:size]

    def rest_holds_more(self) -> bool:
        """Whether anything but zeros follows."""
        while piece := self.read(1024 * 1024):
            if piece.strip(b"\0"):
                return True
        return False
