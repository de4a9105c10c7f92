"""What is done to the cluster below a job: its daemons, its room, its quotas. Each takes the scene."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import psutil

from tests.faults.injector import Scene
from tony.localcluster.cluster import LocalCluster


def rival(flags: Sequence[str], workers: int = 0) -> Callable[[Scene], None]:
    """Submit a second job at once, of the same size if none is given; it has to succeed, too."""

    def act(scene: Scene) -> None:
        other = Scene(scene.site, scene.folder / "rival", scene.rng, workers or scene.workers)
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


def _manager_of(scene: Scene, pid: int) -> int:
    """The NodeManager that runs this process."""
    known = set(_daemons(_own(scene), "nodemanager"))
    return next(parent.pid for parent in psutil.Process(pid).parents() if parent.pid in known)


def kill_node(with_containers: bool) -> Callable[[Scene], None]:
    """KILL for the victim's NodeManager; with its containers, as when the machine has lost its power."""

    def act(scene: Scene) -> None:
        executor = scene.one("executor", scene.task)
        manager = _manager_of(scene, executor)
        below = psutil.Process(manager).children(recursive=True) if with_containers else []
        scene.undo.append(partial(_start_again, scene))
        scene.mark()
        _kill([manager])
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    return act


def restarted(prefix: str, pause_s: float) -> Callable[[Scene], None]:
    """KILL for those daemons, and start them again some seconds later."""

    def act(scene: Scene) -> None:
        pids = _daemons(_own(scene), prefix)
        scene.mark()
        _kill(pids)
        time.sleep(pause_s)
        _start_again(scene)

    return act


def cancelled_while_restarted(scene: Scene) -> None:
    """Ctrl-C, and at once the ResourceManager is away for some seconds."""
    assert scene.client is not None
    pids = _daemons(_own(scene), "resourcemanager")
    scene.mark()
    scene.client.send_signal(signal.SIGINT)
    time.sleep(scene.rng.uniform(0.0, 0.6))
    _kill(pids)
    time.sleep(3.0)
    _start_again(scene)


def emptied_resource_manager(scene: Scene) -> None:
    """KILL for the ResourceManager; the next one knows of no application."""
    own = _own(scene)
    pids = _daemons(own, "resourcemanager")
    scene.mark()
    _kill(pids)
    shutil.rmtree(own.home / "data" / "rm")
    _start_again(scene)


def gone(prefix: str, seconds: float) -> Callable[[Scene], None]:
    """KILL for those daemons before the submit; they are there again after so many seconds, 0: after the job."""

    def prepare(scene: Scene) -> None:
        _kill(_daemons(_own(scene), prefix))
        if seconds:
            _later(scene, seconds, partial(_start_again, scene))
        else:
            scene.undo.append(partial(_start_again, scene))

    return prepare


def safe_mode(seconds: float) -> Callable[[Scene], None]:
    """HDFS takes nothing for a while, before the submit or amid the job."""

    def act(scene: Scene) -> None:
        _admin(scene, "-safemode", "enter")
        scene.mark()
        _later(scene, seconds, partial(_admin, scene, "-safemode", "leave"))

    return act


def quota(bytes_: int) -> Callable[[Scene], None]:
    """The user's home on HDFS may hold that much only, until the job is over."""

    def act(scene: Scene) -> None:
        home = scene.site.cluster.storage.rsplit("/.tony", 1)[0]
        folder = "/" + home.split("://", 1)[1].partition("/")[2]
        _command(scene, "dfs", "-mkdir", "-p", folder)
        _admin(scene, "-setSpaceQuota", str(bytes_), folder)
        scene.undo.append(partial(_admin, scene, "-clrSpaceQuota", folder))
        scene.mark()

    return act


def crowd(scene: Scene) -> None:
    """Another queue claims its half of the cluster for a short job, which succeeds, too."""
    rival(("--queue", "urgent", "--memory", "1200m", "-c", "stop_grace=5s"), 2)(scene)


def _later(scene: Scene, seconds: float, call: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, call)
    timer.start()
    # Whatever happens to the job, the cluster is whole again before the next one.
    scene.undo.append(timer.join)


def _admin(scene: Scene, *words: str) -> None:
    _command(scene, "dfsadmin", *words)


def _command(scene: Scene, *words: str) -> None:
    environment = dict(scene.site.environment)
    subprocess.run(["hdfs", *words], env=environment, check=True, capture_output=True, timeout=60)


def _own(scene: Scene) -> LocalCluster:
    assert scene.site.own is not None
    return scene.site.own


def _daemons(own: LocalCluster, prefix: str) -> list[int]:
    return [daemon.pid for daemon in own.status().daemons if daemon.name.startswith(prefix) and daemon.pid]


def _kill(pids: Sequence[int]) -> None:
    """KILL, and wait until they are gone: who is about to die would still count as there."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10.0)


def _start_again(scene: Scene) -> None:
    own = _own(scene)
    settings = own.earlier_settings()
    assert settings is not None
    own.start(settings)
