"""A client's end of the wire: look at a job, follow it, stop it. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import grpc

from tony.events import Event
from tony.protocol import messages
from tony.protocol.appmaster_pb2_grpc import JobServiceStub
from tony.protocol.channel import open_channel, translated
from tony.protocol.credentials import Credentials
from tony.protocol.messages import OutputChunk, TaskStacks
from tony.records import decode
from tony.snapshot import JobSnapshot

T = TypeVar("T")

_CALL_S = 5.0


class JobConnection:
    """A connection to the application master of one job. Every method raises AppMasterUnreachable when the
    master does not answer (any more), and NotPermitted when the owner key is wrong."""

    def __init__(self, address: str, credentials: Credentials, owner_key: str) -> None:
        self.address = address
        self._metadata = ((messages.OWNER_KEY, owner_key),)
        self._channel = open_channel(address, credentials)
        self._stub = JobServiceStub(self._channel)

    def snapshot(self) -> JobSnapshot:
        """The job as it is now."""
        try:
            reply = self._stub.Snapshot(messages.SnapshotRequest(), metadata=self._metadata, timeout=_CALL_S)
        except grpc.RpcError as error:
            raise translated(error, self.address) from None
        return decode(reply.json, JobSnapshot)

    def events(self, since: int = 0) -> Iterator[Event]:
        """Events with a number above `since`, then new ones as they happen; ends after the verdict."""
        request = messages.EventsRequest(since=since)
        for line in self._stream(self._stub.Events(request, metadata=self._metadata)):
            yield decode(line.json, Event)

    def output(
        self, tasks: Sequence[str] = (), stream: str = "", tail_lines: int = -1, follow: bool = True
    ) -> Iterator[OutputChunk]:
        """Output of the tasks (all if none is named) as it is written; ends when every task has left."""
        request = messages.OutputRequest(tasks=tasks, stream=stream, tail_lines=tail_lines, follow=follow)
        return self._stream(self._stub.Output(request, metadata=self._metadata))

    def stacks(self, tasks: Sequence[str] = ()) -> Iterator[TaskStacks]:
        """Where the user's processes of the tasks (all if none is named) are, one answer for each as they come."""
        return self._stream(self._stub.Stacks(messages.StacksRequest(tasks=tasks), metadata=self._metadata))

    def stop(self, reason: str, grace_s: float, by: str) -> str:
        """Ask for the job's end; returns the state it is in now. The end itself comes as an event."""
        request = messages.StopRequest(reason=reason, grace_s=grace_s, by=by)
        try:
            return str(self._stub.Stop(request, metadata=self._metadata, timeout=_CALL_S).state)
        except grpc.RpcError as error:
            raise translated(error, self.address) from None

    def resize(self, size: int, by: str) -> str:
        """Ask for another number of tasks; returns why that cannot be, or nothing."""
        request = messages.ResizeRequest(size=size, by=by)
        try:
            return str(self._stub.Resize(request, metadata=self._metadata, timeout=_CALL_S).problem)
        except grpc.RpcError as error:
            raise translated(error, self.address) from None

    def close(self) -> None:
        """End all streams; iterators that other threads wait in raise AppMasterUnreachable."""
        self._channel.close()

    def _stream(self, call: Iterator[T]) -> Iterator[T]:
        try:
            yield from call
        except grpc.RpcError as error:
            raise translated(error, self.address) from None
        finally:
            call.cancel()  # type: ignore[attr-defined]
