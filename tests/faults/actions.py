"""What is done to a job: to its processes, its connections, its files. Each takes the scene."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.faults.injector import Scene

_MASTERS = ("appmaster", "jvm")
_NAMED_S = 120.0
"""How soon a straggler has to be named."""

# Processes ----------------------------------------------------------------------------------------------------


def hit(kind: str, number: signal.Signals) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        if kind == "user":
            lines = [line for line in scene.lines(scene.victim) if line["what"] == "begin"]
            pid = int(lines[-1]["pid"])
        else:
            pid = scene.one(kind, "" if kind in _MASTERS else scene.task)
        scene.mark()
        os.kill(pid, number)

    return act


def freeze(kind: str, seconds: float) -> Callable[[Scene], None]:
    """Stop a process, and let it go on later."""

    def act(scene: Scene) -> None:
        task = "" if kind in _MASTERS else scene.task
        pid = int(scene.lines(scene.victim)[-1]["pid"]) if kind == "user" else scene.one(kind, task)
        scene.mark()
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
            time.sleep(0.1)
        with suppress(OSError):
            os.kill(pid, signal.SIGCONT)

    return act


def throttle(scene: Scene) -> None:
    """The victim's user process gets a fifth of its time, until it is called a straggler or is no more."""
    pid = int(scene.lines(scene.victim)[-1]["pid"])
    scene.mark()
    deadline = time.monotonic() + _NAMED_S
    try:
        while not any(e.fields.get("reason") == "STRAGGLER" for e in list(scene.events)):
            if time.monotonic() > deadline:
                scene.notes.append(f"no straggler was named within {_NAMED_S:.0f} s")
                break
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.16)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.04)
    except ProcessLookupError:
        scene.notes.append("the throttled process ended before it was named")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def echoed(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """The survivors end before anybody can know why: their exits reach the master first.

    Not long before, though: a victim that lives on while the others have ended is another story.
    """

    def echoed(scene: Scene) -> None:
        scene.at_mark = (scene.trace / "peer-gone").touch
        act(scene)

    return echoed


def signal_client(number: signal.Signals) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        assert scene.client is not None
        scene.mark()
        scene.client.send_signal(number)

    return act


def kill_twice(scene: Scene) -> None:
    """Two people end the job at the same moment, while a third one follows it."""
    command = [sys.executable, "-m", "tony", "kill", scene.find()]
    scene.mark()
    both = [
        subprocess.Popen(command, env=dict(scene.site.environment), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in both:
        _, words = one.communicate(timeout=60.0)
        if one.returncode:
            scene.notes.append(f"a kill ended with {one.returncode}: {words.decode(errors='replace')[-200:]}")


def kill_executor_at_the_end(scene: Scene) -> None:
    """The executor is killed when its user process has just ended: its result may be under way."""
    pid = scene.one("executor", scene.task)
    scene.wait_for(lambda: any(line["what"] == "end" for line in scene.lines(scene.victim)), "the rank's end")
    time.sleep(scene.rng.uniform(0.0, 0.2))
    scene.mark()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def freeze_client(scene: Scene) -> None:
    """The client takes nothing any more, until every rank has ended."""
    assert scene.client is not None
    scene.client.send_signal(signal.SIGSTOP)
    scene.undo.append(partial(scene.client.send_signal, signal.SIGCONT))
    scene.wait_for(
        lambda: all(any(line["what"] == "end" for line in scene.lines(r)) for r in range(scene.workers)), "the end"
    )
    scene.client.send_signal(signal.SIGCONT)


def hit_and_then_another(scene: Scene) -> None:
    """While the gang restarts for the victim, another executor is lost."""
    other = scene.one("executor", f"worker:{1 - scene.victim}")
    hit("user", signal.SIGKILL)(scene)
    time.sleep(scene.rng.uniform(0.0, 1.5))
    with suppress(ProcessLookupError):
        os.kill(other, signal.SIGKILL)


def hit_behind_its_back(scene: Scene) -> None:
    """The victim's user process is killed while the master does not run."""
    master = scene.one("appmaster")
    os.kill(master, signal.SIGSTOP)
    try:
        hit("user", signal.SIGKILL)(scene)
        time.sleep(8.0)
    finally:
        os.kill(master, signal.SIGCONT)


def with_a_key(scene: Scene) -> None:
    """Submit with a key of its own."""
    scene.flags += ["--idempotency-key", f"{scene.folder} at {time.time()}"]


def submit_twice(scene: Scene) -> None:
    """The client dies, and its scheduler starts the same command again: there must be one application."""
    scene.mark()
    scene.begin_again()
    assert scene.client is not None
    with suppress(subprocess.TimeoutExpired):
        scene.client.wait(75.0)
    if len(scene.known()) != 1:
        scene.notes.append(f"{len(scene.known())} applications for one key: {scene.known()}")


def kill_master_and(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """Right after something else, the master is killed, too: what it has begun is half done."""

    def both(scene: Scene) -> None:
        pid = scene.one("appmaster")
        act(scene)
        time.sleep(scene.rng.uniform(0.0, 2.5))
        os.kill(pid, signal.SIGKILL)

    return both


def take_port_of_master(scene: Scene) -> None:
    """The master is killed, and before it is there again somebody else has its port for some seconds."""
    pid = scene.one("appmaster")
    port = int(Path(f"/proc/{pid}/cwd/am-port").read_text())
    scene.mark()
    os.kill(pid, signal.SIGKILL)
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + 0.9
        while True:
            try:
                taker.bind(("0.0.0.0", port))
                taker.listen()
                break
            except OSError:
                if time.monotonic() > deadline:
                    scene.notes.append("the master's port could not be taken")
                    return
                time.sleep(0.01)
        time.sleep(7.0)


def damage_state(scene: Scene) -> None:
    """The master's own state file is cut in half when the master dies."""
    state = Path(f"/proc/{scene.one('appmaster')}/cwd/state.json")
    scene.mark()
    os.truncate(state, state.stat().st_size // 2)


def no_room_for_state(scene: Scene) -> None:
    """The master's folder takes no state any more; then much happens that it has to keep."""
    Path(f"/proc/{scene.one('appmaster')}/cwd/state.json.new").mkdir()
    hit("executor", signal.SIGKILL)(scene)
    scene.wait_for(lambda: scene.generation() > 1, "the next generation")


def resize(size: int) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        scene.mark()
        scene.handle.resize(size)

    return act


def kill_master_at_the_end(scene: Scene) -> None:
    """The master is killed while it takes the job down."""
    pid = scene.one("appmaster")
    time.sleep(scene.rng.uniform(0.0, 0.6))
    scene.mark()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# Connections --------------------------------------------------------------------------------------------------


def behind_a_proxy(scene: Scene) -> None:
    scene.proxy(scene.task)


def partition(seconds: float) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        proxy = scene.proxies[scene.task]
        scene.mark()
        proxy.partition()
        time.sleep(seconds)
        proxy.heal()

    return act


def one_way(scene: Scene) -> None:
    """The master's words do not arrive for a while; then the connection goes on as if nothing had been."""
    proxy = scene.proxies[scene.task]
    scene.mark()
    proxy.down = False
    time.sleep(scene.rng.uniform(3.0, 6.0))
    proxy.heal()


def flap(scene: Scene) -> None:
    proxy = scene.proxies[scene.task]
    scene.mark()
    for _ in range(6):
        proxy.cut()
        time.sleep(scene.rng.uniform(0.2, 1.2))


def slow(scene: Scene) -> None:
    proxy = scene.proxies[scene.task]
    scene.mark()
    proxy.delay_s = 2.0
    time.sleep(8.0)
    proxy.heal()


def strangers(scene: Scene) -> None:
    """Who holds the application's certificate, but not the task's token, tries to be that task; then noise."""
    from tony.errors import TonyError
    from tony.protocol.credentials import Credentials
    from tony.protocol.executor_client import TaskConnection
    from tony.protocol.messages import FromExecutor, Hello, Result
    from tony.spec import TaskId

    secrets = scene.handle._owner()
    snapshot = scene.handle.snapshot()
    host, _, port = _master(scene).rpartition(":")
    credentials = Credentials(secrets.certificate, secrets.private_key)
    scene.mark()
    for incarnation, token in ((1, ""), (1, "0" * 64), (7, ""), (0, ""), (-3, "x")):
        connection = TaskConnection(f"{host}:{port}", credentials, TaskId("worker", scene.victim), incarnation, token)
        hello = Hello(
            application_id=snapshot.application_id,
            role="worker",
            index=scene.victim,
            incarnation=max(0, incarnation),
            host="elsewhere",
            generation=1,
            result=Result(generation=1, exit_code=1, message="forged"),
        )
        try:
            for message in connection.attend(hello):
                if message.HasField("welcome"):
                    scene.notes.append(f"a stranger was welcomed as incarnation {incarnation}")
                connection.send(FromExecutor(result=Result(generation=1, exit_code=1, message="forged")))
                if not message.HasField("refused"):
                    break
        except TonyError:
            pass
        finally:
            connection.close()
    with socket.create_connection((host, int(port)), timeout=5.0) as noise:
        noise.sendall(os.urandom(4096))


def _master(scene: Scene) -> str:
    return (scene.folder / "master").read_text()


# Files --------------------------------------------------------------------------------------------------------


def hold_at_the_gate(scene: Scene) -> None:
    scene.gate(scene.task)


def spoil(change: Callable[[Path], None]) -> Callable[[Scene], None]:
    """Do something to the source archive on the storage, while the executor waits before its first line."""

    def act(scene: Scene) -> None:
        scene.wait_for(lambda: (scene.folder / f"started-{scene.task}-1").exists(), "the executor's start")
        archives = list((scene.site.state / "local" / "storage" / "cache").glob("*"))
        if not archives:
            scene.notes.append("no archive found on the storage")
        scene.mark()
        for path in archives:
            data = path.read_bytes()
            # The storage is shared by the jobs of a walk: the next one finds it as it was.
            scene.undo.append(partial(_restore, path, data))
            path.chmod(0o600)
            change(path)
        (scene.folder / f"gate-{scene.task}-1").unlink()

    return act


def _restore(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def lost_before_hello(scene: Scene) -> None:
    scene.wait_for(lambda: (scene.folder / f"started-{scene.task}-1").exists(), "the executor's start")
    pids = scene.processes("executor", scene.task)
    scene.mark()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (scene.folder / f"gate-{scene.task}-1").unlink(missing_ok=True)


# What a container finds on its node ------------------------------------------------------------------------


def nameless_host(scene: Scene) -> None:
    """The victim's node tells an address that its peers cannot resolve."""
    (scene.folder / f"host-{scene.task}").write_text("nobody.invalid")


def gpu_tool(script: str) -> Callable[[Scene], None]:
    """An `nvidia-smi` of ours, first in the PATH of every executor. It must have been asked when the job ends."""

    def prepare(scene: Scene) -> None:
        scene.path.mkdir()
        tool = scene.path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\ntouch {scene.folder}/asked\n{script}\n")
        tool.chmod(0o755)

    return prepare


def was_asked(scene: Scene) -> None:
    """Wait until the tool was used."""
    scene.wait_for((scene.folder / "asked").exists, "nvidia-smi to be asked")


def foreign_environment(scene: Scene) -> None:
    """A Python environment as an archive, whose interpreter was built for another processor."""
    source = scene.folder / "foreign"
    (source / "bin").mkdir(parents=True)
    (source / "pyvenv.cfg").write_text("version = 3.11.0\n")
    # An ELF header of a 64-bit little-endian executable for RISC-V.
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\0\xf3\0\x01\0\0\0"
    interpreter = source / "bin" / "python3"
    interpreter.write_bytes(header.ljust(4096, b"\0"))
    interpreter.chmod(0o755)
    (source / "bin" / "python").symlink_to("python3")
    archive = shutil.make_archive(str(scene.folder / "foreign"), "gztar", source)
    scene.flags += ["--venv", archive]


def compiler() -> str | None:
    """What the library of `other_clocks` is built with."""
    return shutil.which("cc")


def other_clocks(scene: Scene) -> None:
    """Master, the victim's executor and its user process have wall clocks of their own, right at first."""
    for name in ("appmaster", scene.task):
        _set_clock(scene, name, 0)
    source = Path(__file__).with_name("clock.c")
    command = [
        compiler() or "cc",
        "-O1",
        "-shared",
        "-fPIC",
        "-o",
        str(scene.folder / "clock.so"),
        str(source),
        "-ldl",
    ]
    subprocess.run(command, check=True, timeout=60)


def jump(seconds: int, *, master: bool) -> Callable[[Scene], None]:
    """The wall clock of the master, or of the victim's node, jumps, and jumps back some seconds later."""

    def act(scene: Scene) -> None:
        name = "appmaster" if master else scene.task
        pid = scene.one("appmaster") if master else scene.one("executor", scene.task)
        if "clock.so" not in Path(f"/proc/{pid}/maps").read_text():
            scene.notes.append(f"{name} has the machine's clock")
        scene.mark()
        _set_clock(scene, name, seconds)
        time.sleep(6.0)
        _set_clock(scene, name, 0)

    return act


def _set_clock(scene: Scene, name: str, seconds: int) -> None:
    path = scene.folder / f"clock-{name}"
    path.with_suffix(".new").write_text(f"{seconds:+d}\n")
    path.with_suffix(".new").replace(path)
