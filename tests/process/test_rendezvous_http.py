"""The rendezvous as a server: what gloo's client needs, and that hostile ones get nothing and stop nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import pickle
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from appmaster import meeting
from appmaster import stimuli as on
from appmaster.meeting import Addresses, Meeting
from appmaster.rendezvous import Rendezvous
from appmaster.tasks import TaskRecord
from tony.clock import SystemClock
from tony.containers import Identity
from tony.spec import ClusterSpec, Endpoint, JobSpec, RoleSpec, TaskId
from tony.state import TaskState

JOB = JobSpec("a job", (RoleSpec("worker", ("train.py",), 2),), "horovod")
HOST = "127.0.0.1"
KEY = bytes(range(32))


class Room:
    """A listening rendezvous; both ranks live at 127.0.0.1."""

    def __init__(self) -> None:
        self.records = {task: TaskRecord(task, state=TaskState.RUNNING) for task in JOB.tasks()}
        self.addresses = Addresses(self.records)
        for task in JOB.tasks():
            self.addresses.learn(Identity(task, 1), HOST)
        self.fed: list[on.Stimulus] = []
        self.meeting = Meeting(Rendezvous(JOB, "secret"), self.addresses, HOST, SystemClock(), self.fed.append)

    async def open(self) -> None:
        self.port = await self.meeting.start(HOST)
        spec = ClusterSpec(1, {task: Endpoint(HOST, 4000) for task in JOB.tasks()})
        said = [self.meeting.invite(task, spec) for task in JOB.tasks()]
        self.prefixes = ["/" + one["rendezvous_address"].partition("/")[2] + f":{self.port}" for one in said]

    async def send(self, raw: bytes, source: str = HOST) -> bytes:
        """The whole answer to these bytes; empty if the connection is just closed."""
        reader, writer = await asyncio.open_connection(HOST, self.port, local_addr=(source, 0))
        try:
            with suppress(ConnectionError):
                writer.write(raw)
                await writer.drain()
                return await asyncio.wait_for(reader.read(), 30)
            return b""
        finally:
            writer.close()

    async def ask(self, method: str, rank: int, key: str, body: bytes = b"", source: str = HOST) -> tuple[int, bytes]:
        head = f"{method} {self.prefixes[rank]}/{key} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = await self.send(head.encode() + body, source)
        return (int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]) if answer else (0, b"")


def run(scenario: Callable[[Room], Awaitable[None]]) -> None:
    async def main() -> None:
        room = Room()
        await room.open()
        try:
            await scenario(room)
            # Whatever happened, both ranks still find each other.
            assert await room.ask("PUT", 0, "cross_0/0", b"still here") == (200, b"")
            assert await room.ask("GET", 1, "cross_0/0") == (200, b"still here")
        finally:
            await room.meeting.close()

    asyncio.run(main())


def test_ranks_find_each_other() -> None:
    async def scenario(room: Room) -> None:
        waiting = asyncio.create_task(room.ask("GET", 1, "global/0"))
        assert await room.ask("GET", 1, "global/rank_0") == (404, b"")
        coming = asyncio.create_task(room.ask("PUT", 0, "global/0", b"\r\n\r\n\x00"))
        assert await waiting == (200, b"\r\n\r\n\x00")
        assert not coming.done()
        assert await room.ask("PUT", 1, "global/1", b"me") == (200, b"")
        assert await coming == (200, b"")
        assert await room.ask("DELETE", 0, "global/0") == (200, b"")
        assert await room.ask("GET", 1, "global/0") == (404, b"")

    run(scenario)


def test_who_is_not_where_a_live_container_is_gets_no_answer() -> None:
    async def scenario(room: Room) -> None:
        assert await room.ask("GET", 0, "global/0", source="127.0.0.2") == (0, b"")
        room.addresses.learn(Identity(TaskId("worker", 0), 1), "127.0.0.3")
        assert (await room.ask("GET", 0, "global/0"))[0] == 403
        room.addresses.learn(Identity(TaskId("worker", 0), 1), HOST)
        room.records[TaskId("worker", 0)].state = TaskState.LOST
        assert (await room.ask("GET", 0, "global/rank_1"))[0] == 403
        room.records[TaskId("worker", 0)].state = TaskState.RUNNING

    run(scenario)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST {own}/global/0 HTTP/1.1\r\n\r\n", 405),
        (b"PUT {own}/global/0 HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"PUT {own}/global/0 HTTP/1.1\r\nContent-Length: 999999999999999999999\r\n\r\n", 400),
        (b"PUT {own}/global/0 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT {own}/global/0 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"PUT {own}/global/0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 501),
        (b"GET {own}/global/0 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET {own}/global/0 HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"GET {own}/global/0\r\n\r\n", 400),
        (b"GET /global/0 HTTP/1.1\r\n\r\n", 403),
        (b"GET http://x{own}/global/0 HTTP/1.1\r\n\r\n", 400),
        (b"GET {own}/worker_addresses/worker-0:0 HTTP/1.1\r\n\r\n", 403),
        (b"PUT {own}/worker_addresses/worker-0:0 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"PUT {own}/worker_addresses/worker-1:0 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 403),
        (b"PUT {own}/rank_and_size/worker-0:0 HTTP/1.1\r\nContent-Length: 3\r\n\r\n1,1", 403),
        (b"GET {own}/rank_and_size/worker-1:0 HTTP/1.1\r\n\r\n", 403),
        (b"PUT {own}/global/1 HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 409),
        (b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET {own}/global/0 HTTP/1.1\r\nX: " + b"a" * 10_000 + b"\r\n\r\n", 431),
    ],
)
def test_a_bad_request_is_answered_with_its_reason(raw: bytes, status: int) -> None:
    async def scenario(room: Room) -> None:
        answer = await room.send(raw.replace(b"{own}", room.prefixes[0].encode()))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer

    run(scenario)


def test_a_huge_body_is_not_read() -> None:
    async def scenario(room: Room) -> None:
        head = f"PUT {room.prefixes[0]}/global/0 HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n".encode()
        answer = await room.send(head + bytes(20_000_000))
        assert not answer or answer.startswith(b"HTTP/1.1 413 ")

    run(scenario)


def test_slow_ones_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_REQUEST_S", 0.3)

    async def scenario(room: Room) -> None:
        opened = [await asyncio.open_connection(HOST, room.port) for _ in range(200)]
        for _, writer in opened:
            writer.write(b"GET /")
        ends = [asyncio.wait_for(reader.read(), 10) for reader, _ in opened]
        answers = await asyncio.gather(*ends, return_exceptions=True)
        assert not [answer for answer in answers if answer != b"" and not isinstance(answer, ConnectionError)]
        for _, writer in opened:
            writer.close()

    run(scenario)


def test_whatever_is_sent_the_server_goes_on() -> None:
    chance = random.Random(0)
    parts = [b"GET ", b"PUT ", b"{own}", b"/global/0", b"/", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Content-Length: "]
    parts += [b"5", b"-", b"\x00", b"\xff\xfe", b" ", b":", b"..", b"%2e", b"rank_", b"\n", b"a" * 5000]

    async def scenario(room: Room) -> None:
        for _ in range(300):
            words = b"".join(chance.choice(parts) for _ in range(chance.randrange(1, 12)))
            raw = words.replace(b"{own}", room.prefixes[1].encode()) + b"\r\n\r\n"
            answer = await room.send(raw)
            assert not answer or answer.startswith(b"HTTP/1.1 "), (raw, answer)

    run(scenario)


def test_nothing_is_left_open_when_the_job_ends() -> None:
    async def main() -> None:
        room = Room()
        await room.open()
        reader, writer = await asyncio.open_connection(HOST, room.port)
        writer.write(f"GET {room.prefixes[0]}/global/1 HTTP/1.1\r\n\r\n".encode())
        await writer.drain()
        await room.meeting.close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection(HOST, room.port)

    asyncio.run(main())


def test_who_lives_on_is_told_of_new_ones_and_gets_its_place_when_all_are_there() -> None:
    async def main() -> None:
        room, told = Room(), asyncio.Event()
        await room.open()
        heard: list[bytes] = []

        async def inbox(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read())
            writer.close()
            told.set()

        listener = await asyncio.start_server(inbox, HOST, 0)
        port = listener.sockets[0].getsockname()[1]
        first, second = JOB.tasks()
        try:
            said = base64.b64encode(pickle.dumps(({"lo": [(HOST, port)]}, KEY), protocol=5))
            assert await room.ask("PUT", 0, "worker_addresses/worker-0:0", said) == (200, b"")
            assert room.fed == [on.CanLiveOn(Identity(first, 1), 0, port, KEY.hex())]
            room.records[first].doors[0] = (port, KEY.hex())
            old = list(room.prefixes)
            spec = ClusterSpec(2, {task: Endpoint(HOST, 4000) for task in JOB.tasks()}, {first: 1})
            new = room.meeting.invite(second, spec)
            room.prefixes[1] = "/" + new["rendezvous_address"].partition("/")[2]
            assert (await room.ask("PUT", 0, "global/0", b"too early"))[0] == 410
            assert not told.is_set()
            coming = asyncio.create_task(room.ask("PUT", 1, "global/1", b"new"))
            await asyncio.wait_for(told.wait(), 10)
            message = heard[0]
            assert hmac.new(KEY, message[36:], hashlib.sha256).digest() == message[:32]
            assert b"HostsUpdatedRequest" in message and not coming.done()
            assert room.prefixes[0] == old[0]
            assert await room.ask("GET", 0, "rank_and_size/worker-0:0") == (200, b"0,2,0,1,0,2")
            assert await coming == (200, b"")
            assert await room.ask("PUT", 0, "global/0", b"now") == (200, b"")
        finally:
            listener.close()
            await room.meeting.close()

    asyncio.run(main())


def test_who_ends_while_it_waits_is_not_waited_for() -> None:
    async def main() -> None:
        room = Room()
        await room.open()
        try:
            met = await asyncio.gather(*(room.ask("PUT", rank, f"global/{rank}", b"me") for rank in range(2)))
            assert met == [(200, b""), (200, b"")]
            gone = asyncio.create_task(room.ask("GET", 0, "rank_and_size/worker-0:0"))
            while not room.meeting._open:
                await asyncio.sleep(0)
            gone.cancel()
            while room.meeting._open:
                await asyncio.sleep(0.01)
            again = asyncio.create_task(room.ask("GET", 1, "rank_and_size/worker-1:0"))
            done, _ = await asyncio.wait([again], timeout=0.3)
            assert not done
            assert await room.ask("GET", 0, "rank_and_size/worker-0:0") == (200, b"0,2,0,1,0,2")
            assert await again == (200, b"1,2,0,1,1,2")
        finally:
            await room.meeting.close()

    asyncio.run(main())
