"""The rendezvous over HTTP, as gloo's client speaks it: one small request on each connection, everything bounded.

There is no TLS in that client. What protects the store: only addresses from which a live executor is connected are
heard at all, and a path that does not begin with an invitation (a MAC of task and generation) is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from appmaster import stimuli as on
from appmaster.notice import read_door, tell
from appmaster.rendezvous import PLACES, Denied, Guest, Rendezvous
from appmaster.tasks import TaskRecord
from tony.clock import Clock
from tony.containers import Identity
from tony.spec import ClusterSpec, TaskId

_log = logging.getLogger(__name__)

_REQUEST_S = 10.0
"""For the whole request to arrive, and for the answer to be taken."""
_HOLD_S = 1.0
"""How long the question for an address that is not there yet is kept open. Gloo asks again after 10 ms."""
_TOGETHER_S = 600.0
"""How long a process waits for all the others, those that are started meanwhile included."""
_HEAD_BYTES = 4096
_SPARE_CONNECTIONS = 32
_CONNECTIONS_FOR_A_RANK = 4
_TOLD_DENIALS = 20

_REQUEST = re.compile(rb"([A-Z]{1,10}) (/[!-~]{0,600}) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,60}):[ \t]*([ -~\t]*)")
_PHRASES = {200: "OK", 404: "Not Found"}


class Addresses:
    """From where the executors of tasks are connected, as seen from here. `tasks` are the machine's records."""

    def __init__(self, tasks: Mapping[TaskId, TaskRecord]) -> None:
        self._tasks = tasks
        self._known: dict[TaskId, tuple[int, str]] = {}
        self._all: frozenset[str] | None = None

    def learn(self, identity: Identity, address: str) -> None:
        """That incarnation has said Hello from there."""
        self._known[identity.task] = (identity.incarnation, address)
        self._all = None

    def of(self, task: TaskId) -> str | None:
        """The address of the task's container while that is alive."""
        record = self._tasks.get(task)
        incarnation, address = self._known.get(task, (0, ""))
        return address if record and record.state.live and record.incarnation == incarnation else None

    def record(self, task: TaskId) -> TaskRecord:
        """What is known of it. Raises KeyError."""
        return self._tasks[task]

    def has(self, address: str) -> bool:
        """Whether a task of this job is, or was, there."""
        if self._all is None:
            self._all = frozenset(address for _, address in self._known.values())
        return address in self._all


class Meeting:
    """The HTTP server for the ranks of one job; it listens at `host`, under which tasks find the master."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        addresses: Addresses,
        host: str,
        clock: Clock,
        feed: Callable[[on.Stimulus], None],
    ) -> None:
        self._rendezvous = rendezvous
        self._clock = clock
        self._feed = feed
        rendezvous.gathering.on_complete(self._tell_the_first)
        self._addresses = addresses
        self._host = host
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._from: Counter[str] = Counter()
        self._denials = 0
        self._port = 0

    async def start(self, where: str, port: int = 0) -> int:
        """Listen there; returns the port. Raises OSError when `port` (0: any) is taken."""
        self._server = await asyncio.start_server(self._accept, where, port, limit=_HEAD_BYTES, backlog=1024)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    def invite(self, task: TaskId, cluster: ClusterSpec) -> dict[str, str]:
        """What `tony.frameworks` tells that task of the rendezvous; nothing for a task without rank.

        Gloo asks for ``http://<address>:<port>/<scope>/<key>``. It knows no path before the scope, so ours stands in
        the address, behind a port of its own; the second port is then a part of the path.
        """
        invitation = self._rendezvous.invite(task, cluster)
        if not invitation:
            return {}
        address = f"{self._host}:{self._port}/{invitation}"
        return {"rendezvous_address": address, "rendezvous_port": str(self._port)}

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peername")
        address = str(name[0]) if name else ""
        # Of one address: that many tasks may run there, and no stranger may take the places of the others.
        bound = _SPARE_CONNECTIONS + _CONNECTIONS_FOR_A_RANK * self._rendezvous.size
        if not self._addresses.has(address) or self._from[address] >= bound:
            writer.transport.abort()
            self._tell(address, "nobody of this job is there, or too many connections")
            return
        self._from[address] += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, address))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        try:
            status, body = await self._answer(reader, address)
            if writer.is_closing():
                return
            phrase = _PHRASES.get(status, "Refused")
            head = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await asyncio.wait_for(writer.drain(), _REQUEST_S)
            if status not in _PHRASES:
                # What is still on its way is read and dropped: else the refusal may be lost with it.
                writer.write_eof()
                await asyncio.wait_for(reader.read(_HEAD_BYTES), 1.0)
        except (OSError, EOFError, asyncio.TimeoutError):
            writer.transport.abort()
        finally:
            self._from[address] -= 1
            if not self._from[address]:
                del self._from[address]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, address: str) -> tuple[int, bytes]:
        try:
            method, guest, value = await asyncio.wait_for(self._read(reader, address), _REQUEST_S)
            if guest.local_rank is not None:
                return await self._elastic(method, guest, guest.local_rank, value, reader)
            if method == b"PUT":
                self._rendezvous.put(guest, value)
                number = self._rendezvous.coming(guest)
                if number is not None:
                    await self._together(self._rendezvous.gathering.come, guest.task, number, reader)
            elif method == b"DELETE":
                self._rendezvous.delete(guest)
            else:
                found = self._rendezvous.get(guest)
                if found is None:
                    found = await self._wait(guest)
                return (404, b"") if found is None else (200, found)
        except Denied as denied:
            self._tell(address, str(denied))
            return denied.status, b""
        return 200, b""

    async def _read(self, reader: asyncio.StreamReader, address: str) -> tuple[bytes, Guest, bytes]:
        """Method, guest and body. The invitation is looked at before any of the body is read."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Denied(431, "a long head") from None
        lines = head[:-4].split(b"\r\n")
        request = _REQUEST.fullmatch(lines[0])
        headers = [_HEADER.fullmatch(line) for line in lines[1:]]
        if request is None or None in headers:
            raise Denied(400, "not a request")
        if request[1] not in (b"GET", b"PUT", b"DELETE"):
            raise Denied(405, "an unknown method")
        lengths = {h[2].strip() for h in headers if h is not None and h[1].lower() == b"content-length"}
        if any(h is not None and h[1].lower() == b"transfer-encoding" for h in headers):
            raise Denied(501, "a coded body")
        length = lengths.pop() if lengths else b"0"
        if lengths or not re.fullmatch(rb"[0-9]{1,12}", length):
            raise Denied(400, "no single length")
        guest = self._rendezvous.guest(request[2].decode("ascii"))
        if self._addresses.of(guest.task) != address:
            raise Denied(403, f"{guest.task} is elsewhere")
        size = int(length)
        if size > (self._rendezvous.largest_value if request[1] == b"PUT" else 0):
            raise Denied(413, "too long")
        return request[1], guest, await reader.readexactly(size)

    async def _wait(self, guest: Guest) -> bytes | None:
        """The value as soon as it is there, or None after `_HOLD_S`: a thousand ranks must not ask every 10 ms."""
        future = self._rendezvous.arrival(guest, asyncio.get_running_loop().create_future())
        if future is None:
            return None
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait([future], timeout=_HOLD_S)
        self._rendezvous.forget(guest, future)
        if future.cancelled():
            raise Denied(410, "another generation was released")
        future.cancel()
        return self._rendezvous.get(guest)

    async def _elastic(
        self, method: bytes, guest: Guest, number: int, value: bytes, reader: asyncio.StreamReader
    ) -> tuple[int, bytes]:
        """A process that can live on: it tells so, or asks for its place in the release that is to come."""
        if method == b"GET" and guest.path[0] == PLACES:
            ask = self._rendezvous.gathering.ask
            return 200, (await self._together(ask, guest.task, number, reader)).encode()
        if method != b"PUT" or guest.path[0] == PLACES:
            raise Denied(403, "not a key that Horovod asks for")
        door = read_door(value)
        if door is None:
            raise Denied(400, "not what Horovod says")
        self._feed(on.CanLiveOn(self._addresses.record(guest.task).identity, number, *door))
        return 200, b""

    async def _together(
        self,
        begin: Callable[[TaskId, int, asyncio.Future[str]], None],
        task: TaskId,
        number: int,
        reader: asyncio.StreamReader,
    ) -> str:
        """The place of a process, when all the others are there; `begin` says that it waits. Raises Denied."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        begin(task, number, answer)
        # It sends nothing more; what comes is its end.
        ended = asyncio.ensure_future(reader.read(1))
        waited: list[asyncio.Future[Any]] = [answer, ended]
        try:
            await asyncio.wait(waited, timeout=_TOGETHER_S, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or answer.cancelled():
                raise Denied(410, f"no meeting for {task} in this generation")
            return answer.result()
        finally:
            ended.cancel()
            self._rendezvous.gathering.withdraw(task, number, answer)

    def _tell_the_first(self) -> None:
        """New ones are at the door, and those who live on train on: rank 0 is told, and tells the others."""
        task = self._rendezvous.gathering.first()
        door = self._addresses.record(task).doors.get(0) if task is not None else None
        address = self._addresses.of(task) if task is not None else None
        if door is not None and address is not None:
            work = asyncio.get_running_loop().create_task(self._knock(address, *door))
            self._open.add(work)
            work.add_done_callback(self._open.discard)

    async def _knock(self, address: str, port: int, key: str) -> None:
        try:
            await tell(address, port, key, self._clock.wall())
        except (OSError, asyncio.TimeoutError) as error:
            _log.warning("rendezvous: rank 0 at %s is not told of new ones: %s", address, error)

    def _tell(self, address: str, why: str) -> None:
        if self._denials < _TOLD_DENIALS:
            self._denials += 1
            _log.warning("rendezvous: a request from %s was refused: %s", address, why)
