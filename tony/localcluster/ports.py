"""Which ports the daemons listen on: one block per cluster, below the kernel's ephemeral range."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tony.errors import Refused

LOOPBACK = "127.0.0.1"
BLOCK = 100
_NODE_OFFSET = 20
_PORTS_PER_NODE = 3
_LOWEST = 20000
_USUAL_EPHEMERAL_START = 32768


@dataclass(frozen=True)
class Ports:
    """All ports of one cluster, counted from `base`."""

    base: int
    nodes: int

    @property
    def namenode_rpc(self) -> int:
        return self.base

    @property
    def namenode_http(self) -> int:
        return self.base + 1

    @property
    def datanode_data(self) -> int:
        return self.base + 2

    @property
    def datanode_http(self) -> int:
        return self.base + 3

    @property
    def datanode_ipc(self) -> int:
        return self.base + 4

    @property
    def rm_client(self) -> int:
        return self.base + 10

    @property
    def rm_scheduler(self) -> int:
        return self.base + 11

    @property
    def rm_tracker(self) -> int:
        return self.base + 12

    @property
    def rm_admin(self) -> int:
        return self.base + 13

    @property
    def rm_http(self) -> int:
        return self.base + 14

    def node(self, number: int) -> tuple[int, int, int]:
        """(address, localizer, web) ports of NodeManager `number`, counted from 1."""
        first = self.base + _NODE_OFFSET + _PORTS_PER_NODE * (number - 1)
        return first, first + 1, first + 2

    def of_daemon(self, name: str) -> tuple[int, ...]:
        """Ports that the daemon `name` (``namenode``, ``nodemanager-2``) listens on."""
        if name == "namenode":
            return self.namenode_rpc, self.namenode_http
        if name == "datanode":
            return self.datanode_data, self.datanode_http, self.datanode_ipc
        if name == "resourcemanager":
            return self.rm_client, self.rm_scheduler, self.rm_tracker, self.rm_admin, self.rm_http
        return self.node(int(name.rpartition("-")[2]))

    def all(self) -> tuple[int, ...]:
        hdfs = (*self.of_daemon("namenode"), *self.of_daemon("datanode"))
        nodes = tuple(port for number in range(1, self.nodes + 1) for port in self.node(number))
        return (*hdfs, *self.of_daemon("resourcemanager"), *nodes)


def is_free(port: int) -> bool:
    """Whether a daemon could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str | None:
    """``java (pid 4711)`` of the process that listens on `port`, as far as this user may see it."""
    for process in psutil.process_iter(["pid", "name"]):
        if port in listening_ports(process.pid):
            return f"{process.info['name']} (pid {process.pid})"
    return None


def listening_ports(pid: int) -> frozenset[int]:
    """TCP ports that a process of this user listens on; empty for a process that is gone or not ours."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return frozenset()
    return frozenset(item.laddr.port for item in connections if item.status == psutil.CONN_LISTEN and item.laddr)


def choose(home: Path, nodes: int, *, wanted: int | None, remembered: int | None) -> Ports:
    """A block whose ports are all free.

    `wanted` (the user's own choice) is taken or refused; `remembered` (the block of the last start) is preferred.
    Otherwise blocks are tried from a place that depends on `home`, so that two clusters rarely want the same one.
    Raises Refused naming the port that is taken and, where visible, its holder.
    """
    if wanted is not None:
        ports = Ports(wanted, nodes)
        for port in ports.all():
            if not is_free(port):
                owner = holder(port)
                raise Refused(
                    f"port {port} is taken" + (f" by {owner}" if owner else ""),
                    "leave --port-base out to let free ports be chosen, or give another one",
                )
        return ports
    for base in _candidates(home, remembered):
        ports = Ports(base, nodes)
        if all(is_free(port) for port in ports.all()):
            return ports
    raise Refused(
        "no free block of ports for the local cluster",
        "stop other clusters on this machine, or choose a place with --port-base",
    )


def _candidates(home: Path, remembered: int | None) -> Iterator[int]:
    if remembered is not None:
        yield remembered
    end = _ephemeral_start()
    bases = list(range(min(_LOWEST, end - 10 * BLOCK), end - BLOCK + 1, BLOCK))
    start = int(hashlib.sha256(str(home).encode()).hexdigest(), 16) % len(bases)
    yield from bases[start:] + bases[:start]


def _ephemeral_start() -> int:
    """First port that the kernel hands out by itself: a daemon's port there may be in use by chance."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_EPHEMERAL_START
    # A machine that hands out nearly everything leaves no room below; then any free port must do.
    return first if first >= 4 * 1024 else _USUAL_EPHEMERAL_START
