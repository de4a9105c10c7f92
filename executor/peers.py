"""Whether this task can reach the peers that it will need, at the addresses that they have told.

A reserved port is bound and does not listen, so a host that can be reached refuses: that is a good answer. No answer,
or a name that nobody knows, would let the user process wait in its start for many minutes, without a word why.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_TRIES = 4
_PAUSE_S = 1.0
_CONNECT_S = 3.0


@dataclass(frozen=True)
class PeersSilent:
    """Some of them cannot be reached in that generation."""

    generation: int
    message: str


def look_for(generation: int, peers: Mapping[str, str], post: Callable[[PeersSilent], None]) -> None:
    """Look in a thread, for a quarter of a minute at most; `post` is called there, if one cannot be reached."""
    if not peers:
        return

    def look() -> None:
        problem = why_unreachable(peers)
        if problem:
            post(PeersSilent(generation, problem))

    threading.Thread(target=look, name="peers", daemon=True).start()


def why_unreachable(peers: Mapping[str, str]) -> str:
    """Which of the peers (task → host:port) cannot be reached from this host, and why; empty if all can. Blocks."""
    here = socket.gethostname()
    left = dict(peers)
    why = {}
    for turn in range(_TRIES):
        if turn:
            time.sleep(_PAUSE_S)
        why = {task: refusal for task, address in left.items() if (refusal := _refusal(address))}
        left = {task: left[task] for task in why}
        if not left:
            return ""
    said = "; ".join(f"{task} at {left[task]} ({reason})" for task, reason in why.items())
    return f"{here} cannot reach {said}"


def _refusal(address: str) -> str:
    """Why nobody is there; empty when somebody is, be it with a refusal."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return ""
    except socket.gaierror:
        return f"the name {host} is not known here"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return ""
