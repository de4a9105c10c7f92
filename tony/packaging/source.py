"""The source archive: the user's code, without what has no business on a cluster.

Left out silently: version control, caches, virtual environments. Left out with a warning: files that look like
secrets, and links that leave the folder. A ``.tonyignore`` in the folder and the job's own patterns are read
like ``.gitignore``; ``!name`` brings something back.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from tony.errors import PackagingError, Problem, UsageError
from tony.packaging.archive import Archive, Kind, Member, Progress, write_archive
from tony.packaging.tree import Node, NodeKind, link_inside, name_problem, quoted, walk
from tony.units import format_bytes

DEFAULT_LIMIT_BYTES = 1024**3
IGNORE_FILE = ".tonyignore"

_NOISE = (
    *(".git", ".hg", ".svn", "__pycache__", "*.py[co]", "node_modules", ".ipynb_checkpoints", ".DS_Store"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".eggs", ".venv", ".idea", ".vscode"),
)
_SECRETS = (
    *(".env", ".env.*", "!.env.example", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.keytab"),
    *("*.p12", "*.pfx", "*.jks", "*.kdbx", ".netrc", ".pypirc", ".ssh", ".aws", ".kube", ".gnupg", "*.ppk"),
    *("service-account*.json", "credentials.json", ".git-credentials", ".pgpass"),
)
_NARROWER = f"Exclude data with --exclude or {IGNORE_FILE}, name a smaller folder with --src, or raise the limit."
_MOST_NAMED = 20
_MOST_ENTRIES = 500_000


def pack_source(
    folder: Path,
    exclude: Sequence[str],
    into: Path,
    required: Sequence[str] = (),
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    progress: Progress | None = None,
) -> tuple[Archive, list[str]]:
    """Pack the folder below `into`; returns the archive and warnings for the user.

    `required`: relative paths, such as the script of the command, that must end up inside.
    Raises UsageError with all problems at once: names that no node could handle, too much in all, a required
    file that is missing or left out, a bad pattern. Raises PackagingError when something cannot be read.
    """
    selection = _Selection(folder, exclude)
    problems, members, sizes = list(selection.problems), [], Counter[str]()
    total = 0
    for node in selection.nodes():
        trouble = name_problem(node.name)
        if trouble is not None:
            problems.append(Problem("src", f"the name {quoted(node.name)} {trouble}", hint="Rename or exclude it."))
            continue
        member = selection.member(node)
        if member is not None:
            members.append(member)
            total += member.size
            sizes[node.name.partition("/")[0]] += member.size
        if len(members) > _MOST_ENTRIES:
            raise UsageError([Problem("src", f"{folder} holds more than {_MOST_ENTRIES} files", hint=_NARROWER)])
    problems += _missing(folder, members, required)
    if total > limit_bytes:
        largest = ", ".join(f"{quoted(name)} {format_bytes(size)}" for name, size in sizes.most_common(3))
        problems.append(
            Problem(
                "src",
                f"{folder} holds {format_bytes(total)}, more than the {format_bytes(limit_bytes)} allowed: {largest}",
                hint=_NARROWER,
            )
        )
    if problems:
        raise UsageError(_first(problems))
    return write_archive(members, into, progress=progress), selection.warnings()


_NARROWER = (
    f"Exclude data with --exclude or a {IGNORE_FILE} file, name a smaller folder with --src, or raise the limit."
)


class _Selection:
    """Which names of the folder are packed, and what the user should know about the others."""

    def __init__(self, folder: Path, exclude: Sequence[str]) -> None:
        self.problems: list[Problem] = []
        self._root = os.path.abspath(folder)
        self._secrets: list[str] = []
        self._links: list[str] = []
        self._specials: list[str] = []
        if not os.path.isdir(self._root):
            raise UsageError([Problem("src", f"{folder} is not a folder", value=str(folder))])
        own = self._lines(folder / IGNORE_FILE)
        chosen = [*own, *exclude]
        self._noise = GitIgnoreSpec.from_lines(_NOISE)
        self._secret = GitIgnoreSpec.from_lines(_SECRETS)
        self._chosen = GitIgnoreSpec(())
        try:
            self._chosen = GitIgnoreSpec.from_lines(chosen)
        except ValueError as error:
            self.problems.append(Problem("exclude", f"not a pattern: {error}"))

    def nodes(self) -> Iterator[Node]:
        """What is left of the folder."""
        return (node for node in walk(self._root, self._skip) if node.kind is not NodeKind.FOLDER)

    def member(self, node: Node) -> Member | None:
        """The node as it is packed; None when it cannot be."""
        if node.kind is NodeKind.FILE:
            return Member(node.name, Kind.FILE, node.path, executable=node.executable, size=node.size)
        if node.kind is NodeKind.EMPTY_FOLDER:
            return Member(node.name, Kind.FOLDER)
        if node.kind is NodeKind.LINK:
            target = link_inside(self._root, node.path)
            if target is not None:
                return Member(node.name, Kind.LINK, target=target)
            self._links.append(node.name)
        else:
            self._specials.append(node.name)
        return None

    def warnings(self) -> list[str]:
        """One sentence per kind of thing that was left out and might be missed."""
        told = (
            (self._secrets, "look like secrets and stay here", f"bring one back with !name in {IGNORE_FILE}"),
            (
                self._links,
                "are links that lead out of the folder or nowhere, and stay here",
                "copy what they point to",
            ),
            (self._specials, "are no regular files and stay here", ""),
        )
        return [
            f"{_named(names)} {what}" + (f" ({remedy})" if remedy else "") for names, what, remedy in told if names
        ]

    def _skip(self, name: str, is_folder: bool) -> bool:
        path = name + "/" if is_folder else name
        chosen = self._chosen.check_file(path).include
        if chosen is not None:
            return chosen
        if self._noise.match_file(path):
            return True
        if is_folder and os.path.exists(os.path.join(self._root, name, "pyvenv.cfg")):
            return True
        if self._secret.match_file(path):
            self._secrets.append(path)
            return True
        return False

    def _lines(self, path: Path) -> list[str]:
        try:
            return path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise PackagingError(f"{path} cannot be read: {error}") from error


def _missing(folder: Path, members: Sequence[Member], required: Sequence[str]) -> list[Problem]:
    inside = {member.name for member in members}
    problems = []
    for name in required:
        normal = os.path.normpath(name)
        if normal in inside:
            continue
        if (folder / name).exists():
            message, hint = f"{quoted(name)} is left out of the source archive", "An exclude pattern matches it."
        else:
            message, hint = (
                f"there is no {quoted(name)} in {folder}",
                "Check the path, or say --src.",
            )
        problems.append(Problem("command", message, value=name, hint=hint))
    return problems


def _first(problems: Sequence[Problem]) -> list[Problem]:
    if len(problems) <= _MOST_NAMED:
        return list(problems)
    return [*problems[:_MOST_NAMED], Problem("src", f"and {len(problems) - _MOST_NAMED} more problems")]


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
