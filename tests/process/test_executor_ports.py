"""Reserved ports among real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from executor.ports import Ports, ReservedPort

REUSE = {
    "SO_REUSEADDR": [socket.SO_REUSEADDR],
    "SO_REUSEPORT": [socket.SO_REUSEPORT],
    "both": [socket.SO_REUSEADDR, socket.SO_REUSEPORT],
}


def listening(port: int, flags: list[int], address: str = "") -> socket.socket:
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    for flag in flags:
        server.setsockopt(socket.SOL_SOCKET, flag, 1)
    try:
        server.bind((address, port))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::"])
@pytest.mark.parametrize("flags", REUSE.values(), ids=REUSE.keys())
def test_a_server_that_sets_either_flag_shares_the_held_port_and_gets_the_connections(
    flags: list[int], address: str
) -> None:
    reserved = ReservedPort()
    with listening(reserved.number, flags, address) as server:
        server.settimeout(5)
        with socket.create_connection(("127.0.0.1", reserved.number), 5) as client:
            accepted, peer = server.accept()
            accepted.close()
            assert peer[1] == client.getsockname()[1]
    reserved.release()


def test_a_held_port_is_nobody_elses_and_a_released_one_is_free() -> None:
    reserved = ReservedPort()
    with pytest.raises(OSError, match="Address already in use"):
        listening(reserved.number, [])
    reserved.release()
    reserved.release()
    listening(reserved.number, []).close()


def test_no_two_reservations_share_a_port_also_in_other_processes() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from executor.ports import ReservedPort\n"
        "held = [ReservedPort() for _ in range(200)]\n"
        "print(*(port.number for port in held), flush=True)\n"
        "sys.stdin.read()\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    numbers: list[str] = []
    for process in started:
        assert process.stdout is not None
        numbers += process.stdout.readline().split()
    for process in started:
        process.communicate("", timeout=20)
    assert len(numbers) == 800
    assert len(set(numbers)) == 800


def test_an_outgoing_connection_never_takes_a_reserved_port() -> None:
    ports = Ports()
    with socket.create_server(("127.0.0.1", 0), backlog=300) as server:
        clients = [socket.create_connection(server.getsockname(), 5) for _ in range(200)]
        used = {client.getsockname()[1] for client in clients}
        for client in clients:
            client.close()
    assert used.isdisjoint(ports.numbers)
    ports.release()
