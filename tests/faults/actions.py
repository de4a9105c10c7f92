"""What is done to a job: to its processes, its connections, its files, its cluster. Each takes the scene."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests.faults.injector import Scene

# Processes ----------------------------------------------------------------------------------------------------


def hit(kind: str, number: signal.Signals) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        if kind == "user":
            lines = [line for line in scene.lines(scene.victim) if line["what"] == "begin"]
            pid = int(lines[-1]["pid"])
        else:
            pid = scene.one(kind, "" if kind in ("appmaster", "jvm") else scene.task)
        scene.mark()
        os.kill(pid, number)

    return act


def freeze(kind: str, seconds: float) -> Callable[[Scene], None]:
    """Stop a process, and let it go on later."""

    def act(scene: Scene) -> None:
        pid = int(scene.lines(scene.victim)[-1]["pid"]) if kind == "user" else scene.one(kind, scene.task)
        scene.mark()
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
            time.sleep(0.1)
        with suppress(OSError):
            os.kill(pid, signal.SIGCONT)

    return act


def echoed(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """The survivors end before anybody can know why: their exits reach the master first."""

    def echoed(scene: Scene) -> None:
        (scene.trace / "peer-gone").touch()
        act(scene)

    return echoed


def signal_client(number: signal.Signals) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        assert scene.client is not None
        scene.mark()
        scene.client.send_signal(number)

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


def freeze_master(scene: Scene, seconds: float) -> None:
    pid = scene.one("appmaster")
    scene.mark()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    with suppress(OSError):
        os.kill(pid, signal.SIGCONT)


def rival(flags: Sequence[str]) -> Callable[[Scene], None]:
    """Submit a second job of the same size at once; it has to succeed, too."""

    def act(scene: Scene) -> None:
        other = Scene(scene.site, scene.folder / "rival", scene.rng, workers=scene.workers)
        other.folder.mkdir()
        scene.mark()
        try:
            other.begin(("--steps", "20"), flags)
            scene.find()
            other.find()
            code, document = other.result(300.0)
            if code:
                scene.notes.append(f"the rival ended with {code}: {document.get('message')}")
        finally:
            other.close()

    return act


# The cluster --------------------------------------------------------------------------------------------------


def _daemon_above(scene: Scene, pid: int) -> int:
    """The NodeManager that runs this process."""
    assert scene.site.own is not None
    known = {daemon.pid for daemon in scene.site.own.status().daemons}
    return next(parent.pid for parent in psutil.Process(pid).parents() if parent.pid in known)


def kill_node(with_containers: bool) -> Callable[[Scene], None]:
    """KILL for the victim's NodeManager; with its containers, as when the machine has lost its power."""

    def act(scene: Scene) -> None:
        executor = scene.one("executor", scene.task)
        manager = _daemon_above(scene, executor)
        below = psutil.Process(manager).children(recursive=True) if with_containers else []
        scene.undo.append(partial(_start_again, scene))
        scene.mark()
        os.kill(manager, signal.SIGKILL)
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    return act


def restart_daemon(prefix: str, pause_s: float) -> Callable[[Scene], None]:
    """KILL for those daemons, and start them again some seconds later."""

    def act(scene: Scene) -> None:
        assert scene.site.own is not None
        pids = [daemon.pid for daemon in scene.site.own.status().daemons if daemon.name.startswith(prefix)]
        scene.mark()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause_s)
        _start_again(scene)

    return act


def _start_again(scene: Scene) -> None:
    own = scene.site.own
    assert own is not None
    settings = own.earlier_settings()
    assert settings is not None
    own.start(settings)
