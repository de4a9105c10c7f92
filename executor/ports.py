"""Ports that stay ours from their announcement until the user process listens on them."""

from __future__ import annotations

import socket


class ReservedPort:
    """A TCP port on all addresses of this host: bound, never listening.

    The socket has SO_REUSEADDR and SO_REUSEPORT set: nobody gets the port by chance while we hold it, yet a server
    that sets one of the two (gRPC and torch's store do) can bind and listen on it, and alone gets the connections.
    """

    def __init__(self) -> None:
        """Raises OSError when the host has no free port."""
        self._socket: socket.socket | None = _bound(socket.AF_INET6) or _bound(socket.AF_INET)
        if self._socket is None:
            raise OSError("this host has no free port")
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give it up, for a server that sets neither flag. May be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Ports:
    """The two ports of one generation of a task."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.main = ReservedPort()
        self.tensorboard = ReservedPort()

    @property
    def numbers(self) -> tuple[int, int]:
        """Main port, TensorBoard port."""
        return self.main.number, self.tensorboard.number

    def release(self) -> None:
        """Give both up. May be called twice."""
        self.main.release()
        self.tensorboard.release()


def _bound(family: socket.AddressFamily) -> socket.socket | None:
    """A socket on a free port of IPv6 and IPv4 together, or of IPv4; None where the family is missing."""
    try:
        reserved = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError:
        return None
    try:
        if family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("", 0))
    except OSError:
        reserved.close()
        return None
    return reserved
