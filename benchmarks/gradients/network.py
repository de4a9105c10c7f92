"""Network namespaces joined by a bridge: one host a rank, with counters and, if asked, a slow link.

Needs root, iproute2 and the kernel's bridge, veth and tbf. Everything is named after the process and removed at the
end.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

INTERFACE = "eth0"
BURST_BYTES = 256 * 1024


@dataclass(frozen=True)
class Counters:
    """Bytes of one rank's interface, headers of every layer down to Ethernet included."""

    sent: int
    received: int


class Network:
    """`size` namespaces with the addresses 10.211.0.1, .2, ... A context manager."""

    def __init__(self, size: int, rate: str | None = None) -> None:
        """`rate`: of each link in each direction, as tc writes it ("100mbit"); None for no limit."""
        self.size = size
        self.rate = rate
        self._bridge = f"tg{os.getpid() % 100000}"
        self._exit = ExitStack()

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def name(self, rank: int) -> str:
        return f"{self._bridge}-{rank}"

    def address(self, rank: int) -> str:
        return f"10.211.0.{rank + 1}"

    def inside(self, rank: int, command: list[str]) -> list[str]:
        """The command that runs `command` in the namespace of a rank."""
        return ["ip", "netns", "exec", self.name(rank), *command]

    def counters(self, rank: int) -> Counters:
        numbers = []
        for direction in ("tx", "rx"):
            path = f"/sys/class/net/{INTERFACE}/statistics/{direction}_bytes"
            text = subprocess.run(
                self.inside(rank, ["cat", path]), check=True, capture_output=True, text=True, timeout=10
            ).stdout
            numbers.append(int(text))
        return Counters(*numbers)

    def limit(self, rate: str | None) -> None:
        """From now on each link carries so much in each direction, as tc writes it; None: as much as it can."""
        for rank in range(self.size):
            for space, device in ((f"{self._bridge}-hub", f"{self._bridge}v{rank}"), (self.name(rank), INTERFACE)):
                tc = ("ip", "netns", "exec", space, "tc", "qdisc")
                _run(*tc, "del", "dev", device, "root", check=False)  # there may be none
                if rate:
                    shape = ["tbf", "rate", rate, "burst", str(BURST_BYTES), "latency", "100ms"]
                    _run(*tc, "add", "dev", device, "root", *shape)
        self.rate = rate

    def _build(self) -> None:
        # The bridge has a namespace of its own: where Docker runs, the machine's firewall drops what bridges carry.
        hub = f"{self._bridge}-hub"
        _run("ip", "netns", "add", hub)
        self._exit.callback(_run, "ip", "netns", "del", hub, check=False)
        _run("ip", "-n", hub, "link", "add", self._bridge, "type", "bridge")
        _run("ip", "-n", hub, "link", "set", self._bridge, "up")
        for rank in range(self.size):
            space, outer = self.name(rank), f"{self._bridge}v{rank}"
            _run("ip", "netns", "add", space)
            self._exit.callback(_run, "ip", "netns", "del", space, check=False)
            # gloo binds to the address of the host's own name, so every namespace needs its own answer to it
            hosts = Path("/etc/netns") / space / "hosts"
            hosts.parent.mkdir(parents=True)
            self._exit.callback(shutil.rmtree, hosts.parent, ignore_errors=True)
            hosts.write_text(f"127.0.0.1 localhost\n{self.address(rank)} {socket.gethostname()}\n")
            peer = ["peer", "name", INTERFACE, "netns", space]
            _run("ip", "-n", hub, "link", "add", outer, "type", "veth", *peer)
            _run("ip", "-n", hub, "link", "set", outer, "master", self._bridge, "up")
            _run("ip", "-n", space, "address", "add", f"{self.address(rank)}/24", "dev", INTERFACE)
            _run("ip", "-n", space, "link", "set", INTERFACE, "up")
            _run("ip", "-n", space, "link", "set", "lo", "up")
        self.limit(self.rate)


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True, timeout=30)
