"""The network interface over which a rank is to be reached; Horovod's gloo has to be told its name.

Left alone gloo takes the address of the machine's own name, which on Debian is 127.0.1.1.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Iterable, Mapping

_SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of the interface of that name."""

_RENDEZVOUS = "HOROVOD_GLOO_RENDEZVOUS_ADDR"
_INTERFACE = "HOROVOD_GLOO_IFACE"


def interface(environment: Mapping[str, str], host: str) -> dict[str, str]:
    """The variable for a user process with that environment, on `host`; empty where it is not wanted or known.

    It is the interface towards the rendezvous; or, should the master be on this machine and its name mean the
    loopback, towards the first task that is elsewhere. Resolves names, so it may block as long as the resolver does.
    """
    if _INTERFACE in environment or _RENDEZVOUS not in environment:
        return {}
    found = [name for name in _towards(_targets(environment, host)) if name]
    name = next((name for name in found if name != "lo"), found[0] if found else None)
    return {_INTERFACE: name} if name else {}


def _targets(environment: Mapping[str, str], host: str) -> list[str]:
    tables = json.loads(environment.get("TONY_CLUSTER_SPEC", "{}"))
    peers = [address.rpartition(":")[0] for table in tables.values() for address in table]
    elsewhere = next((peer for peer in peers if peer != host), None)
    master = environment[_RENDEZVOUS].partition(":")[0]
    return [master, elsewhere] if elsewhere else [master]


def _towards(hosts: Iterable[str]) -> Iterable[str | None]:
    names = dict(_addresses())
    for host in hosts:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((host, 9))  # sends nothing: only asks which way it would go
            except OSError:
                continue
            own = probe.getsockname()[0]
        yield names.get(own, "lo" if own.startswith("127.") else None)


def _addresses() -> Iterable[tuple[str, str]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(control, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # has no such address
                continue
            yield socket.inet_ntoa(answer[20:24]), name
