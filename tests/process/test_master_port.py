"""The port that every executor knows is waited for, within bounds."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from appmaster.__main__ import _listen
from tony.errors import TonyError
from tony.protocol.credentials import new_credentials
from tony.protocol.server import AppMasterServer


def listening(port_file: Path, patience_s: float, taker: socket.socket, freed_after_s: float | None) -> int:
    """The port that a restarted master gets while somebody else has it, for so many seconds or for ever."""
    nobody: Any = None

    async def run() -> int:
        server = AppMasterServer(nobody, nobody, new_credentials(), "key")
        if freed_after_s is not None:
            asyncio.get_running_loop().call_later(freed_after_s, taker.close)
        try:
            return await _listen(server, port_file, "localhost", patience_s)
        finally:
            await server.stop(0.0)

    return asyncio.run(run())


@pytest.fixture
def taken(tmp_path: Path) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as taker:
        (tmp_path / "am-port").write_text(str(taker.getsockname()[1]))
        yield taker


def test_a_port_that_is_taken_for_a_moment_is_got_back(taken: socket.socket, tmp_path: Path) -> None:
    port = taken.getsockname()[1]
    assert listening(tmp_path / "am-port", 20.0, taken, 0.5) == port
    assert (tmp_path / "am-port").read_text() == str(port)


def test_a_port_that_stays_taken_is_named_in_time(taken: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(TonyError, match="the port of the process before is taken"):
        listening(tmp_path / "am-port", 0.5, taken, None)
