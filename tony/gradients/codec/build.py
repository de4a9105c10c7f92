"""Compile codec.c once per source and compiler into the user's cache, and load it.

Without a compiler, or when it fails, the reason is logged in one sentence and the caller uses numpy.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("codec.c")
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
COMPILE_TIMEOUT_S = 120.0


def compiler() -> list[str] | None:
    """The command of the C compiler: $CC, else cc, gcc or clang; None when there is none."""
    given = os.environ.get("CC", "").split()
    if given:
        return given if shutil.which(given[0]) else None
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return [path]
    return None


def cache_folder() -> Path:
    """Where compiled codecs are kept; the folder need not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "tony" / "codec"


def compile_to(target: Path, command: list[str], flags: tuple[str, ...] = FLAGS) -> None:
    """Compile codec.c into the shared library `target`, whole or not at all.

    Blocks for about two seconds. Raises OSError or subprocess.SubprocessError.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_abandoned(target.parent)
    descriptor, name = tempfile.mkstemp(prefix=target.stem, suffix=".partial", dir=target.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        subprocess.run(
            [*command, *flags, "-o", str(partial), str(SOURCE)],
            check=True,
            timeout=COMPILE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        partial.chmod(0o700)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what compilations left that were killed: no compilation takes longer than its limit."""
    oldest = time.time() - 2 * COMPILE_TIMEOUT_S
    for partial in folder.glob("codec-*.partial"):
        with contextlib.suppress(OSError):  # another process may be doing the same
            if partial.stat().st_mtime < oldest:
                partial.unlink()


def load() -> ctypes.CDLL | None:
    """The codec's library, compiled if it is not in the cache; None, with the reason logged, if that fails."""
    command = compiler()
    if command is None:
        log.info("no C compiler was found: gradients are quantized by numpy, which is 10 to 30 times slower")
        return None
    try:
        version = subprocess.run(
            [*command, "--version"], check=True, timeout=30, stdin=subprocess.DEVNULL, capture_output=True
        ).stdout
        identity = b"\0".join([SOURCE.read_bytes(), version, " ".join(FLAGS).encode(), platform.machine().encode()])
        name = f"codec-{hashlib.sha256(identity).hexdigest()[:20]}.so"
        try:
            return _load_from(cache_folder() / name, command)
        except OSError:
            with tempfile.TemporaryDirectory(prefix="tony-codec-") as folder:
                return _load_from(Path(folder) / name, command)
    except subprocess.CalledProcessError as error:
        reason = str(error.stderr).strip().splitlines()[-1:] or [str(error)]
        log.warning("the gradient codec does not compile (%s): numpy is used, 10 to 30 times slower", reason[0])
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the gradient codec cannot be built (%s): numpy is used, 10 to 30 times slower", error)
    return None


def _load_from(path: Path, command: list[str]) -> ctypes.CDLL:
    """Load the library, after compiling it if it is missing or could have been put there by another user."""
    if not _is_ours(path):
        path.unlink(missing_ok=True)
        compile_to(path, command)
    return ctypes.CDLL(str(path))


def _is_ours(path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
