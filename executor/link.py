"""The executor's line to its application master: connects, listens in threads, and is told when it breaks."""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tony.errors import TonyError
from tony.events import Warned
from tony.protocol.messages import Defect, FromExecutor, Hello, Note, OutputChunk, ToExecutor

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_OUTPUTS_LIMIT = 16
_CONFESSION_S = 1.0
_TRACEBACK_CHARACTERS = 16_000

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What `tony.protocol.executor_client.TaskConnection` offers."""

    def attend(self, hello: Hello) -> Iterator[ToExecutor]: ...

    def send(self, message: FromExecutor) -> None: ...

    def output(self, request_id: str, chunks: Iterator[OutputChunk]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Received:
    """A message of the application master, on the connection of that number."""

    connection: int
    message: ToExecutor


@dataclass(frozen=True)
class Lost:
    """That connection could not be made, or broke."""

    connection: int
    error: TonyError


def warning(reason: Warned, text: str) -> FromExecutor:
    """A message: something is wrong with this task, and it goes on."""
    return FromExecutor(note=Note(text=text, reason=reason.value))


class MasterLink:
    """One connection at a time, numbered. Everything but `post` is called by the thread that owns the executor."""

    def __init__(self, open_connection: Callable[[str], Connection], post: Callable[[Received | Lost], None]) -> None:
        """`open_connection(token)` makes a connection; `post` is called in threads."""
        self.number = 0
        self._open = open_connection
        self._post = post
        self._connection: Connection | None = None
        self._welcomed = False
        self._listener: threading.Thread | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._outputs: dict[str, threading.Thread] = {}

    def connect(self, hello: Hello, token: str) -> None:
        """Begin to connect; the outcome is posted. What was connected before is closed."""
        self.close()
        self.number += 1
        self._welcomed = False
        self._connection = self._open(token)
        self._listener = threading.Thread(
            target=self._listen, args=(self._connection, self.number, hello), name="master", daemon=True
        )
        self._listener.start()

    def _listen(self, connection: Connection, number: int, hello: Hello) -> None:
        try:
            for message in connection.attend(hello):
                self._post(Received(number, message))
            error = TonyError("the stream ended")
        except TonyError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - without the word Lost the executor would never try again
            error = TonyError(f"{type(raised).__name__}: {raised}")
        self._post(Lost(number, error))

    def send(self, message: FromExecutor) -> bool:
        """Queue the message; False when nobody has welcomed us on this connection. Never blocks.

        True does not mean that it arrives: what must arrive is told again after the next Welcome.
        """
        if self._connection is None or not self._welcomed:
            return False
        try:
            self._connection.send(message)
        except TonyError:
            return False
        return True

    def welcomed(self) -> None:
        """The connection works, and takes messages; the next pause is a short one again."""
        self._welcomed = True
        self._pause_s = _FIRST_PAUSE_S

    def confess(self, error: Exception) -> None:
        """Last words: a defect of our own ends this executor. Waits a second at most until they are taken."""
        words = f"the executor ended by a defect of tony: {type(error).__name__}: {error}"
        said = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if self.send(FromExecutor(defect=Defect(message=words, traceback=said[-_TRACEBACK_CHARACTERS:]))):
            self.join(_CONFESSION_S)

    def pause_s(self) -> float:
        """How long to wait before the next attempt; doubles, with jitter, so that a thousand do not come at once."""
        pause = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
        return pause

    def begin_output(self, request_id: str, chunks: Callable[[Callable[[], bool]], Iterator[OutputChunk]]) -> None:
        """Send output in a thread, until it ends or the peer has enough. A request that runs is not doubled.

        `chunks` gets a function that tells whether to give up.
        """
        self._outputs = {known: thread for known, thread in self._outputs.items() if thread.is_alive()}
        connection = self._connection
        if connection is None or request_id in self._outputs or len(self._outputs) >= _OUTPUTS_LIMIT:
            return
        over = threading.Event()

        def send() -> None:
            try:
                connection.output(request_id, chunks(over.is_set))
            except TonyError as error:
                log.info("output for request %s ended: %s", request_id, error)
            finally:
                # gRPC draws from the iterator in a thread of its own, which must find an end.
                over.set()

        thread = threading.Thread(target=send, name=f"output-{request_id}", daemon=True)
        self._outputs[request_id] = thread
        thread.start()

    def join_outputs(self, deadline_s: Callable[[], float]) -> None:
        """Wait until all output is taken, as long as `deadline_s()` gives more than 0 seconds."""
        for thread in self._outputs.values():
            thread.join(max(0.0, deadline_s()))

    def join(self, timeout_s: float) -> None:
        """Wait for the peer to end the stream."""
        if self._listener is not None:
            self._listener.join(timeout_s)

    def close(self) -> None:
        """Close the connection, if there is one. May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
