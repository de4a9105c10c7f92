"""HDFS that misbehaves: small servers that speak just enough WebHDFS, each named by the failure it makes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tony.errors import NotPermitted, PackagingError, Unreachable
from tony.storage import Storage, webhdfs

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """A name node and data node whose `answer(method, op, path)` says everything; keeps what was asked."""

    def __init__(self, answer: Callable[[str, str, str], Answer]) -> None:
        self.asked: list[str] = []
        self.received = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                url = urlsplit(self.path)
                op = parse_qs(url.query).get("op", [""])[0]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append(op)
                outer.received += body
                status, headers, out = answer(self.command, op, url.path.removeprefix("/webhdfs/v1"))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(out)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(out)

            do_GET = do_PUT = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def refusal(status: int, kind: str, message: str) -> Answer:
    body = {"RemoteException": {"exception": kind, "javaClassName": kind, "message": message + "\n\tat org.x"}}
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def found(size: int) -> Answer:
    status = {"type": "FILE", "length": size, "modificationTime": 1000, "accessTime": 0, "pathSuffix": ""}
    return 200, {"Content-Type": "application/json"}, json.dumps({"FileStatus": status}).encode()


def healthy(method: str, op: str, path: str) -> Answer:
    return found(7)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhdfs, "_PAUSES_S", (0.01, 0.01, 0.01))


def storage(*servers: Server) -> Storage:
    addresses = ",".join(server.address for server in servers)
    return Storage(f"webhdfs://{addresses}/base?fs=hdfs://main", user="ann")


@pytest.fixture
def dead() -> Server:
    server = Server(healthy)
    server._server.server_close()
    return server


def test_a_standby_and_a_dead_name_node_are_passed_over_and_then_left_alone(dead: Server) -> None:
    standby = Server(lambda *_: refusal(403, "StandbyException", "Operation category READ is not supported"))
    active = Server(healthy)
    with standby.running(), active.running():
        store = storage(dead, standby, active)
        assert store.size("x") == 7
        assert store.size("x") == 7
        store.close()
    assert (len(standby.asked), len(active.asked)) == (1, 2)


def test_nobody_there_is_unreachable_and_names_the_address(dead: Server) -> None:
    with pytest.raises(Unreachable, match=rf"http://{dead.address} does not answer \(Connection refused\)"):
        storage(dead).read("x")


def test_safe_mode_is_waited_for_and_then_explained() -> None:
    message = "Cannot create file/base/x. Name node is in safe mode."
    with Server(lambda *_: refusal(403, "RetriableException", message)).running() as server:
        store = storage(server)
        with pytest.raises(Unreachable, match="safe mode") as caught:
            store.write("x", b"1")
        store.close()
    assert "dfsadmin -safemode" in (caught.value.hint or "")
    assert server.asked.count("CREATE") == 4 * 3


def test_a_name_node_that_recovers_is_used() -> None:
    answers = iter([refusal(500, "IOException", "busy"), refusal(403, "SafeModeException", "starting"), found(7)])
    with Server(lambda *_: next(answers)).running() as server:
        store = storage(server)
        assert store.size("x") == 7
        store.close()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (
            refusal(403, "AccessControlException", "Permission denied: user=ann"),
            NotPermitted,
            r"ann may not use /base/x",
        ),
        ((401, {}, b"<html>Authentication required"), NotPermitted, "Kerberos"),
        (refusal(403, "DSQuotaExceededException", "The DiskSpace quota of /base"), PackagingError, r"/base/x.*5 B"),
        (
            refusal(403, "IOException", "File /base/x could only be written to 0 of the 1 minReplication nodes."),
            PackagingError,
            r"/base/x.*5 B",
        ),
        (refusal(400, "IllegalArgumentException", "Invalid path name"), PackagingError, "Invalid path name"),
    ],
)
def test_refusals_say_who_what_and_how_much(answer: Answer, error: type[Exception], said: str) -> None:
    data = Server(lambda *_: answer)
    name = Server(lambda *_: (307, {"Location": f"http://{data.address}/webhdfs/v1/base/x?op=DATA"}, b""))
    with data.running(), name.running():
        store = storage(name)
        with pytest.raises(error, match=said) as caught:
            store.write("x", b"12345")
        store.close()
    assert "\n" not in str(caught.value)


def test_a_broken_upload_is_tried_again_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0123456789")
    answers = iter([refusal(500, "IOException", "pipeline broke"), (201, {}, b"")])
    data = Server(lambda *_: next(answers))

    def name_node(method: str, op: str, path: str) -> Answer:
        if op == "CREATE":
            return 307, {"Location": f"http://{data.address}/webhdfs/v1/x?op=DATA"}, b""
        return refusal(404, "FileNotFoundException", path) if op == "GETFILESTATUS" else (200, {}, b"")

    with data.running(), Server(name_node).running() as name:
        store = storage(name)
        store.upload(tmp_path / "big", "cache/big")
        store.close()
    assert data.received == b"0123456789" * 2
    assert name.asked == ["GETFILESTATUS", "CREATE", "CREATE", "RENAME"]


def test_a_failed_upload_removes_its_beginnings(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0123456789")
    data = Server(lambda *_: refusal(500, "IOException", "pipeline broke"))

    def name_node(method: str, op: str, path: str) -> Answer:
        if op == "CREATE":
            return 307, {"Location": f"http://{data.address}/webhdfs/v1/x?op=DATA"}, b""
        return refusal(404, "FileNotFoundException", path) if op == "GETFILESTATUS" else (200, {}, b"")

    with data.running(), Server(name_node).running() as name:
        store = storage(name)
        with pytest.raises(Unreachable, match="pipeline broke"):
            store.upload(tmp_path / "big", "cache/big")
        store.close()
    assert name.asked[-1] == "DELETE"


def test_a_read_that_ends_early_is_not_taken_for_the_file() -> None:
    def short(method: str, op: str, path: str) -> Answer:
        return 200, {"Content-Length": "100", "Connection": "close"}, b"only this"

    with Server(short).running() as server:
        store = storage(server)
        with pytest.raises(Unreachable, match="broke off"):
            store.read("x")
        store.close()


def test_a_silent_server_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhdfs, "_ANSWER_S", 0.1)
    wait = threading.Event()

    def silent(method: str, op: str, path: str) -> Answer:
        wait.wait(5)
        return found(1)

    with Server(silent).running() as server:
        store = storage(server)
        with pytest.raises(Unreachable, match="timed out"):
            store.size("x")
        wait.set()
        store.close()
