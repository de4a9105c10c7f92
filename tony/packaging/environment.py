"""The environment archive: a virtual environment, packed so that it runs in another folder of another machine.

The interpreter itself is not packed: ``bin/python`` stays a link to it, and nodes must have it at that path.
Scripts are rewritten to find the Python beside them; activation scripts are left out; the code of editable
installations comes along. Compiled files are packed where they match their source, with the archive's time of
the source written into them, because Python ignores them otherwise and nodes may not write their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

import tony
from tony.errors import PackagingError, Problem, UsageError
from tony.packaging.archive import FIXED_TIME_S, Archive, Kind, Member, Progress, write_archive
from tony.packaging.built import BuiltArchives
from tony.packaging.editable import Editables, find_editables
from tony.packaging.environment_report import EnvironmentReport, inspect_environment
from tony.packaging.safety import INTERPRETER_LINK
from tony.packaging.scripts import ACTIVATION, relocatable
from tony.packaging.tree import Node, NodeKind, link_inside, name_problem, quoted, site_packages, walk

__all__ = ["EnvironmentReport", "inspect_environment", "pack_environment"]

_FORMAT = 1
_COMPILED = re.compile(r"(?P<folder>(?:.*/)?)__pycache__/(?P<module>[^/]+)\.(?P<tag>cpython-3\d+)\.pyc")
_COMPILED_HEADER_BYTES = 16
_HASH_BASED = 1
_MOST_SCRIPT_BYTES = 1024 * 1024
_KEPT_SETTINGS = ("home", "include-system-site-packages", "version", "version_info", "implementation")
# An archive of a cached environment is built again when this many compiled files more than then are there now.
_MORE_COMPILED = (1.5, 300)


def pack_environment(
    folder: Path, into: Path, progress: Progress | None = None, exclude: Sequence[str] = ()
) -> Archive:
    """Pack a virtual environment below `into`; one that has not changed is found there, by looking at every
    file's size and times, without reading any.

    `exclude`: gitignore patterns, such as ``**/tensorflow/include``. Raises UsageError with all that cannot be
    packed: editable packages of an unknown style, folders linked in from elsewhere, unusable names. Raises
    PackagingError when something cannot be read.
    """
    plan = _EnvironmentPlan(folder, exclude)
    key = plan.key()
    built = BuiltArchives(into)
    known = built.find(key)
    factor, more = _MORE_COMPILED
    if known is not None and plan.compiled <= known.note * factor + more:
        return known.archive
    members = list(plan.members())
    if plan.problems:
        raise UsageError(plan.problems)
    archive = write_archive(members, into, progress=progress)
    built.remember(key, archive, note=plan.compiled)
    return archive


class _EnvironmentPlan:
    """One walk through the environment, and what it means for each name."""

    def __init__(self, folder: Path, exclude: Sequence[str]) -> None:
        self._root = os.path.abspath(folder)
        self.problems: list[Problem] = []
        self._exclude = GitIgnoreSpec.from_lines(exclude)
        self._patterns = tuple(exclude)
        if not os.path.isfile(os.path.join(self._root, "pyvenv.cfg")):
            raise UsageError([Problem("venv", f"{folder} is no virtual environment: it has no pyvenv.cfg")])
        sites = site_packages(self._root)
        self._site = sites[0] if sites else ""
        self._tag = "cpython-" + self._site.split("/")[1][6:].replace(".", "") if sites else ""
        self._editables = (
            find_editables(Path(self._root, self._site), Path(self._root)) if self._site else Editables()
        )
        self.problems += self._editables.problems
        self._nodes = [node for node in walk(self._root, self._skip) if node.kind is not NodeKind.FOLDER]
        self._editable_nodes = list(self._walk_editables())
        self.compiled = sum(node.name.endswith(".pyc") for node in self._nodes)

    def key(self) -> str:
        """A digest of everything that the archive depends on, except compiled files: running the environment's
        programs on this machine makes new ones, and must not make a new archive."""
        digest = hashlib.sha256(json.dumps([_FORMAT, tony.__version__, self._root, self._patterns]).encode())
        for node in (*self._nodes, *self._editable_nodes):
            if not node.name.endswith(".pyc"):
                line = f"{node.name}\0{node.kind.value}\0{node.size}\0{node.mtime_ns}\0{node.inode}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return "environment-" + digest.hexdigest()

    def members(self) -> Iterator[Member]:
        """What is packed; adds to `problems` what cannot be."""
        sources = {node.name: node for node in self._nodes if node.name.endswith(".py")}
        for node in self._nodes:
            trouble = name_problem(node.name)
            if trouble is not None:
                self._problem(f"the name {quoted(node.name)} {trouble}", "Remove the package that it belongs to.")
                continue
            member = self._compiled(node, sources) if node.name.endswith(".pyc") else self._member(node)
            if member is not None:
                yield member
        for node in self._editable_nodes:
            yield Member(node.name, Kind.FILE, node.path, executable=node.executable, size=node.size)

    def _skip(self, name: str, is_folder: bool) -> bool:
        if ACTIVATION.fullmatch(name) or (self._patterns and self._exclude.match_file(name + "/" * is_folder)):
            return True
        return name.startswith(self._site + "/") and name[len(self._site) + 1 :] in self._editables.dropped

    def _member(self, node: Node) -> Member | None:
        if node.kind is NodeKind.LINK:
            return self._link(node)
        if node.kind is NodeKind.EMPTY_FOLDER:
            return Member(node.name, Kind.FOLDER)
        if node.kind is NodeKind.SPECIAL:
            return None
        data = self._changed(node)
        if data is not None:
            return Member(node.name, Kind.FILE, data=data, executable=node.executable, size=len(data))
        return Member(node.name, Kind.FILE, node.path, executable=node.executable, size=node.size)

    def _changed(self, node: Node) -> bytes | None:
        """New contents of the few files that name this machine; None for all others."""
        if node.name == "pyvenv.cfg":
            return self._settings(node)
        if node.name.startswith("bin/") and node.size <= _MOST_SCRIPT_BYTES:
            try:
                with open(node.path, "rb") as source:
                    start = source.read(2)
                    return relocatable(start + source.read()) if start == b"#!" else None
            except OSError as error:
                raise PackagingError(f"{node.path} cannot be read: {error.strerror or error}") from error
        folder, _, name = node.name.rpartition("/")
        if folder == self._site and name in self._editables.rewritten:
            return self._editables.rewritten[name].encode()
        return None

    def _settings(self, node: Node) -> bytes:
        """pyvenv.cfg without the lines that say where and how the environment was made."""
        lines = Path(node.path).read_text("utf-8", "replace").splitlines()
        kept = [line for line in lines if line.partition("=")[0].strip() in _KEPT_SETTINGS]
        return "".join(f"{line}\n" for line in kept).encode()

    def _link(self, node: Node) -> Member | None:
        inside = link_inside(self._root, node.path)
        if inside is not None:
            return Member(node.name, Kind.LINK, target=inside)
        if INTERPRETER_LINK.fullmatch(node.name):
            return Member(node.name, Kind.LINK, target=self._interpreter(node))
        if os.path.isfile(node.path):
            # Some installers link every file to a cache of theirs; nodes do not have it.
            real = os.path.realpath(node.path)
            found = os.stat(real)
            return Member(node.name, Kind.FILE, real, executable=bool(found.st_mode & 0o100), size=found.st_size)
        if os.path.isdir(node.path):
            self._problem(
                f"{quoted(node.name)} is a link to {quoted(os.path.realpath(node.path))}, outside of the environment",
                "Copy the folder into the environment, or remove the link.",
            )
        return None

    def _interpreter(self, node: Node) -> str:
        """The link's target: its neighbour in ``bin``, or absolute, and then with the version of the interpreter."""
        target = os.readlink(node.path)
        if "/" not in target:
            return target
        target = os.path.normpath(os.path.join(os.path.dirname(node.path), target))
        return target if re.search(r"python3\.\d+$", target) else os.path.realpath(node.path)

    def _compiled(self, node: Node, sources: dict[str, Node]) -> Member | None:
        """A compiled file that is valid for its source, changed so that it is valid on a node; None for others."""
        match = _COMPILED.fullmatch(node.name)
        if match is None or match["tag"] != self._tag or node.kind is not NodeKind.FILE:
            return None
        source = sources.get(f"{match['folder']}{match['module']}.py")
        try:
            with open(node.path, "rb") as compiled:
                header = compiled.read(_COMPILED_HEADER_BYTES)
        except OSError:
            return None
        if source is None or len(header) < _COMPILED_HEADER_BYTES:
            return None
        start = b""
        if not int.from_bytes(header[4:8], "little") & _HASH_BASED:
            wanted = (source.mtime_ns // 1_000_000_000) & 0xFFFFFFFF, source.size & 0xFFFFFFFF
            if (int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")) != wanted:
                return None
            start = header[:8] + FIXED_TIME_S.to_bytes(4, "little") + header[12:]
        return Member(node.name, Kind.FILE, node.path, start=start, size=node.size)

    def _walk_editables(self) -> Iterator[Node]:
        def skip(name: str, is_folder: bool) -> bool:
            last = name.rpartition("/")[2]
            return last in ("__pycache__", ".git", "node_modules") or last.endswith(".pyc")

        for package, path in sorted(self._editables.sources.items()):
            place = f"{self._site}/{package}"
            if path.is_file():
                found = path.stat()
                yield Node(
                    f"{place}.py", str(path), NodeKind.FILE, found.st_size, found.st_mtime_ns, found.st_ino, False
                )
                continue
            for node in walk(str(path), skip):
                if node.kind is NodeKind.FILE and name_problem(node.name) is None:
                    name = f"{place}/{node.name}"
                    yield Node(name, node.path, node.kind, node.size, node.mtime_ns, node.inode, node.executable)

    def _problem(self, message: str, hint: str) -> None:
        self.problems.append(Problem("venv", message, hint=hint))
