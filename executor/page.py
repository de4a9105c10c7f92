"""The page that a user process serves on its reserved port, most likely TensorBoard: told once it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

_PAUSE_S = 2.0
_ANSWER_S = 5.0


@dataclass(frozen=True)
class PageFound:
    """The user process of that generation serves a page at `url`."""

    generation: int
    url: str


class PageWatch:
    """Looks every two seconds, in a thread that calls `post`, whether an HTTP server answers at `host` and `port`.

    It asks by the name that others will use, so a server on the loopback alone is not a page to tell of.
    """

    def __init__(self, generation: int, host: str, port: int, post: Callable[[PageFound], None]) -> None:
        self._found = PageFound(generation, f"http://{host}:{port}/")
        self._host, self._port = host, port
        self._post = post
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="page", daemon=True).start()

    def close(self) -> None:
        """Look no more. Does not wait for a look that has begun."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(_PAUSE_S):
            if answers(self._host, self._port) and not self._closed.is_set():
                self._post(self._found)
                return


def answers(host: str, port: int) -> bool:
    """Whether what listens there speaks HTTP. Blocks for some seconds at most."""
    import http.client  # two megabytes, which only a task that may have a page shall pay

    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
