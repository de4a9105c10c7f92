"""When a page is told of, with real servers."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from executor import page
from executor.page import PageFound, PageWatch, answers
from executor.ports import ReservedPort


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_PAUSE_S", 0.05)
    monkeypatch.setattr(page, "_ANSWER_S", 0.2)


class Silent(BaseHTTPRequestHandler):
    """Knows no method, which is an answer, too."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(address: tuple[str, int]) -> Iterator[None]:
    with HTTPServer(address, Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(10)


def test_a_server_on_the_reserved_port_is_told_once() -> None:
    reserved = ReservedPort()
    posted: queue.Queue[PageFound] = queue.Queue()
    watch = PageWatch(3, "127.0.0.1", reserved.number, posted.put)
    with pytest.raises(queue.Empty):
        posted.get(timeout=0.3)  # bound, and nobody listens
    with serving(("", reserved.number)):
        assert posted.get(timeout=10) == PageFound(3, f"http://127.0.0.1:{reserved.number}/")
        with pytest.raises(queue.Empty):
            posted.get(timeout=0.3)
    watch.close()
    reserved.release()


def test_what_does_not_speak_http_is_no_page() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert not answers("127.0.0.1", mute.getsockname()[1])
    assert not answers("nobody.invalid", 80)


def test_nothing_is_told_after_the_end() -> None:
    posted: queue.Queue[PageFound] = queue.Queue()
    reserved = ReservedPort()
    watch = PageWatch(1, "127.0.0.1", reserved.number, posted.put)
    watch.close()
    with serving(("", reserved.number)), pytest.raises(queue.Empty):
        posted.get(timeout=0.3)
    reserved.release()
