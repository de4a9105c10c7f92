"""This machine's disk, for the local back-end and tests."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tony.errors import NotPermitted
from tony.storage.files import CHUNK_BYTES, Chunks, StoredFile, does_not_fit, meant


class LocalFiles:
    """This machine's disk. Not synced to the platter: what it serves, jobs of one machine, dies with a crash."""

    def __init__(self, user: str) -> None:
        self._user = user

    def read(self, path: str) -> Iterator[bytes]:
        try:
            with Path(path).open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            self._translate(error, path)

    def create(self, path: str, chunks: Chunks, size: int, replication: int | None) -> None:
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                for chunk in chunks():
                    out.write(chunk)
        except OSError as error:
            self._translate(error, path, size)

    def status(self, path: str) -> StoredFile:
        try:
            found = os.stat(path)
        except OSError as error:
            self._translate(error, path)
        name = path.rpartition("/")[2]
        used_at = max(found.st_atime, found.st_mtime)
        return StoredFile(name, found.st_size, found.st_mtime, used_at, stat.S_ISDIR(found.st_mode))

    def entries(self, path: str) -> list[StoredFile]:
        try:
            names = os.listdir(path)
        except OSError as error:
            self._translate(error, path)
        found = []
        for name in names:
            with suppress(FileNotFoundError):
                found.append(self.status(f"{path.rstrip('/')}/{name}"))
        return found

    def make_folder(self, path: str, private: bool) -> None:
        missing = []
        folder = Path(path)
        while not folder.is_dir() and folder != folder.parent:
            missing.append(folder)
            folder = folder.parent
        try:
            for folder in reversed(missing):
                folder.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
        except OSError as error:
            self._translate(error, path)

    def remove(self, path: str) -> None:
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)
        except OSError as error:
            self._translate(error, path)

    def rename(self, source: str, target: str, overwrite: bool) -> None:
        try:
            if overwrite or os.path.isdir(source):
                if not overwrite and os.path.lexists(target):
                    raise FileExistsError(errno.EEXIST, "there already", target)
                os.replace(source, target)
            else:
                # A hard link is the one call that makes a name and refuses to replace one.
                os.link(source, target)
                os.unlink(source)
        except OSError as error:
            self._translate(error, target)

    def mark_used(self, path: str) -> None:
        try:
            os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))
        except OSError as error:
            self._translate(error, path)

    def close(self) -> None:
        pass

    def _translate(self, error: OSError, path: str, need: int = 0) -> NoReturn:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotPermitted(f"{self._user} may not use {meant(path)}: {error.strerror}") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise does_not_fit(path, need, error.strerror or "") from error
        if error.errno == errno.ENOTDIR:
            raise FileNotFoundError(errno.ENOENT, "a file stands where a folder should be", path) from error
        raise error
