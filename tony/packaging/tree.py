"""A folder of this machine, walked once: what is in it, never following a symbolic link, in a fixed order."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from tony.errors import PackagingError

_MAX_DEPTH = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class NodeKind(Enum):
    """What a name in a folder stands for."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"
    EMPTY_FOLDER = "empty folder"
    SPECIAL = "special"
    """A device, a FIFO or a socket."""


@dataclass(frozen=True, slots=True)
class Node:
    """One name below the root, ``/``-separated, with what `lstat` says."""

    name: str
    path: str
    kind: NodeKind
    size: int
    mtime_ns: int
    inode: int
    executable: bool


def walk(root: str, skip: Callable[[str, bool], bool] | None = None) -> Iterator[Node]:
    """Everything below `root`, folders before what is in them, names in byte order.

    `skip(name, is_folder)` leaves an entry out; a skipped folder is not read. Raises PackagingError for a folder
    that cannot be read and for one nested deeper than any real one.
    """
    yield from _walk(root, "", skip, 0)


def _walk(folder: str, prefix: str, skip: Callable[[str, bool], bool] | None, depth: int) -> Iterator[Node]:
    if depth > _MAX_DEPTH:
        raise PackagingError(f"{folder!r} is nested more than {_MAX_DEPTH} folders deep")
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise PackagingError(f"{folder!r} cannot be read: {error.strerror or error}") from error
    for entry in entries:
        name = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if skip is not None and skip(name, is_folder):
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        kind = _kind(found.st_mode)
        node = Node(
            name,
            entry.path,
            kind,
            found.st_size,
            found.st_mtime_ns,
            found.st_ino,
            bool(found.st_mode & stat.S_IXUSR),
        )
        if not is_folder:
            yield node
            continue
        inside = _walk(entry.path, name + "/", skip, depth + 1)
        first = next(inside, None)
        if first is None:
            yield Node(name, entry.path, NodeKind.EMPTY_FOLDER, 0, found.st_mtime_ns, found.st_ino, True)
            continue
        yield Node(name, entry.path, NodeKind.FOLDER, 0, found.st_mtime_ns, found.st_ino, True)
        yield first
        yield from inside


def _kind(mode: int) -> NodeKind:
    if stat.S_ISREG(mode):
        return NodeKind.FILE
    if stat.S_ISLNK(mode):
        return NodeKind.LINK
    return NodeKind.FOLDER if stat.S_ISDIR(mode) else NodeKind.SPECIAL


def link_inside(root: str, path: str) -> str | None:
    """The target of the symbolic link `path` as a relative path, when all of it lies below `root`; else None.

    A link to nothing counts as outside: it would mean nothing, or something else, on another machine.
    """
    real_root = os.path.realpath(root)
    real = os.path.realpath(path)
    if not real.startswith(real_root + os.sep) or not os.path.lexists(real):
        return None
    target = os.readlink(path)
    if not os.path.isabs(target):
        inside = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), target))
        if (inside + os.sep).startswith(os.path.abspath(root) + os.sep):
            return target
    return os.path.relpath(real, os.path.realpath(os.path.dirname(path)))


def name_problem(name: str) -> str | None:
    """Why a file of this name could not be handled safely on a node; None when it can."""
    try:
        size = len(name) if name.isascii() else len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if _CONTROL.search(name):
        return "holds control characters"
    if size > 255 and any(len(part.encode("utf-8")) > 255 for part in name.split("/")):
        return "is longer than 255 bytes"
    return None


def quoted(name: str, limit: int = 100) -> str:
    """A foreign name as one safe, printable, short word of a message."""
    text = repr(name)
    return text if len(text) <= limit else f"{text[: limit - 20]}…{text[-15:]}"


def site_packages(environment: str) -> list[str]:
    """The ``lib/python3.*/site-packages`` folders of an environment, relative to it, newest Python first."""
    try:
        names = [entry.name for entry in os.scandir(os.path.join(environment, "lib")) if not entry.is_symlink()]
    except OSError:
        return []
    minors = [(int(name[8:]), name) for name in names if name.startswith("python3.") and name[8:].isdigit()]
    found = [f"lib/{name}/site-packages" for _, name in sorted(minors, reverse=True)]
    return [folder for folder in found if os.path.isdir(os.path.join(environment, folder))]
