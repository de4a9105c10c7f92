"""Whether a task can reach its peers, with real sockets."""

from __future__ import annotations

import queue
import socket

import pytest

from executor import peers
from executor.peers import PeersSilent, look_for, why_unreachable
from executor.ports import ReservedPort


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_PAUSE_S", 0.0)


def test_a_reserved_port_and_one_that_listens_are_there() -> None:
    reserved = ReservedPort()
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = f"127.0.0.1:{server.getsockname()[1]}"
        assert why_unreachable({"worker:0": listening, "worker:1": f"127.0.0.1:{reserved.number}"}) == ""
    reserved.release()


def test_the_pair_and_the_reason_are_named() -> None:
    said = why_unreachable({"worker:0": "127.0.0.1:1", "worker:1": "nobody.invalid:7000"})
    assert said.startswith(f"{socket.gethostname()} cannot reach worker:1 at nobody.invalid:7000 (")
    assert "worker:0" not in said


def test_the_news_is_posted_with_its_generation_and_nothing_without_a_problem() -> None:
    posted: queue.Queue[PeersSilent] = queue.Queue()
    look_for(3, {"worker:1": "nobody.invalid:7000"}, posted.put)
    news = posted.get(timeout=30.0)
    assert news.generation == 3 and "worker:1" in news.message
    look_for(3, {}, posted.put)
    assert posted.empty()
