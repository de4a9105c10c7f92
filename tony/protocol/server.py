"""The application master's end of the wire: gRPC in, typed calls out. Runs in the caller's asyncio loop.

What the calls mean is decided by whoever implements `TaskHandlers` and `JobHandlers`; here they are only
authenticated, bounded and carried.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from tony.errors import NotPermitted
from tony.events import Event
from tony.protocol import messages
from tony.protocol.appmaster_pb2_grpc import (
    JobServiceServicer,
    TaskServiceServicer,
    add_JobServiceServicer_to_server,
    add_TaskServiceServicer_to_server,
)
from tony.protocol.channel import SERVER_OPTIONS, server_credentials
from tony.protocol.credentials import Credentials
from tony.protocol.messages import FromExecutor, OutputChunk, ToExecutor
from tony.records import encode
from tony.snapshot import JobSnapshot

_OUTBOX_LIMIT = 1_000
_HELLO_S = 60.0


class TaskPeer:
    """One executor's control stream, seen from the application master."""

    def __init__(self, context: grpc.aio.ServicerContext, task: str, incarnation: int, token: str) -> None:
        self.task = task
        self.incarnation = incarnation
        self.token = token
        self.address = _address(context.peer())
        self.closed = asyncio.Event()
        self._context = context
        self._outbox: deque[ToExecutor] = deque()
        self._reader = asyncio.current_task()
        self._writer: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None

    def send(self, message: ToExecutor) -> None:
        """Queue a message; never blocks. A peer that takes none of a thousand is cut off."""
        if self.closed.is_set():
            return
        if len(self._outbox) >= _OUTBOX_LIMIT:
            self.close()
            return
        self._outbox.append(message)
        if self._writer is None or self._writer.done():
            # A task only while there is something to write: ten thousand idle peers cost no tasks.
            self._writer = asyncio.create_task(self._write())

    def close(self) -> None:
        """End the stream from our side, after what is queued."""
        if not self.closed.is_set():
            self.closed.set()
            self._closer = asyncio.create_task(self._close())

    async def _close(self) -> None:
        await self.flush()
        if self._reader is not None:
            self._reader.cancel()

    async def _write(self) -> None:
        while self._outbox:
            try:
                await self._context.write(self._outbox.popleft())
            except (grpc.aio.BaseError, grpc.RpcError, asyncio.InvalidStateError):
                self.closed.set()
                return

    async def flush(self) -> None:
        """Wait until everything queued so far is handed to the transport."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)


class TaskHandlers(Protocol):
    """What the application master does with what executors say."""

    def arrived(self, peer: TaskPeer, message: FromExecutor) -> None:
        """One message; the first of a peer is its Hello. Raises NotPermitted to end the stream."""

    def gone(self, peer: TaskPeer) -> None:
        """The stream ended."""

    async def output(self, peer: TaskPeer, request_id: str, chunks: AsyncIterator[OutputChunk]) -> None:
        """Output of a task, for the request of that id. Raises NotPermitted for a wrong token."""


class JobHandlers(Protocol):
    """What the application master does for its owner's clients."""

    def snapshot(self) -> JobSnapshot:
        """The job now."""

    def events(self, since: int) -> AsyncIterator[Event]:
        """Events after `since`; ends after the verdict."""

    def follow(self, tasks: list[str], stream: str, tail_lines: int, follow: bool) -> AsyncIterator[OutputChunk]:
        """Output of those tasks."""

    def stacks(self, tasks: list[str]) -> AsyncIterator[messages.TaskStacks]:
        """Where the user's processes of those tasks (of all, if none is named) are now, one answer for each."""

    def stop(self, reason: str, grace_s: float, by: str) -> str:
        """Begin to stop; returns the job's state."""

    def resize(self, size: int, by: str) -> str:
        """Begin to change the number of tasks; returns why that cannot be, or nothing."""


class AppMasterServer:
    """Both services on one port."""

    def __init__(self, tasks: TaskHandlers, jobs: JobHandlers, credentials: Credentials, owner_key: str) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_TaskServiceServicer_to_server(_TaskService(tasks), self._server)
        add_JobServiceServicer_to_server(_JobService(jobs, owner_key), self._server)
        self._credentials = server_credentials(credentials)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError when `port` (0: any) is taken."""
        try:
            bound = self._server.add_secure_port(f"{host}:{port}", self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error
        if bound == 0:
            raise OSError(f"cannot listen on {host}:{port}")
        await self._server.start()
        return int(bound)

    async def stop(self, grace_s: float) -> None:
        """End all streams; calls in progress get `grace_s` seconds."""
        await self._server.stop(grace_s)


def _address(peer: str) -> str:
    """The IP address in gRPC's ``ipv4:10.0.0.1:4000``, ``ipv6:%5B::1%5D:4000``; empty for a peer without one."""
    kind, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").removeprefix("::ffff:")
    return host if kind in ("ipv4", "ipv6") else ""


def _metadata(context: grpc.aio.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _peer(context: grpc.aio.ServicerContext) -> TaskPeer:
    metadata = _metadata(context)
    incarnation = metadata.get(messages.INCARNATION, "")
    return TaskPeer(
        context,
        metadata.get(messages.TASK, ""),
        int(incarnation) if incarnation.isascii() and incarnation.isdigit() and len(incarnation) < 10 else -1,
        metadata.get(messages.TOKEN, ""),
    )


class _TaskService(TaskServiceServicer):
    def __init__(self, handlers: TaskHandlers) -> None:
        self._handlers = handlers

    async def Attend(self, _: object, context: grpc.aio.ServicerContext) -> None:
        peer = _peer(context)
        try:
            first = await asyncio.wait_for(context.read(), _HELLO_S)
        except asyncio.TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no Hello")
        if first is grpc.aio.EOF or first.WhichOneof("message") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be Hello")
        try:
            self._handlers.arrived(peer, first)
            # One plain await per message: racing it against a second future doubles the cost of a beat.
            while (message := await context.read()) is not grpc.aio.EOF:
                self._handlers.arrived(peer, message)
            await peer.flush()
        except NotPermitted as error:
            await peer.flush()
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)
        except asyncio.CancelledError:
            if not peer.closed.is_set():
                raise
        finally:
            peer.closed.set()
            self._handlers.gone(peer)

    async def Output(
        self, chunks: AsyncIterator[OutputChunk], context: grpc.aio.ServicerContext
    ) -> messages.OutputDone:
        request_id = _metadata(context).get(messages.REQUEST_ID, "")
        try:
            await self._handlers.output(_peer(context), request_id, chunks)
        except NotPermitted as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)
        return messages.OutputDone()


class _JobService(JobServiceServicer):
    def __init__(self, handlers: JobHandlers, owner_key: str) -> None:
        self._handlers = handlers
        self._owner_key = owner_key.encode()

    async def Snapshot(
        self, _: messages.SnapshotRequest, context: grpc.aio.ServicerContext
    ) -> messages.SnapshotReply:
        await self._authenticate(context)
        return messages.SnapshotReply(json=encode(self._handlers.snapshot()))

    async def Events(
        self, request: messages.EventsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[messages.EventLine]:
        await self._authenticate(context)
        async for event in self._handlers.events(request.since):
            yield messages.EventLine(json=encode(event))

    async def Output(
        self, request: messages.OutputRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[OutputChunk]:
        await self._authenticate(context)
        async for chunk in self._handlers.follow(
            list(request.tasks), request.stream, request.tail_lines, request.follow
        ):
            yield chunk

    async def Stacks(
        self, request: messages.StacksRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[messages.TaskStacks]:
        await self._authenticate(context)
        async for one in self._handlers.stacks(list(request.tasks)):
            yield one

    async def Stop(self, request: messages.StopRequest, context: grpc.aio.ServicerContext) -> messages.StopReply:
        await self._authenticate(context)
        return messages.StopReply(state=self._handlers.stop(request.reason, request.grace_s, request.by))

    async def Resize(
        self, request: messages.ResizeRequest, context: grpc.aio.ServicerContext
    ) -> messages.ResizeReply:
        await self._authenticate(context)
        return messages.ResizeReply(problem=self._handlers.resize(request.size, request.by))

    async def _authenticate(self, context: grpc.aio.ServicerContext) -> None:
        """Every container holds the application's certificate; only its owner holds this key."""
        shown = _metadata(context).get(messages.OWNER_KEY, "").encode()
        if not hmac.compare_digest(shown, self._owner_key):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not the owner of this job")
