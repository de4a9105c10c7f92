"""Whether an archive can be unpacked safely: inside one folder, without surprise. All problems are told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tony.errors import Problem
from tony.packaging.inspection import Contents, Entry, EntryKind, Limits, read_archive
from tony.packaging.tree import name_problem, quoted

INTERPRETER_LINK = re.compile(r"(?:[^/]+/)?bin/python(?:3(?:\.\d{1,2})?)?")
"""The links of a virtual environment that must lead out of it: to the interpreter that the nodes have."""

_MOST_NAMED = 20
_MOST_HOPS = 40
_SETUID = 0o6000


@dataclass(frozen=True)
class Inspection:
    """What was found in an archive. Without problems it may be sent to nodes and unpacked there."""

    contents: Contents
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def inspect_archive(
    path: Path,
    key: str = "files",
    limits: Limits | None = None,
    environment: bool = False,
    wanted: Callable[[str], int] = lambda name: 0,
) -> Inspection:
    """Look through a .zip, .tar.gz or .tar of somebody else's making; nothing is unpacked. Blocks while it reads.

    `key` names the setting in problems; `environment` allows ``bin/python`` to lead out; `wanted` as in
    `read_archive`. Raises PackagingError when the file cannot be read or is no archive.
    """
    contents = read_archive(path, limits, wanted)
    check = _Check(environment)
    for entry in contents.entries:
        check.entry(entry)
    check.links()
    problems = [Problem(key, f"{path.name} {text}", value=str(path)) for text in check.problems[:_MOST_NAMED]]
    if len(check.problems) > _MOST_NAMED:
        problems.append(Problem(key, f"{path.name} has {len(check.problems) - _MOST_NAMED} more problems"))
    if contents.broken is not None:
        problems.insert(0, Problem(key, f"{path.name} {contents.broken}", value=str(path)))
    return Inspection(contents, tuple(problems), tuple(f"{path.name} {text}" for text in check.warnings()))


class _Check:
    """Goes through entries one by one and remembers what later ones must be compared with."""

    def __init__(self, environment: bool) -> None:
        self.problems: list[str] = []
        self._environment = environment
        self._seen: dict[str, Entry] = {}
        self._folded: dict[str, str] = {}
        self._clashes: list[tuple[str, str]] = []
        self._setuid: list[str] = []
        self._repeated: list[str] = []
        self._links: dict[tuple[str, ...], Entry] = {}

    def entry(self, entry: Entry) -> None:
        """Note what is wrong with the entry itself and with its place among the earlier ones."""
        parts = _parts(entry.name)
        if not parts:
            if entry.kind is not EntryKind.FOLDER:
                self._problem(entry, "has no name")
            return
        trouble = name_problem(entry.name)
        if trouble is not None:
            self._problem(entry, f"has a name that {trouble}")
        if entry.name.startswith("/"):
            self._problem(entry, "has an absolute name")
        if ".." in parts or "\\" in entry.name and ".." in entry.name.split("\\"):
            self._problem(entry, "climbs out with ..")
        if entry.kind is EntryKind.SPECIAL:
            self._problem(entry, "is a device, a FIFO or a socket")
        if entry.mode & _SETUID and entry.kind is EntryKind.FILE:
            self._setuid.append(entry.name)
        self._place(entry, parts)

    def links(self) -> None:
        """Follow every link through all the others: none may end outside."""
        for parts, entry in self._links.items():
            if self._environment and INTERPRETER_LINK.fullmatch("/".join(parts)):
                continue
            if entry.target.startswith("/") or not self._inside(parts[:-1], _raw_parts(entry.target)):
                self._problem(entry, f"is a link that leads out of the archive, to {quoted(entry.target)}")

    def warnings(self) -> list[str]:
        """What is allowed and might still surprise."""
        told = []
        if self._setuid:
            told.append(f"has set-user-id files, which become ordinary ones: {_named(self._setuid)}")
        if self._clashes:
            pairs = [f"{first} and {second}" for first, second in self._clashes]
            told.append(f"has names that differ only in case: {_named(pairs)}")
        if self._repeated:
            told.append(f"holds the same entry twice: {_named(self._repeated)}")
        return told

    def _place(self, entry: Entry, parts: Sequence[str]) -> None:
        name = "/".join(parts)
        for depth in range(1, len(parts)):
            above = self._seen.get("/".join(parts[:depth]))
            if above is not None and above.kind is not EntryKind.FOLDER:
                self._problem(entry, f"lies behind {quoted(above.name)}, which is a {above.kind.value}")
                break
        before = self._seen.get(name)
        if before is not None and not (before.kind is entry.kind is EntryKind.FOLDER):
            # Old packers write a file twice; the same contents twice do no harm.
            if before.kind is entry.kind and before.crc and (before.crc, before.size) == (entry.crc, entry.size):
                self._repeated.append(name)
            else:
                self._problem(entry, "is there twice, with different contents")
        other = self._folded.setdefault(name.casefold(), name)
        if other != name:
            self._clashes.append((other, name))
        if entry.kind is EntryKind.LINK:
            self._links[tuple(parts)] = entry
        elif entry.kind is EntryKind.HARD_LINK:
            first = self._seen.get("/".join(_parts(entry.target)))
            if ".." in _raw_parts(entry.target) or entry.target.startswith("/"):
                self._problem(entry, f"is a hard link that leads out of the archive, to {quoted(entry.target)}")
            elif first is None or first.kind not in (EntryKind.FILE, EntryKind.HARD_LINK):
                self._problem(entry, f"is a hard link to {quoted(entry.target)}, which is no file before it")
        self._seen[name] = entry

    def _inside(self, folder: Sequence[str], target: Sequence[str]) -> bool:
        """Whether the target, walked as a kernel walks it, stays inside. A loop leads nowhere, so it stays."""
        at, waiting, hops = list(folder), list(target), 0
        while waiting:
            part = waiting.pop(0)
            if part == "..":
                if not at:
                    return False
                at.pop()
                continue
            at.append(part)
            link = self._links.get(tuple(at))
            if link is not None:
                hops += 1
                if hops > _MOST_HOPS:
                    return True
                if link.target.startswith("/"):
                    # Told for that link itself; a way through the interpreter's link is none of ours.
                    return bool(self._environment and INTERPRETER_LINK.fullmatch("/".join(at)) and not waiting)
                at.pop()
                waiting[:0] = _raw_parts(link.target)
        return True

    def _problem(self, entry: Entry, what: str) -> None:
        self.problems.append(f"holds {quoted(entry.name)}, which {what}")


def _raw_parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _parts(name: str) -> list[str]:
    return _raw_parts(name.rstrip("/"))


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
