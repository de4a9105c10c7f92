"""Registration, release and beats of many executors against the real application master (P7, P11, P12).

Real: the machine, the loop, the service, gRPC with mutual TLS, one connection and one stream per executor, state kept
on disk. Simulated: the containers (held at once) and the executors (asyncio clients that speak the real protocol).

    python benchmarks/control_plane.py [--executors 1000] [--beats 20] [--clients 2]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grpc
import grpc.aio
import psutil

from appmaster import stimuli as on
from appmaster.folder import JobFolder
from appmaster.history import History
from appmaster.loop import Loop
from appmaster.machine import JobMachine
from appmaster.service import Service
from tony.clock import SystemClock
from tony.containers import AppState, HandleState, Identity, Phase
from tony.protocol import messages
from tony.protocol.appmaster_pb2_grpc import TaskServiceStub
from tony.protocol.credentials import SERVER_NAME, Credentials, new_credentials
from tony.protocol.server import AppMasterServer
from tony.spec import JobRecord, JobSpec, RoleSpec, TaskId
from tony.storage import Storage

APPLICATION = "application_1_0001"


class HeldAtOnce:
    """A back-end that grants every request immediately and starts nothing."""

    def __init__(self) -> None:
        self._states: list[HandleState] = []

    def request(self, identity: Identity, environment: Mapping[str, str]) -> str:
        handle = f"{identity.task.role}_{identity.task.index}"
        self._states.append(HandleState(handle, Phase.HELD, f"container_{handle}", "node"))
        return handle

    def stop(self, handle: str) -> None: ...

    def poll(self) -> Sequence[HandleState]:
        return list(self._states)

    def progress(self, fraction: float) -> None: ...

    def finish(self, state: AppState, diagnostics: str) -> None: ...

    def close(self) -> None: ...


async def serve(executors: int, folder: Path) -> None:
    """The application master's part, in a process of its own."""
    credentials = new_credentials()
    job = JobSpec("benchmark", (RoleSpec("worker", ("train.py",), instances=executors),), framework="pytorch")
    record = JobRecord(job, "bench", f"file://{folder}/storage", sys.executable, sys.executable)
    clock = SystemClock()
    machine = JobMachine(job, APPLICATION, "bench", now=clock.monotonic(), wall=clock.wall())
    storage = Storage(record.storage)
    job_folder = JobFolder(storage, APPLICATION, folder)
    history = History(job_folder.write_events, 1)
    loop = Loop(machine, HeldAtOnce(), job_folder, history, clock, lambda identity: {})
    service = Service(machine, record, history, clock, loop.feed, "key", {}, "/tmp")
    loop.service = service
    server = AppMasterServer(service, service, credentials, "key")
    port = await server.start("127.0.0.1", 0)
    loop.feed(on.Begin())
    address = {"port": port, "certificate": credentials.certificate, "private_key": credentials.private_key}
    (folder / "address.partial").write_text(json.dumps(address))
    (folder / "address.partial").rename(folder / "address.json")
    await loop.run()


def profiled(serving: Coroutine[None, None, None], into: Path) -> None:
    """Serve until killed; the profile of the Python thread is written every second."""
    profile = cProfile.Profile()

    async def keep_writing() -> None:
        while True:
            await asyncio.sleep(1.0)
            profile.disable()
            partial = into.with_suffix(".partial")
            profile.dump_stats(partial)
            partial.rename(into)
            profile.enable()

    async def both() -> None:
        await asyncio.gather(serving, keep_writing())

    profile.enable()
    asyncio.run(both())


async def simulate(first: int, count: int, address: Mapping[str, str], beats: int) -> None:
    """Executors `first` … `first + count - 1`; prints when the last was released, then beats."""
    credentials = Credentials(address["certificate"], address["private_key"])
    certificate = credentials.certificate.encode()
    tls = grpc.ssl_channel_credentials(certificate, credentials.private_key.encode(), certificate)
    options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
    released = 0
    latencies: list[float] = []
    everybody = asyncio.Event()

    async def executor(index: int) -> None:
        nonlocal released
        task = TaskId("worker", index)
        metadata = ((messages.TASK, str(task)), (messages.INCARNATION, "1"), (messages.TOKEN, ""))
        async with grpc.aio.secure_channel(f"127.0.0.1:{address['port']}", tls, options=options) as channel:
            call = TaskServiceStub(channel).Attend(metadata=metadata)
            hello = messages.Hello(
                application_id=APPLICATION, role="worker", index=index, incarnation=1, host="node", pid=index + 1
            )
            await call.write(messages.FromExecutor(hello=hello))
            welcome = (await call.read()).welcome
            ready = messages.Ready(generation=1, port=20000 + index % 40000)
            await call.write(messages.FromExecutor(ready=ready))
            assert (await call.read()).HasField("release")
            released += 1
            if released == count:
                print(json.dumps({"released_at": time.time()}), flush=True)
                everybody.set()
            await everybody.wait()
            await asyncio.sleep(welcome.beat_s * (index % 97) / 97)
            metrics = {"cpu_percent": 99.0, "memory_mb": 1234.0, "user_memory_mb": 1000.0}
            for number in range(beats):
                before = time.monotonic()
                beat = messages.Beat(sequence=number, metrics=metrics, progress={"step": float(number)})
                await call.write(messages.FromExecutor(beat=beat))
                latencies.append(time.monotonic() - before)
                await asyncio.sleep(welcome.beat_s)
            call.cancel()

    gate = asyncio.Semaphore(200)

    async def started(index: int) -> None:
        # The kernel's queue of unaccepted connections is short; real nodes do not start in one tick.
        async with gate:
            await asyncio.sleep(0)
        await executor(index)

    await asyncio.gather(*(started(index) for index in range(first, first + count)))
    latencies.sort()
    print(json.dumps({"write_p99_ms": 1000 * latencies[int(0.99 * len(latencies))]}), flush=True)


def python_thread_s(process: psutil.Process) -> float:
    """CPU of the process's first thread, in which all its Python runs; the others are gRPC's."""
    return next((one.user_time + one.system_time for one in process.threads() if one.id == process.pid), 0.0)


def measure(executors: int, beats: int, clients: int, profile: Path | None) -> dict[str, float]:
    """One run: seconds until all are released, and what the beats cost the application master."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--executors", str(executors), "--folder", name]
        master = subprocess.Popen([*command, "--serve", *(["--profile", str(profile)] if profile else [])])
        try:
            while not (folder / "address.json").exists():
                assert master.poll() is None, "the application master did not start"
                time.sleep(0.01)
            process = psutil.Process(master.pid)
            share = -(-executors // clients)
            before, python_at_start = process.cpu_times(), python_thread_s(process)
            begun = time.time()
            simulators = [
                subprocess.Popen(
                    [*command, "--first", str(first), "--count", str(min(share, executors - first))]
                    + ["--beats", str(beats)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for first in range(0, executors, share)
            ]
            released = []
            for simulator in simulators:
                assert simulator.stdout is not None
                released.append(json.loads(simulator.stdout.readline())["released_at"])
            registered, python_before = process.cpu_times(), python_thread_s(process)
            started = time.monotonic()
            p99 = max(json.loads(simulator.stdout.readline())["write_p99_ms"] for simulator in simulators)  # type: ignore[union-attr]
            elapsed = time.monotonic() - started
            after, python_after = process.cpu_times(), python_thread_s(process)
            rss_mb = process.memory_info().rss / 1e6
            for simulator in simulators:
                simulator.communicate()
        finally:
            master.kill()
            master.wait()
    cpu_s = (after.user + after.system) - (registered.user + registered.system)
    start_cpu_s = (registered.user + registered.system) - (before.user + before.system)
    return {
        "executors": executors,
        "released_s": max(released) - begun,
        "master_cpu_s": start_cpu_s,
        "of_it_python_s": python_before - python_at_start,
        "beats_per_s": executors * beats / elapsed,
        "beat_us": 1e6 * cpu_s / (executors * beats),
        "of_it_python_us": 1e6 * (python_after - python_before) / (executors * beats),
        "core_percent": 100 * cpu_s / elapsed,
        "write_p99_ms": p99,
        "master_rss_mb": rss_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", type=int, default=1000)
    parser.add_argument("--beats", type=int, default=20, help="beats of each executor after the release")
    parser.add_argument("--clients", type=int, default=2, help="processes that simulate executors")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the application master's thread")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if chosen.serve:
        serving = serve(chosen.executors, chosen.folder)
        profiled(serving, chosen.profile) if chosen.profile else asyncio.run(serving)
    elif chosen.count:
        address = json.loads((chosen.folder / "address.json").read_text())
        asyncio.run(simulate(chosen.first, chosen.count, address, chosen.beats))
    else:
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, grpc {grpc.__version__}")
        for _ in range(chosen.runs):
            row = measure(chosen.executors, chosen.beats, chosen.clients, chosen.profile)
            print("  ".join(f"{name} {value:.1f}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
