"""The only file-system code: a folder on shared storage that client, application master and history all reach.

A base URL is complete in itself, so that a process on a node needs no Hadoop configuration:

    file:///home/ann/.local/state/tony
    webhdfs://host:port[,host:port]/user/ann/.tony?fs=hdfs://nameservice     (swebhdfs:// for TLS)

Several addresses are the name nodes of one file system, tried in turn; `fs` is the authority under which YARN
knows the same files. Folders are made 0700, files 0600. Every call blocks, each under a bound.

Errors: FileNotFoundError and FileExistsError as they are; `Unreachable` names the address; `NotPermitted` the user
and the path; `PackagingError` says which path did not fit and how much it needed; `UsageError` for foreign URLs.
"""

from __future__ import annotations

import errno
import getpass
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tony.errors import TonyError, UsageError
from tony.storage.files import CHUNK_BYTES, UNFINISHED, Chunks, Files, StoredFile
from tony.storage.local import LocalFiles

__all__ = ["Progress", "Storage", "StoredFile", "storage_base"]

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


class Storage:
    """Files below one base URL. Paths are relative to it, or absolute, or URLs of the same file system."""

    def __init__(self, base: str, user: str | None = None) -> None:
        """`user` is who we say we are where the cluster believes it (default: HADOOP_USER_NAME, else the
        account's name). Raises UsageError for a URL that is not one of the forms above. Connects to nothing."""
        self.base = base
        self.user = user or os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
        url = urlsplit(base)
        self._root = unquote(url.path).rstrip("/")
        self._files: Files
        if url.scheme == "file" and not url.netloc and self._root:
            self.file_system = "file://"
            self._files = LocalFiles(self.user)
        elif url.scheme in ("webhdfs", "swebhdfs") and url.netloc:
            addresses = tuple(address for address in url.netloc.split(",") if address)
            self.file_system = parse_qs(url.query).get("fs", [f"{url.scheme}://{addresses[0]}"])[0].rstrip("/")
            # requests is not loaded for jobs of this machine.
            from tony.storage.webhdfs import WebHdfsFiles

            self._files = WebHdfsFiles(addresses, url.scheme == "swebhdfs", self.user)
        else:
            raise UsageError(
                f"{base!r} is not a place for shared files.",
                hint="Write file:///folder, or webhdfs://host:port/folder?fs=hdfs://host:port",
            )
        self._addresses = tuple(url.netloc.split(","))

    def read(self, path: str) -> bytes:
        """The whole file; for small ones."""
        return b"".join(self._files.read(self.locate(path)))

    def download(self, path: str, local: Path) -> None:
        """Copy the file to a local one, which is replaced only when all has arrived."""
        partial = local.with_name(f".{local.name}.{secrets.token_hex(4)}{UNFINISHED}")
        try:
            with partial.open("xb") as out:
                for chunk in self._files.read(self.locate(path)):
                    out.write(chunk)
            partial.replace(local)
        finally:
            partial.unlink(missing_ok=True)

    def write(self, path: str, data: bytes, overwrite: bool = False) -> None:
        """Make the file, whole or not at all, with the folders above it.

        Raises FileExistsError, unless `overwrite`, when the file is there already.
        """
        self._create(path, lambda: iter([data] if data else []), len(data), overwrite)

    def upload(
        self, local: Path, path: str, progress: Progress | None = None, replication: int | None = None
    ) -> None:
        """Copy a local file, never whole in memory. Raises FileExistsError when `path` is there already.

        `replication`: copies on HDFS, None for the cluster's default.
        """
        size = local.stat().st_size
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, "there already on shared storage", self.url(path))

        shown = 0

        def chunks() -> Iterator[bytes]:
            nonlocal shown
            done = 0
            with local.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
                    done += len(chunk)
                    if progress is not None and done > shown:
                        # A busy cluster makes it begin again; what is shown does not go back.
                        shown = done
                        progress(min(done, size), size)

        self._create(path, chunks, size, overwrite=False, replication=replication)

    def exists(self, path: str) -> bool:
        """Whether a file or folder of that name is there."""
        return self.status(path) is not None

    def size(self, path: str) -> int:
        """Bytes of the file."""
        status = self.status(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "no such file on shared storage", self.url(path))
        return status.size

    def status(self, path: str) -> StoredFile | None:
        """What is known of the file or folder; None when there is none."""
        try:
            return self._files.status(self.locate(path))
        except FileNotFoundError:
            return None

    def list(self, path: str = "") -> list[str]:
        """Names in the folder, sorted, without half-written files; empty when there is no such folder."""
        return [entry.name for entry in self.entries(path) if not entry.name.endswith(UNFINISHED)]

    def entries(self, path: str = "") -> Sequence[StoredFile]:
        """What is in the folder, by name, half-written files included; empty when there is no such folder."""
        try:
            return sorted(self._files.entries(self.locate(path)), key=lambda entry: entry.name)
        except FileNotFoundError:
            return []

    def make_folder(self, path: str = "") -> None:
        """Make the folder and those above it, owner-only; nothing happens when it is there."""
        target = self.locate(path)
        if self._root and (target + "/").startswith(self._root + "/"):
            # What lies above the base may be shared (/user), and must not become owner-only by our doing.
            self._files.make_folder(_parent(self._root), private=False)
        self._files.make_folder(target, private=True)

    def remove(self, path: str) -> None:
        """Remove the file, or the folder with all in it; nothing happens when it is not there."""
        self._files.remove(self.locate(path))

    def move(self, source: str, target: str, overwrite: bool = False) -> None:
        """Rename in one step. Raises FileNotFoundError, or FileExistsError unless `overwrite`."""
        self._files.rename(self.locate(source), self.locate(target), overwrite)

    def mark_used(self, path: str) -> None:
        """Note that the file is in use, in its access time. Its modification time, which YARN compares, stays."""
        self._files.mark_used(self.locate(path))

    def url(self, path: str = "") -> str:
        """The name under which YARN localises the file."""
        return self.file_system + self.locate(path)

    def locate(self, path: str) -> str:
        """The absolute path on this file system. Raises UsageError for a URL elsewhere and for ``..``."""
        scheme, separator, rest = path.partition("://")
        if separator:
            authority, slash, inside = rest.partition("/")
            ours = f"{scheme}://{authority}" == self.file_system or (
                scheme in ("webhdfs", "swebhdfs") and authority in self._addresses
            )
            if not ours and not (scheme == "hdfs" and not authority and self.file_system.startswith("hdfs://")):
                raise UsageError(
                    f"{path!r} is not on the cluster's storage, which is {self.file_system}",
                    hint=f"Copy it there, or give a local file. Nodes read {self.file_system}/… only.",
                )
            path = slash + inside
        if any(part == ".." for part in path.split("/")) or not path.isprintable():
            raise UsageError(f"{path!r} is not a path for shared storage.")
        absolute = path if path.startswith("/") else f"{self._root}/{path}"
        return "/" + absolute.strip("/")

    def close(self) -> None:
        """Let go of connections."""
        self._files.close()

    def _create(self, path: str, chunks: Chunks, size: int, overwrite: bool, replication: int | None = None) -> None:
        target = self.locate(path)
        folder, _, name = target.rpartition("/")
        partial = f"{folder}/.{name}.{secrets.token_hex(6)}{UNFINISHED}"
        try:
            try:
                self._files.create(partial, chunks, size, replication)
            except FileNotFoundError:
                self.make_folder(folder)
                self._files.create(partial, chunks, size, replication)
            self._files.rename(partial, target, overwrite)
        except BaseException:
            with suppress(TonyError, OSError):
                self._files.remove(partial)
            raise


def storage_base(url: str, addresses: Sequence[str], secure: bool = False) -> str:
    """The base URL, complete in itself, of an ``hdfs://authority/path`` whose WebHDFS is at `addresses`."""
    parts = urlsplit(url)
    if parts.scheme != "hdfs" or not addresses:
        return url
    scheme = "swebhdfs" if secure else "webhdfs"
    return f"{scheme}://{','.join(addresses)}{parts.path}?fs=hdfs://{parts.netloc}"


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
