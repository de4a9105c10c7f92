"""What a user process finds when it starts: its folder, its files, its Python. Prepared once per container."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from executor import launch
from tony.protocol.messages import Archive, Workspace
from tony.state import Reason

PROBE_S = 60.0
"""How long an interpreter may take for ``import sys``: a cold disk is slow, but a hang is one."""

_PLACEHOLDER = "{environment}"

log = logging.getLogger(__name__)


class WorkspaceError(Exception):
    """Why the user process cannot be started here."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class PreparedWorkspace:
    """`work` is the user's working directory; `python` the argv prefix of the user's interpreter (may be empty);
    `environment` the unpacked environment, if one travelled with the job; `library` holds the ``tony`` package only.
    """

    work: Path
    python: tuple[str, ...]
    environment: Path | None
    library: Path
    home: Path

    @property
    def python_folder(self) -> Path | None:
        """The folder of the interpreter, for PATH."""
        return Path(self.python[0]).parent if self.python and Path(self.python[0]).is_absolute() else None

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command with its first word made runnable: a ``.py`` file gets the interpreter in front."""
        first, *rest = command
        if first.startswith(_PLACEHOLDER) and self.environment is not None:
            first = str(self.environment) + first[len(_PLACEHOLDER) :]
        if first.endswith(".py") and self.python:
            return [*self.python, first, *rest]
        return [first, *rest]


@dataclass(frozen=True)
class Prepared:
    """The workspace stands."""

    workspace: PreparedWorkspace


@dataclass(frozen=True)
class NotPrepared:
    """It cannot be prepared, and why."""

    error: WorkspaceError


def prepare(workspace: Workspace, folder: Path, cache: Path, variables: Mapping[str, str]) -> PreparedWorkspace:
    """Unpack and place everything below the container's `folder`. Blocks, possibly for minutes.

    The environment is unpacked once per node, into `cache`.
    Raises WorkspaceError (ARTIFACT_CHANGED, BAD_ARCHIVE, BAD_ENV, DISK_FULL).
    """
    began = time.monotonic()
    work = folder / "work"
    try:
        work.mkdir(exist_ok=True)
        environment = _environment(workspace, folder, cache)
        if workspace.HasField("source") and workspace.source.name:
            _unpack(folder, workspace.source, work)
        for archive in workspace.files:
            _place(folder, archive, work)
        library, home = folder / ".tony" / "library", folder / ".tony" / "home"
        home.mkdir(parents=True, exist_ok=True)
        _offer_library(library)
    except launch.ArchiveError as error:
        raise WorkspaceError(Reason.BAD_ARCHIVE, str(error)) from None
    except TimeoutError as error:
        raise WorkspaceError(Reason.BAD_ENV, str(error)) from None
    except OSError as error:
        raise _disk(error, folder) from None
    python = _python(workspace.user_python, environment)
    if python:
        _probe_once(python, environment, variables)
    log.info("workspace prepared in %.2f s", time.monotonic() - began)
    return PreparedWorkspace(work, python, environment, library, home)


def _environment(workspace: Workspace, folder: Path, cache: Path) -> Path | None:
    if not workspace.HasField("environment") or not workspace.environment.name:
        return None
    archive = workspace.environment
    path = _present(folder, archive)
    key = archive.sha256 or launch.file_sha256(path)
    return launch.unpack_once(path, key, cache, sha256=archive.sha256)


def _present(folder: Path, archive: Archive) -> Path:
    path = folder / PurePosixPath(archive.name).name
    if not path.is_file():
        said = f"{archive.name} is not in the container: {path.resolve()} was removed after the submit."
        raise WorkspaceError(Reason.ARTIFACT_CHANGED, said)
    size = path.stat().st_size
    if archive.size and size != archive.size:
        raise launch.ArchiveError(f"{archive.name} has {size} bytes instead of {archive.size}.")
    return path


def _unpack(folder: Path, archive: Archive, into: Path) -> None:
    """By way of a folder beside it: a bad archive leaves nothing, and nothing is written through what is there."""
    partial = folder / ".tony" / "unpacking"
    launch.remove_tree(partial)
    partial.mkdir(parents=True)
    try:
        launch.extract(_present(folder, archive), partial, archive.sha256)
        _merge(partial, into)
    finally:
        launch.remove_tree(partial)


def _merge(source: Path, into: Path) -> None:
    """Move everything below `source` to the same place below `into`; files that are there are replaced."""
    into.mkdir(parents=True, exist_ok=True)
    for entry in launch.entries(source):
        target = into / entry.name
        if entry.is_dir(follow_symlinks=False) and target.is_dir() and not target.is_symlink():
            _merge(Path(entry.path), target)
        else:
            launch.remove_tree(target)
            os.rename(entry.path, target)


def _place(folder: Path, archive: Archive, work: Path) -> None:
    """A file, or an archive to be unpacked, at its target below the working directory."""
    relative = PurePosixPath(archive.target or archive.name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise launch.ArchiveError(f"{archive.name} has a target outside of the working directory: {archive.target}.")
    target = work / relative
    if work.resolve() not in (target.parent.resolve(), *target.parent.resolve().parents):
        raise launch.ArchiveError(f"{archive.name} would be placed through a link that leads out: {archive.target}.")
    if archive.unpack:
        _unpack(folder, archive, target)
        return
    source = _present(folder, archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    launch.remove_tree(target)
    # A copy: the localised file is shared by all containers of the node, and users write into theirs.
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        for block in iter(lambda: reader.read(1 << 20), b""):
            digest.update(block)
            writer.write(block)
    if archive.sha256 and digest.hexdigest() != archive.sha256:
        raise launch.ArchiveError(f"{archive.name} is damaged or was changed: its SHA-256 is {digest.hexdigest()}.")
    target.chmod(source.stat().st_mode & 0o777 | 0o600)


def _offer_library(library: Path) -> None:
    """A folder that holds the ``tony`` package and nothing else, wherever that came from."""
    import tony

    library.mkdir(parents=True, exist_ok=True)
    link = library / "tony"
    if not link.is_symlink():
        link.symlink_to(Path(tony.__file__).resolve().parent)


def _python(prefix: str, environment: Path | None) -> tuple[str, ...]:
    words = shlex.split(prefix)
    if any(_PLACEHOLDER in word for word in words) and environment is None:
        raise WorkspaceError(Reason.BAD_ENV, f"{prefix} needs an environment archive, and the job has none.")
    return tuple(word.replace(_PLACEHOLDER, str(environment)) for word in words)


def _probe_once(python: Sequence[str], environment: Path | None, variables: Mapping[str, str]) -> None:
    """Once per unpacked environment and node; an interpreter of the node is asked each time."""
    marker = environment.with_name(environment.name + ".runs") if environment is not None else None
    # An environment that was removed and unpacked again is a new one.
    if marker and environment and marker.exists() and marker.stat().st_mtime >= environment.stat().st_ctime:
        return
    probe(python, variables)
    if marker is not None:
        try:
            marker.touch()
        except OSError as error:
            log.warning("cannot remember that the environment runs: %s", error)


def probe(python: Sequence[str], variables: Mapping[str, str], timeout_s: float = PROBE_S) -> None:
    """Raises WorkspaceError(BAD_ENV) with one line of explanation unless the interpreter can ``import sys``."""
    clean = {name: value for name, value in variables.items() if not name.startswith(("PYTHON", "TONY_"))}
    command = [*python, "-c", "import sys"]
    try:
        done = subprocess.run(
            command,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise WorkspaceError(Reason.BAD_ENV, f"{python[0]} gave no sign of life in {timeout_s:.0f} s.") from None
    except OSError as error:
        why = "does not exist on this node" if error.errno == errno.ENOENT else os.strerror(error.errno or 0)
        if Path(python[0]).is_symlink():
            why += f" (it is a link to {Path(python[0]).readlink()})"
        raise WorkspaceError(Reason.BAD_ENV, f"The Python interpreter {python[0]} {why}.") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        said = lines[0].strip()[:300] if lines else "no message"
        raise WorkspaceError(Reason.BAD_ENV, f"{python[0]} does not run on this node ({done.returncode}): {said}")


def _disk(error: OSError, folder: Path) -> WorkspaceError:
    where = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free_mb = shutil.disk_usage(folder).free // 1024**2
        return WorkspaceError(Reason.DISK_FULL, f"The disk of {where} is full ({free_mb} MB free).")
    return WorkspaceError(Reason.BAD_ARCHIVE, f"{where}: {error.strerror or error}.")
