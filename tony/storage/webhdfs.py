"""HDFS over HTTP: WebHDFS with several name nodes, deadlines, bounded retries and errors that say what is wrong."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

import requests

from tony.errors import NotPermitted, PackagingError, Unreachable
from tony.storage.files import CHUNK_BYTES, UNFINISHED, Chunks, StoredFile, does_not_fit, meant

_CONNECT_S = 5.0
_ANSWER_S = 30.0
# The answer to an upload comes when the last block has its replicas.
_UPLOAD_ANSWER_S = 300.0
_PAUSES_S = (0.3, 1.0, 3.0)
_NO_ROOM = ("could only be written to 0", "could only be replicated to 0")


class _NameNodes:
    """The name nodes of one file system, and one session for them and their data nodes: deadlines, bounded retries,
    and errors that keep the server's exception name."""

    def __init__(self, addresses: Sequence[str], secure: bool, user: str) -> None:
        self.user = user
        self._roots = [f"{'https' if secure else 'http'}://{address}/webhdfs/v1" for address in addresses]
        self.session = requests.Session()
        # Cluster traffic must not go through a proxy meant for the web, nor carry passwords of a .netrc.
        self.session.trust_env = False
        self.session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True

    def call(self, op: str, method: str, path: str, **options: Any) -> requests.Response:
        """One operation at whichever name node is active. Raises as the module says."""
        parameters = {**options, "user.name": self.user, "op": op}
        # A gateway answers OPEN with the contents themselves, which must not be gathered in memory.
        stream = op == "OPEN"
        failure: Exception = Unreachable("no name node is known")
        for pause_s in (*_PAUSES_S, None):
            for root in tuple(self._roots):
                try:
                    answer = self.request(method, root + quote(path), params=parameters, stream=stream)
                except (Unreachable, _Busy) as error:
                    # A standby or dead name node goes to the end of the queue, so that the next call starts well.
                    self._roots.append(self._roots.pop(0))
                    failure = error
                else:
                    return answer
            if pause_s is None:
                break
            time.sleep(pause_s)
        if isinstance(failure, _Busy):
            raise Unreachable(str(failure), hint=failure.hint)
        raise failure

    def request(
        self, method: str, url: str, need: int = 0, answer_s: float | None = None, **options: Any
    ) -> requests.Response:
        """One HTTP request without retry. Raises as the module says, and _Busy when asking again may help."""
        shown = url.partition("?")[0]
        try:
            answer = self.session.request(
                method.upper(), url, allow_redirects=False, timeout=(_CONNECT_S, answer_s or _ANSWER_S), **options
            )
        except requests.RequestException as error:
            host = urlsplit(url)
            raise Unreachable(
                f"HDFS at {host.scheme}://{host.netloc} does not answer ({_reason(error)})",
                hint="Is the name node running, and is its HTTP port open to this machine?",
            ) from error
        if answer.status_code >= 400:
            _refuse(answer, shown.partition("/webhdfs/v1")[2], self.user, need)
        return answer


class _Busy(Exception):
    """The name node asks to be asked again, or another one: it is a standby, starting, or in safe mode."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class WebHdfsFiles:
    """HDFS over HTTP: each operation is one small request, and contents travel in one streaming request."""

    def __init__(self, addresses: Sequence[str], secure: bool, user: str) -> None:
        self._hdfs = _NameNodes(addresses, secure, user)

    def read(self, path: str) -> Iterator[bytes]:
        answer = self._hdfs.call("OPEN", "get", path)
        location = answer.headers.get("Location")
        if location is not None:
            answer.close()
            answer = self._retried(lambda: self._hdfs.request("get", location, stream=True))
        with answer:
            expected = int(answer.headers.get("Content-Length") or -1)
            done = 0
            try:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    done += len(chunk)
                    yield chunk
            except requests.RequestException as error:
                raise Unreachable(f"reading {path} from HDFS broke off ({_reason(error)})") from error
            if 0 <= expected != done:
                raise Unreachable(f"reading {path} from HDFS broke off after {done} of {expected} bytes")

    def create(self, path: str, chunks: Chunks, size: int, replication: int | None) -> None:
        # Folders are not made on the way: they would get the file's permission.
        options: dict[str, Any] = {"overwrite": "true", "permission": "600", "createparent": "false"}
        if replication is not None:
            options["replication"] = replication

        def send() -> requests.Response:
            location = self._hdfs.call("CREATE", "put", path, **options).headers.get("Location")
            if location is None:
                raise Unreachable(f"HDFS named no data node to write {path} to")
            return self._hdfs.request(
                "put",
                location,
                need=size,
                answer_s=_UPLOAD_ANSWER_S,
                data=_Body(chunks, size) if size else b"",
                headers={"Content-Type": "application/octet-stream"},
            )

        self._retried(send).close()

    def status(self, path: str) -> StoredFile:
        told = self._hdfs.call("GETFILESTATUS", "get", path).json()
        return _stored(told["FileStatus"], path.rpartition("/")[2])

    def entries(self, path: str) -> list[StoredFile]:
        told = self._hdfs.call("LISTSTATUS", "get", path).json()["FileStatuses"]["FileStatus"]
        return [_stored(each, each["pathSuffix"]) for each in told if each["pathSuffix"]]

    def make_folder(self, path: str, private: bool) -> None:
        try:
            self.status(path)
        except FileNotFoundError:
            options: dict[str, Any] = {"permission": "700"} if private else {}
            self._hdfs.call("MKDIRS", "put", path, **options)

    def remove(self, path: str) -> None:
        self._hdfs.call("DELETE", "delete", path, recursive="true")

    def rename(self, source: str, target: str, overwrite: bool) -> None:
        # Without renameoptions HDFS answers "false" for every reason; with them it says which.
        options: dict[str, Any] = {"destination": target, "renameoptions": "OVERWRITE" if overwrite else "NONE"}
        try:
            self._hdfs.call("RENAME", "put", source, **options)
        except FileNotFoundError:
            # The answer to an earlier try may have been lost.
            with suppress(FileNotFoundError):
                self.status(target)
                if source.endswith(UNFINISHED):
                    return
            raise

    def mark_used(self, path: str) -> None:
        # Clusters may switch access times off; then age counts from the upload.
        with suppress(PackagingError, Unreachable):
            self._hdfs.call("SETTIMES", "put", path, accesstime=int(time.time() * 1000))

    def close(self) -> None:
        self._hdfs.session.close()

    def _retried(self, attempt: Callable[[], requests.Response]) -> requests.Response:
        """A transfer with a data node: another try asks the name node again, which may name another one."""
        for pause_s in _PAUSES_S[:2]:
            try:
                return attempt()
            except (Unreachable, _Busy):
                time.sleep(pause_s)
        try:
            return attempt()
        except _Busy as busy:
            raise Unreachable(str(busy), hint=busy.hint) from busy


class _Body:
    """Chunks with a known total, which requests sends as they come, with a Content-Length."""

    def __init__(self, chunks: Chunks, size: int) -> None:
        self._chunks = chunks
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks()


def _stored(status: Mapping[str, Any], name: str) -> StoredFile:
    modified_at = status["modificationTime"] / 1000
    used_at = max(modified_at, status.get("accessTime", 0) / 1000)
    return StoredFile(name, status["length"], modified_at, used_at, status["type"].lower() == "directory")


def _refuse(answer: requests.Response, path: str, user: str, need: int) -> NoReturn:
    """Raise what a refusal of a name node or data node means."""
    try:
        remote = answer.json()["RemoteException"]
        kind, message = str(remote["exception"]), str(remote["message"]).partition("\n")[0]
    except (ValueError, KeyError, TypeError):
        kind, message = f"HTTP {answer.status_code}", answer.reason or ""
    path = meant(unquote(path))
    server = urlsplit(answer.url).netloc
    if kind == "FileNotFoundException":
        raise FileNotFoundError(errno.ENOENT, "no such file on HDFS", path)
    if kind == "FileAlreadyExistsException":
        raise FileExistsError(errno.EEXIST, "there already on HDFS", path)
    if kind == "SafeModeException" or "safe mode" in message:
        raise _Busy(
            f"HDFS at {server} is in safe mode: it can be read, not written",
            hint="It leaves that state when enough data nodes have reported; see: hdfs dfsadmin -safemode get",
        )
    if kind in ("StandbyException", "RetriableException"):
        raise _Busy(f"HDFS at {server} is not active ({message})")
    if kind in ("AccessControlException", "AuthorizationException", "SecurityException", "InvalidToken"):
        raise NotPermitted(f"{user} may not use {path} on HDFS: {message}")
    if answer.status_code == 401:
        raise NotPermitted(
            f"HDFS at {server} does not accept {user} without a Kerberos ticket",
            hint="Get one with kinit, or ask for a cluster account.",
        )
    if (
        "QuotaExceeded" in kind
        or "could only be written to 0" in message
        or "could only be replicated to 0" in message
    ):
        raise does_not_fit(path, need, message)
    if answer.status_code >= 500:
        raise _Busy(f"HDFS at {server} failed: {kind}: {message}")
    raise PackagingError(f"HDFS refuses {path}: {kind}: {message}")


def _reason(error: Exception) -> str:
    """The innermost cause in words: "Connection refused", "timed out"."""
    text = str(error)
    for known in ("Connection refused", "timed out", "Name or service not known", "Connection reset", "certificate"):
        if known in text:
            return known
    return type(error).__name__
