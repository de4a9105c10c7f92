"""The one file that runs on a node before anything of ours is unpacked: ``<python> -I launch.py appmaster|executor``.

Standard library only, and syntax of Python 3.8, so that an interpreter that is too old gets a sentence and not a
SyntaxError. It unpacks the runtime bundle once per node, puts it on `sys.path` and runs the named package.
`unpack_once` is also what unpacks the user's environment.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Mapping  # noqa: UP035

PYTHON_MIN = (3, 10)
EXIT_UNUSABLE = 78
"""This interpreter, or the bundle for it, cannot run here; trying again on the same node will not help."""

WAIT_S = 900.0
"""How long a process waits for another one that unpacks the same archive."""
CACHE_LIMIT_BYTES = 20 * 1000**3
UNUSED_S = 3600.0
"""What was used within this time is never removed from the cache."""

_POLL_S = 0.05
_ENTRIES_LIMIT = 5_000_000
_RATIO_LIMIT = 200
_RATIO_FREE_BYTES = 256 * 1024**2
_CONTENT_NAME = re.compile(r"([0-9a-f]{64})(?:\.|$)")
_INTERPRETER = re.compile(r"python(?:3(?:\.\d{1,2})?)?")
_INTERPRETER_LINK = re.compile(r"(?:[^/]+/)?bin/" + _INTERPRETER.pattern)

# Open files whose shared locks say that this process uses what it unpacked; the system drops them when we end.
_in_use: dict[str, int] = {}


class ArchiveError(Exception):
    """An archive that cannot be unpacked, or must not be. The text is one sentence for people."""


class LaunchError(Exception):
    """Why nothing can be started here. The text is one sentence for people."""


def main(argv: list[str]) -> int:
    """Run ``appmaster`` or ``executor``; returns or raises SystemExit with its exit code. Prints only to stderr."""
    if len(argv) != 2 or argv[1] not in ("appmaster", "executor"):
        return _fail("usage: tony-launch.py appmaster|executor")
    try:
        if sys.version_info < PYTHON_MIN:
            wanted = ".".join(str(part) for part in PYTHON_MIN)
            raise LaunchError(
                "{} is Python {}; TonY needs {} or newer on nodes. Set `node_python` to another interpreter.".format(
                    sys.executable, ".".join(str(part) for part in sys.version_info[:3]), wanted
                )
            )
        path = runtime_path()
    except (LaunchError, ArchiveError, OSError) as error:
        return _fail(str(error))
    sys.path[:0] = path
    sys.argv = [argv[1]]
    import runpy

    try:
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    except ImportError as error:
        return _fail(f"TonY's own packages do not load with {sys.executable} here: {error}")
    return 0


def _fail(sentence: str) -> int:
    sys.stderr.write("tony: " + sentence + "\n")
    return EXIT_UNUSABLE


def runtime_path() -> list[str]:
    """The folders that hold our packages, unpacked first if need be. Raises LaunchError, ArchiveError, OSError."""
    given = os.environ.get("TONY_RUNTIME_PATH")
    if given:
        return given.split(os.pathsep)
    name = os.environ.get("TONY_RUNTIME")
    if not name:
        raise LaunchError("neither TONY_RUNTIME nor TONY_RUNTIME_PATH says where TonY's packages are.")
    archive = Path(name)
    if not archive.is_file():
        raise LaunchError(f"the runtime bundle {name} is not in {Path.cwd()}.")
    sha256 = content_name(archive) or file_sha256(archive)
    bundle = unpack_once(archive, sha256, node_cache(os.environ), sha256=sha256)
    check_bundle(bundle)
    return [str(bundle / "lib"), str(bundle / "user")]


def check_bundle(bundle: Path) -> None:
    """Raises LaunchError when the bundle was built for another Python than the running one."""
    try:
        built_for = json.loads((bundle / "BUNDLE").read_text())["python"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LaunchError(f"the runtime bundle has no readable BUNDLE file ({error}).") from None
    here = "{}.{}".format(*sys.version_info[:2])
    if built_for != here:
        raise LaunchError(
            f"the runtime bundle was built for Python {built_for}, but {sys.executable} is Python {here}. "
            f"Set `node_python` to an interpreter of {built_for}, or run: tony runtime build --python {here}"
        )


def node_cache(environment: Mapping[str, str]) -> Path:
    """The folder that keeps what was unpacked on this node, made if need be. Raises OSError if none can be."""
    candidates = []
    if environment.get("TONY_NODE_CACHE"):
        candidates.append(Path(environment["TONY_NODE_CACHE"]))
    # In a Docker container the user's folder is a stub of the image's; the application's is the node's own.
    in_docker = environment.get("YARN_CONTAINER_RUNTIME_TYPE") == "docker"
    for variable in ("LOCAL_DIRS",) if in_docker else ("LOCAL_USER_DIRS", "LOCAL_DIRS"):
        candidates += [Path(part) / "tony" for part in environment.get(variable, "").split(",") if part]
    candidates.append(Path.cwd() / ".tony-cache")
    for candidate in candidates:
        try:
            candidate.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A folder that somebody else prepared in our place is not trusted with code that we run.
            if candidate.stat().st_uid == os.geteuid() and os.access(str(candidate), os.W_OK | os.X_OK):
                return candidate
        except OSError:
            continue
    raise OSError(errno.EACCES, "no folder of this node can be written: " + ", ".join(map(str, candidates)))


def content_name(archive: Path) -> str | None:
    """The SHA-256 that a file of our storage carries as its name, seen through the links of a container."""
    match = _CONTENT_NAME.match(archive.resolve().name)
    return match.group(1) if match else None


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content. Blocks while it reads."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def unpack_once(
    archive: Path,
    key: str,
    cache: Path,
    sha256: str = "",
    wait_s: float = WAIT_S,
    limit_bytes: int = CACHE_LIMIT_BYTES,
) -> Path:
    """The folder ``cache/key`` with the archive's content, unpacked by whichever process of the node comes first.

    Others wait, at most `wait_s` seconds. An unpacker that dies leaves nothing that counts: the content appears by
    a rename, and only a marker beside it says that it is whole. `sha256` is compared by the one that unpacks. The
    folder stays, protected by a shared lock, at least as long as this process lives; it must not be written into.
    Raises ArchiveError for a bad archive, TimeoutError, and OSError (ENOSPC: the disk is full).
    """
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z", key):
        raise ValueError(f"not a name for a folder: {key!r}")
    folder = cache / key
    marker = cache / (key + ".complete")
    lock = os.open(str(cache / (key + ".lock")), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _wait_for_turn(lock, marker, folder, time.monotonic() + wait_s):
            _remove_leftovers(cache, key)
            size = _unpack_under_lock(archive, folder, sha256, lock)
            marker.write_text(json.dumps({"bytes": size}))
            fcntl.flock(lock, fcntl.LOCK_SH)
            _make_room(cache, limit_bytes)
        else:
            os.utime(str(marker))
    except BaseException:
        os.close(lock)
        raise
    previous = _in_use.pop(str(folder), None)
    if previous is not None:
        os.close(previous)
    _in_use[str(folder)] = lock
    return folder


def _wait_for_turn(lock: int, marker: Path, folder: Path, deadline: float) -> bool:
    """Hold the lock: shared when the content is there (False), alone when it is ours to unpack (True)."""
    while True:
        if _try_lock(lock, fcntl.LOCK_SH) and marker.exists() and folder.is_dir():
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
        if _try_lock(lock, fcntl.LOCK_EX):
            if not (marker.exists() and folder.is_dir()):
                return True
            continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"another process of this node unpacks {folder.name} and does not get done.")
        time.sleep(_POLL_S)


def _try_lock(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _remove_leftovers(cache: Path, key: str) -> None:
    remove_tree(cache / key)
    for partial in cache.glob(key + ".partial-*"):
        remove_tree(partial)


def _unpack_under_lock(archive: Path, folder: Path, sha256: str, lock: int) -> int:
    partial = folder.parent / f"{folder.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(mode=0o700)
        size = extract(archive, partial, sha256, keep_open=(lock,))
        partial.rename(folder)
    except BaseException:
        remove_tree(partial)
        raise
    return size


def _make_room(cache: Path, limit_bytes: int) -> None:
    """Remove what was unused longest until the cache is within its limit; never what is new or in use."""
    entries = []
    for marker in cache.glob("*.complete"):
        try:
            entries.append((marker.stat().st_mtime, int(json.loads(marker.read_text())["bytes"]), marker))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    total = sum(size for _, size, _ in entries)
    for used_at, size, marker in sorted(entries, key=lambda entry: entry[0]):
        if total <= limit_bytes or time.time() - used_at < UNUSED_S:
            return
        key = marker.name[: -len(".complete")]
        lock = os.open(str(cache / (key + ".lock")), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Lock files stay: removing one while another process opens it would let two of them in.
            if _try_lock(lock, fcntl.LOCK_EX):
                marker.unlink()
                remove_tree(cache / key)
                total -= size
        except OSError:
            continue
        finally:
            os.close(lock)


def extract(
    archive: Path,
    into: Path,
    sha256: str = "",
    keep_open: tuple[int, ...] = (),
) -> int:
    """Unpack a zip or (compressed) tar archive into the empty folder `into`; returns the bytes it takes there.

    Refused: names that are absolute or climb out, links that lead out of `into`, devices and pipes; set-user-id bits
    are dropped. Raises ArchiveError for those and for a broken archive, OSError for the disk. On error, `into` may
    hold a part. `keep_open` are descriptors that a helper process shall hold while it writes.
    """
    try:
        with archive.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ArchiveError(f"{archive.name} cannot be read: {error.strerror}.") from None
    if start[:2] == b"PK":
        _compare(archive, sha256, file_sha256(archive) if sha256 else "")
        _extract_zip(archive, into)
    elif shutil.which("tar"):
        _extract_with_tar(archive, into, sha256, keep_open)
    else:
        _compare(archive, sha256, file_sha256(archive) if sha256 else "")
        _extract_tar(archive, into)
    return _inspect_tree(archive, into)


def _compare(archive: Path, wanted: str, found: str) -> None:
    if wanted != found:
        raise ArchiveError(
            f"{archive.name} is damaged or was changed: "
            f"{archive.stat().st_size} bytes with SHA-256 {found}, expected {wanted}."
        )


def _extract_with_tar(archive: Path, into: Path, sha256: str, keep_open: tuple[int, ...]) -> None:
    """GNU tar and its kin refuse ``..`` and never write through a link that leads out."""
    command = ["tar", "-xf", str(archive.resolve()), "-C", str(into), "--no-same-owner"]
    environment = dict(os.environ, LC_ALL="C")
    environment.pop("TAR_OPTIONS", None)
    found = []
    # The digest is computed beside tar, from the pages that it reads anyway.
    hashing = threading.Thread(target=lambda: found.append(file_sha256(archive)), daemon=True)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        # Should we be killed, tar goes on writing: it must go on holding the lock too.
        pass_fds=keep_open,
    )
    try:
        if sha256:
            hashing.start()
        said = process.communicate()[1].decode(errors="replace")
    except BaseException:
        process.kill()
        process.wait()
        raise
    if sha256:
        hashing.join()
        _compare(archive, sha256, found[0] if found else "")
    if process.returncode != 0:
        lines = [line for line in said.splitlines() if line.strip()]
        if any("No space left" in line or "Disk quota" in line for line in lines):
            raise OSError(errno.ENOSPC, f"no space left to unpack {archive.name}", str(into))
        reason = lines[0] if lines else f"tar ended with {process.returncode}"
        raise ArchiveError("{} cannot be unpacked: {}.".format(archive.name, reason[:300].rstrip(".")))


def _extract_tar(archive: Path, into: Path) -> None:
    """For nodes and images without ``tar``."""
    try:
        with tarfile.open(str(archive)) as tar:
            for count, member in enumerate(tar):
                _check_name(archive, member.name)
                if count > _ENTRIES_LIMIT:
                    raise ArchiveError(f"{archive.name} has too many entries.")
                if member.issym():
                    _check_link(archive, member.name, member.linkname)
                elif member.islnk():
                    _check_name(archive, member.linkname)
                elif not (member.isfile() or member.isdir()):
                    raise ArchiveError(f"{archive.name} holds a device or a pipe: {_shown(member.name)}.")
                member.mode = (member.mode or 0) & 0o777 | (0o700 if member.isdir() else 0)
                _check_parents(archive, into, member.name)
                tar.extract(member, str(into), set_attrs=not (member.issym() or member.islnk()))
    except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        raise _broken(archive, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _broken(archive, error) from None


def _extract_zip(archive: Path, into: Path) -> None:
    """Python's `extractall` forgets links and modes, which a virtual environment needs."""
    try:
        with zipfile.ZipFile(str(archive)) as file:
            members = file.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > _ENTRIES_LIMIT or total > archive.stat().st_size * _RATIO_LIMIT + _RATIO_FREE_BYTES:
                raise ArchiveError(f"{archive.name} would grow to {total} bytes and is refused.")
            links = []
            for member in members:
                _check_name(archive, member.filename)
                mode = member.external_attr >> 16
                if stat.S_ISLNK(mode):
                    links.append(member)
                elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"{archive.name} holds a device or a pipe: {_shown(member.filename)}.")
                else:
                    _extract_zip_member(file, member, into, mode)
            # Links come last, so that nothing is written through one of them.
            for member in links:
                target = file.read(member).decode("utf-8", "surrogateescape")
                _check_link(archive, member.filename, target)
                path = into / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                os.symlink(target, str(path))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        raise _broken(archive, error) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _broken(archive, error) from None


def _broken(archive: Path, error: Exception) -> ArchiveError:
    lines = str(error).splitlines() or [type(error).__name__]
    return ArchiveError("{} cannot be unpacked: {}.".format(archive.name, lines[0].rstrip(".:")))


def _extract_zip_member(file: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path, mode: int) -> None:
    path = into / member.filename
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with file.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    if mode & 0o777:
        path.chmod(mode & 0o777 | 0o400)


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ArchiveError(f"{archive.name} holds a name that leads out of it: {_shown(name)}.")


def _check_link(archive: Path, name: str, target: str) -> None:
    """One link may lead out: a virtual environment's to the interpreter that the node has."""
    if _INTERPRETER_LINK.fullmatch(os.path.normpath(name)) and _INTERPRETER.fullmatch(os.path.basename(target)):
        return
    inside = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if os.path.isabs(target) or inside == ".." or inside.startswith("../"):
        raise ArchiveError(f"{archive.name} holds a link that leads out of it: {_shown(name)} -> {_shown(target)}.")


def _check_parents(archive: Path, into: Path, name: str) -> None:
    """No part of the way to `name` may be a link that was unpacked before."""
    path = into
    for part in PurePosixPath(name).parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise ArchiveError(f"{archive.name} writes through a link: {_shown(name)}.")


def _inspect_tree(archive: Path, root: Path) -> int:
    """Bytes below `root`. Raises ArchiveError for what must not be there, whoever unpacked it."""
    total = 0
    waiting = [str(root)]
    while waiting:
        for entry in entries(waiting.pop()):
            status = entry.stat(follow_symlinks=False)
            relative = os.path.relpath(entry.path, str(root))
            if stat.S_ISLNK(status.st_mode):
                _check_link(archive, relative, os.readlink(entry.path))
            elif stat.S_ISDIR(status.st_mode):
                waiting.append(entry.path)
            elif not stat.S_ISREG(status.st_mode):
                raise ArchiveError(f"{archive.name} holds a device or a pipe: {_shown(relative)}.")
            elif status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(entry.path, status.st_mode & 0o777)
            total += status.st_blocks * 512
    return total


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, taken at once, so that it may be changed meanwhile."""
    with os.scandir(str(folder)) as found:
        return list(found)


def _shown(name: str) -> str:
    return ascii(name)[:200]


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, read-only parts too. Missing is fine. Raises OSError."""

    def writable_then_again(function: object, name: str, _: object) -> None:
        os.chmod(os.path.dirname(name), 0o700)
        if os.path.isdir(name) and not os.path.islink(name):
            os.chmod(name, 0o700)
            shutil.rmtree(name)
        else:
            os.unlink(name)

    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(str(path), onerror=writable_then_again)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
