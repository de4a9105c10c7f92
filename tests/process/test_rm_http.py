"""The resource manager's client against real HTTP: fail-over, refusals, silence, kill."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tony.containers import AppState
from tony.errors import NoSuchJob, NotFinished, NotPermitted, Unreachable
from tony.rm import ResourceManager

Answer = tuple[int, dict[str, str], bytes]
APP = "application_1700000000000_0001"


class Served:
    """An HTTP server that answers by a function of method, path and query, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str, str, dict[str, list[str]]], Answer]) -> None:
        asked: list[tuple[str, str, dict[str, list[str]], bytes]] = []
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = parse_qs(url.query)
                asked.append((self.command, url.path, query, body))
                status, headers, content = answer(self.command, url.path, query)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that has given up is no news."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, str, dict[str, list[str]]], Answer]], Served]]:
    with ExitStack() as stack:

        def start(answer: Callable[[str, str, dict[str, list[str]]], Answer]) -> Served:
            served = Served(answer)
            stack.callback(served.close)
            return served

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., ResourceManager]]:
    with ExitStack() as stack:

        def make(*addresses: str, timeout_s: float = 2.0) -> ResourceManager:
            client = ResourceManager(addresses, "ada", timeout_s)
            stack.callback(client.close)
            return client

        yield make


Serve = Callable[[Callable[[str, str, dict[str, list[str]]], Answer]], Served]
Connect = Callable[..., ResourceManager]


def json_answer(value: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def info(*_: object) -> Answer:
    return json_answer({"clusterInfo": {"resourceManagerVersion": "3.5.0", "state": "STARTED", "startedOn": 1000}})


def test_the_active_one_is_found_and_remembered(serve: Serve, connect: Connect) -> None:
    standby = serve(lambda *_: (307, {"Location": "http://active.invalid/"}, b"This is standby RM"))
    active = serve(info)
    client = connect(standby.url, active.url)
    assert client.info().version == "3.5.0"
    assert client.address == active.url
    client.info()
    assert (len(standby.asked), len(active.asked)) == (1, 2)


def test_a_standby_that_only_refreshes_is_passed_over(serve: Serve, connect: Connect) -> None:
    standby = serve(lambda *_: (200, {"Refresh": "3; url=http://active.invalid/"}, b"This is standby RM."))
    assert connect(standby.url, serve(info).url).info().state == "STARTED"


def test_a_failover_that_ends_meanwhile_is_waited_for(serve: Serve, connect: Connect) -> None:
    turns = iter([503])
    first = serve(lambda *_: (503, {}, b""))
    second = serve(lambda *_: (next(turns), {}, b"") if turns.__length_hint__() else info())
    assert connect(first.url, second.url).info().version == "3.5.0"
    assert (len(first.asked), len(second.asked)) == (2, 2)


def test_nobody_there_is_unreachable_with_every_address(connect: Connect) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 cannot be reached.*127\.0\.0\.1:2"):
        connect("http://127.0.0.1:1", "http://127.0.0.1:2").info()
    assert time.monotonic() - started < 2


def test_one_that_hangs_is_unreachable_in_time(serve: Serve, connect: Connect) -> None:
    release = threading.Event()

    def hang(*_: object) -> Answer:
        release.wait(10)
        return info()

    hanging = serve(hang)
    started = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="in time"):
            connect(hanging.url, timeout_s=0.3).info()
    finally:
        release.set()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("page", [b"<html>hello</html>", b"[]", b"\xff"])
def test_another_server_on_that_port_is_told(serve: Serve, connect: Connect, page: bytes) -> None:
    with pytest.raises(Unreachable, match="does not answer as a resource manager"):
        connect(serve(lambda *_: (200, {}, page)).url).info()


def test_an_unknown_application_is_no_such_job(serve: Serve, connect: Connect) -> None:
    said = {"RemoteException": {"exception": "NotFoundException", "message": f"app with id: {APP} not found"}}
    with pytest.raises(NoSuchJob, match=APP):
        connect(serve(lambda *_: json_answer(said, 404)).url).report(APP)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_permitted_in_hadoops_words(serve: Serve, connect: Connect, status: int) -> None:
    said = {"RemoteException": {"message": "User ada cannot see it\n\tat org.apache.Thing.java"}}
    with pytest.raises(NotPermitted, match=r"User ada cannot see it$"):
        connect(serve(lambda *_: json_answer(said, status)).url).report(APP)


def test_a_kill_is_asked_once_as_the_user_and_confirmed(serve: Serve, connect: Connect) -> None:
    states = iter(["RUNNING", "RUNNING", "RUNNING"])

    def answer(method: str, path: str, query: dict[str, list[str]]) -> Answer:
        if method == "PUT":
            return json_answer({"state": "KILLING"}, 202)
        state = next(states, "KILLED")
        return json_answer({"app": {"id": APP, "state": state, "finalStatus": "KILLED" if state == "KILLED" else ""}})

    served = serve(answer)
    assert connect(served.url).kill(APP).state is AppState.KILLED
    [(_, path, query, body)] = [one for one in served.asked if one[0] == "PUT"]
    assert path == f"/ws/v1/cluster/apps/{APP}/state"
    assert query["user.name"] == ["ada"] and json.loads(body) == {"state": "KILLED"}


def test_a_job_that_has_ended_is_not_killed_again(serve: Serve, connect: Connect) -> None:
    served = serve(lambda *_: json_answer({"app": {"id": APP, "state": "FINISHED", "finalStatus": "SUCCEEDED"}}))
    assert connect(served.url).kill(APP).state is AppState.SUCCEEDED
    assert [method for method, *_ in served.asked] == ["GET"]


def test_a_kill_that_is_never_confirmed_is_told(serve: Serve, connect: Connect) -> None:
    def answer(method: str, path: str, query: dict[str, list[str]]) -> Answer:
        if method == "PUT":
            return json_answer({"state": "KILLING"}, 202)
        return json_answer({"app": {"id": APP, "state": "RUNNING", "finalStatus": "UNDEFINED"}})

    with pytest.raises(NotFinished, match="still RUNNING"):
        connect(serve(answer).url).kill(APP, timeout_s=0.3)


def test_what_the_resource_manager_does_not_tell_of_a_queue_stays_unknown(serve: Serve, connect: Connect) -> None:
    def answer(method: str, path: str, query: dict[str, list[str]]) -> Answer:
        allowed = {"/ws/v1/cluster/queues/yes/access": "true", "/ws/v1/cluster/queues/no/access": "false"}.get(path)
        if allowed is None:
            return json_answer({"RemoteException": {"message": "cannot check ACLs for other users"}}, 403)
        return 200, {}, f"<rmQueueAclInfo><allowed>{allowed}</allowed></rmQueueAclInfo>".encode()

    client = connect(serve(answer).url)
    told = [client.may_submit(queue, "ada") for queue in ("yes", "no", "other", "a/b?c")]
    assert told == [True, False, None, None]
