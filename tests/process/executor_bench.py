"""A bench for real executors: an application master that says only what a test tells it to, on the real wire."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tony.errors import NotPermitted
from tony.protocol import messages
from tony.protocol.credentials import Credentials, new_credentials
from tony.protocol.messages import FromExecutor, OutputChunk, ToExecutor
from tony.protocol.server import AppMasterServer, TaskPeer

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = REPOSITORY / "tests" / "jobs"
PATIENCE_S = 20.0


class ScriptedMaster:
    """Listens in a thread with its own event loop; what arrives waits in order until a test asks for it."""

    def __init__(self, port: int = 0, credentials: Credentials | None = None) -> None:
        self.credentials = credentials or new_credentials()
        self.arrivals: queue.Queue[FromExecutor] = queue.Queue()
        self.tokens: list[str] = []
        self.chunks: queue.Queue[OutputChunk | None] = queue.Queue()
        self.refuse_next = 0
        self._peer: TaskPeer | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._made(), self._loop).result(10)
        self.port = asyncio.run_coroutine_threadsafe(self._server.start("127.0.0.1", port), self._loop).result(10)

    async def _made(self) -> AppMasterServer:
        # gRPC ties a server to the loop that runs while it is made.
        return AppMasterServer(self, self, self.credentials, "owner")  # type: ignore[arg-type]

    # What the server calls.

    def arrived(self, peer: TaskPeer, message: FromExecutor) -> None:
        if message.WhichOneof("message") == "hello":
            if self.refuse_next:
                self.refuse_next -= 1
                raise NotPermitted("not now")
            self._peer = peer
            self.tokens.append(peer.token)
        self.arrivals.put(message)

    def gone(self, peer: TaskPeer) -> None:
        if self._peer is peer:
            self._peer = None

    async def output(self, peer: TaskPeer, request_id: str, chunks: AsyncIterator[OutputChunk]) -> None:
        async for chunk in chunks:
            self.chunks.put(chunk)
        self.chunks.put(None)

    # What a test calls.

    def say(self, **message: Any) -> None:
        def send() -> None:
            assert self._peer is not None, "no executor is connected"
            self._peer.send(ToExecutor(**message))

        self._call(send)

    def hang_up(self) -> None:
        """End the stream of the connected executor."""
        peer = self._peer
        assert peer is not None
        self._call(peer.close)

    def expect(self, kind: str, timeout_s: float = PATIENCE_S) -> Any:
        """The next message of that kind; beats and repeated results in between are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.arrivals.get(timeout=max(0.01, deadline - time.monotonic()))
            found = message.WhichOneof("message")
            if found == kind:
                return getattr(message, kind)
            assert found in ("beat", "result", "note", "ready", "started"), f"{found} came instead of {kind}"

    def expect_any(self, kind: str, timeout_s: float = PATIENCE_S) -> Any:
        """The next message of that kind, whatever comes before it."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.arrivals.get(timeout=max(0.01, deadline - time.monotonic()))
            if message.WhichOneof("message") == kind:
                return getattr(message, kind)

    def nothing_but_beats(self, seconds: float) -> bool:
        """Whether nothing else comes within that time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self.arrivals.get(timeout=left).WhichOneof("message") != "beat":
                    return False
            except queue.Empty:
                break
        return True

    def welcome(self, generation: int = 1, lease_s: float = 60.0, beat_s: float = 0.2, **workspace: Any) -> None:
        workspace.setdefault("user_python", sys.executable)
        self.say(
            welcome=messages.Welcome(
                token="token",
                beat_s=beat_s,
                lease_s=lease_s,
                workspace=messages.Workspace(**workspace),
                generation=generation,
            )
        )

    def release(self, *command: str, generation: int = 1, hold_ports: bool = True, **environment: str) -> None:
        self.say(
            release=messages.Release(
                generation=generation, command=command, environment=environment, hold_ports=hold_ports
            )
        )

    def greet(self, **welcome: Any) -> Any:
        """Welcome a new executor, as `welcome` does, and return its Ready."""
        self.expect("hello")
        self.welcome(**welcome)
        return self.expect("ready")

    def run(self, *command: str, **environment: str) -> Any:
        """Greet a new executor, have it run the command, return its Result."""
        self.greet()
        self.release(*command, **environment)
        return self.expect("result")

    def leave(self, grace_s: float = 1.0) -> None:
        self.say(leave=messages.Leave(grace_s=grace_s, reason="over"))

    def close(self) -> None:
        """May be called twice."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    async def _finish(self) -> None:
        await self._server.stop(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    def _call(self, function: Callable[[], None]) -> None:
        done: queue.Queue[BaseException | None] = queue.Queue()

        def run() -> None:
            try:
                function()
                done.put(None)
            except BaseException as error:  # noqa: BLE001 - handed to the test
                done.put(error)

        self._loop.call_soon_threadsafe(run)
        error = done.get(timeout=10)
        if error is not None:
            raise error


@contextmanager
def executor_process(
    master: ScriptedMaster, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A real executor in a container folder of its own; killed at the end if it is still there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "certificate.pem").write_text(master.credentials.certificate)
    (folder / "key.pem").write_text(master.credentials.private_key)
    variables = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "TONY_RUNTIME_PATH": str(REPOSITORY),
        "TONY_BACKEND": "local",
        "TONY_APPLICATION_ID": "local_1",
        "TONY_AM_ADDRESS": f"127.0.0.1:{master.port}",
        "TONY_TASK": "worker:0",
        "TONY_INCARNATION": "1",
        "TONY_CERTIFICATE": "certificate.pem",
        "TONY_PRIVATE_KEY": "key.pem",
        "TONY_HOST": "127.0.0.1",
        "TONY_NODE_CACHE": str(folder / "cache"),
        "CONTAINER_ID": "container_1",
        "LOG_DIRS": str(folder / "logs"),
        **(environment or {}),
    }
    with (folder / "executor.out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-I", str(REPOSITORY / "executor" / "launch.py"), "executor"],
            cwd=folder,
            env=variables,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def alive(pid: int) -> bool:
    """Whether that process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def eventually(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
