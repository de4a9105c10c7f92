"""The executor's end of the wire: one control stream, and output streams on request. Blocking; for threads."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc

from tony.errors import AppMasterUnreachable
from tony.protocol import messages
from tony.protocol.appmaster_pb2_grpc import TaskServiceStub
from tony.protocol.channel import open_channel, translated
from tony.protocol.credentials import Credentials
from tony.protocol.messages import FromExecutor, Hello, OutputChunk, ToExecutor
from tony.spec import TaskId

_QUEUE_LIMIT = 1_000
_CONNECT_S = 10.0


class TaskConnection:
    """One connection of one task to its application master. After a break a new one is made."""

    def __init__(
        self, address: str, credentials: Credentials, task: TaskId, incarnation: int, token: str = ""
    ) -> None:
        self.address = address
        self.token = token
        self._identity = ((messages.TASK, str(task)), (messages.INCARNATION, str(incarnation)))
        self._channel = open_channel(address, credentials)
        self._stub = TaskServiceStub(self._channel)
        self._outbox: queue.Queue[FromExecutor | None] = queue.Queue(_QUEUE_LIMIT)
        self._closed = False

    def attend(self, hello: Hello) -> Iterator[ToExecutor]:
        """Open the control stream and yield what the application master says. Blocks between messages.

        Ends only by raising: AppMasterUnreachable when the stream breaks or is closed, NotPermitted when this
        task is refused.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            raise AppMasterUnreachable(f"the application master at {self.address} does not answer") from None
        self._outbox.put(FromExecutor(hello=hello))
        try:
            for message in self._stub.Attend(iter(self._outbox.get, None), metadata=self._metadata()):
                if message.HasField("welcome"):
                    self.token = message.welcome.token
                yield message
        except grpc.RpcError as error:
            raise translated(error, self.address) from None
        finally:
            self._closed = True
            self._end_outbox()
        raise AppMasterUnreachable(f"the application master at {self.address} closed the connection")

    def send(self, message: FromExecutor) -> None:
        """Queue a message; never blocks. Raises AppMasterUnreachable when the stream is closed or stuck."""
        if self._closed:
            raise AppMasterUnreachable(f"the connection to {self.address} is closed")
        try:
            self._outbox.put_nowait(message)
        except queue.Full:
            raise AppMasterUnreachable(f"the application master at {self.address} takes no messages") from None

    def output(self, request_id: str, chunks: Iterator[OutputChunk]) -> None:
        """Send output of the user process until `chunks` ends. Blocks; a slow follower slows it down."""
        metadata = (*self._metadata(), (messages.REQUEST_ID, request_id))
        try:
            self._stub.Output(chunks, metadata=metadata)
        except grpc.RpcError as error:
            raise translated(error, self.address) from None

    def close(self) -> None:
        """End the streams. What was queued before is still sent, if the peer takes it within moments."""
        if not self._closed:
            self._closed = True
            self._end_outbox()
        self._channel.close()

    def _end_outbox(self) -> None:
        """gRPC draws from it in a thread of its own, which would wait for ever."""
        try:
            self._outbox.put_nowait(None)
        except queue.Full:
            pass

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (*self._identity, (messages.TOKEN, self.token))
