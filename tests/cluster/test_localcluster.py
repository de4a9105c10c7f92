"""The local Hadoop itself, with real daemons: health, restart, death of a daemon, taken ports, strays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from tony.errors import Refused, TonyError
from tony.localcluster import jars, ports
from tony.localcluster.cluster import ClusterSettings, LocalCluster
from tony.localcluster.daemons import MARK

pytestmark = pytest.mark.timeout(300)

SMALL = ClusterSettings(nodes=1, memory_mb=1024, vcores=4, gpus=2, labels=((1, "gpu"),))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of this module's own, which its tests may stop, break and start again."""
    own = LocalCluster(tmp_path_factory.mktemp("own"))
    try:
        yield own
    finally:
        own.stop()
        assert processes_of(own) == []


def processes_of(cluster: LocalCluster) -> list[psutil.Process]:
    """Living daemons of the cluster, by the mark in their environment, whatever its record says."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(cluster.home):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def pid_of(cluster: LocalCluster, name: str) -> int:
    return next(daemon.pid for daemon in cluster.status().daemons if daemon.name == name)


def hdfs(cluster: LocalCluster, *words: str, text: str | None = None) -> str:
    done = subprocess.run(
        [cluster.bin_dir / "yarn", "dfs", *words], input=text, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_a_started_cluster_is_healthy_and_tells_what_it_offers(yarn_cluster: LocalCluster) -> None:
    status = yarn_cluster.status()
    assert status.running
    assert status.active_nodes == 2
    assert status.dead == ()
    assert all(daemon.memory_mb > 50 for daemon in status.daemons)
    metrics = requests.get(f"{yarn_cluster.rm_url}/ws/v1/cluster/metrics", timeout=10).json()["clusterMetrics"]
    assert (metrics["totalMB"], metrics["totalVirtualCores"]) == (8192, 64)
    nodes = requests.get(f"{yarn_cluster.rm_url}/ws/v1/cluster/nodes", timeout=10).json()["nodes"]["node"]
    gpus = [
        resource["value"]
        for node in nodes
        for resource in node["totalResource"]["resourceInformations"]["resourceInformation"]
        if resource["name"] == "yarn.io/gpu"
    ]
    assert gpus == [4, 4]


def test_the_yarn_command_answers_what_a_submit_driver_asks(yarn_cluster: LocalCluster) -> None:
    done = subprocess.run(
        ["yarn", "classpath", "--glob"],
        env={**os.environ, "PATH": f"{yarn_cluster.bin_dir}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert done.stdout == f"{yarn_cluster.conf_dir}:{yarn_cluster.jars_dir}/*\n"


def test_a_second_start_with_the_same_settings_changes_nothing(yarn_cluster: LocalCluster) -> None:
    before = yarn_cluster.status()
    assert before.settings is not None
    lines: list[str] = []
    assert yarn_cluster.start(before.settings, lines.append).daemons == before.daemons or lines
    assert [daemon.pid for daemon in yarn_cluster.status().daemons] == [daemon.pid for daemon in before.daemons]
    assert lines[-1].startswith("already running")


def test_a_start_with_other_settings_is_refused_while_it_runs(yarn_cluster: LocalCluster) -> None:
    settings = yarn_cluster.status().settings
    assert settings is not None
    with pytest.raises(Refused, match="gpus 8 → 16"):
        yarn_cluster.start(replace(settings, gpus=16))


def test_files_and_ports_survive_stop_and_start_and_a_second_cluster_is_no_trouble(
    yarn_cluster: LocalCluster, cluster: LocalCluster
) -> None:
    lines: list[str] = []
    cluster.start(SMALL, lines.append)
    assert lines[-1].startswith("healthy in")
    assert cluster.rm_url != yarn_cluster.rm_url
    url = cluster.rm_url
    hdfs(cluster, "-put", "-", "/kept", text="still here")

    report = cluster.stop()

    assert report.daemons == 4
    assert processes_of(cluster) == []
    assert not cluster.status().running
    assert cluster.stop().daemons == 0
    cluster.start(SMALL)
    assert cluster.rm_url == url
    assert hdfs(cluster, "-cat", "/kept") == "still here"
    assert yarn_cluster.status().running


def test_a_node_carries_its_label(cluster: LocalCluster) -> None:
    cluster.start(SMALL)
    nodes = requests.get(f"{cluster.rm_url}/ws/v1/cluster/nodes", timeout=10).json()["nodes"]["node"]
    assert [node["nodeLabels"] for node in nodes] == [["gpu"]]


def test_a_killed_daemon_shows_in_the_status_and_the_next_start_replaces_it_alone(cluster: LocalCluster) -> None:
    cluster.start(SMALL)
    before = {daemon.name: daemon.pid for daemon in cluster.status().daemons}
    os.kill(before["datanode"], signal.SIGKILL)
    assert eventually(lambda: cluster.status().dead == ("datanode",))
    assert not cluster.status().running

    status = cluster.start(SMALL)

    assert status.running
    after = {daemon.name: daemon.pid for daemon in status.daemons}
    assert {name for name in before if before[name] != after[name]} == {"datanode"}


def test_a_stop_ends_strays_of_containers_and_spares_everybody_else(cluster: LocalCluster) -> None:
    folder = (
        cluster.home / "data" / "nm1" / "local" / "usercache" / "u" / "appcache" / "application_1" / "container_1"
    )
    folder.mkdir(parents=True, exist_ok=True)
    stray = subprocess.Popen(["sleep", "300"], env={"LOCAL_DIRS": str(folder.parent)}, start_new_session=True)
    other = subprocess.Popen(["sleep", "300"], cwd=cluster.home, env={"HADOOP_CONF_DIR": str(cluster.conf_dir)})
    try:
        assert cluster.stop().strays == 1
        assert stray.wait(timeout=10) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for process in (stray, other):
            process.kill()
            process.wait()


def test_a_taken_port_is_named_and_nothing_is_left_running(cluster: LocalCluster) -> None:
    cluster.stop()
    base = ports.choose(Path("/elsewhere"), 1, wanted=None, remembered=None).base
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", base + 14))
        thief.listen()
        with pytest.raises(Refused, match=rf"port {base + 14} is taken by .*\(pid {os.getpid()}\)"):
            cluster.start(replace(SMALL, port_base=base))
    assert cluster.status().daemons == ()


def test_a_daemon_that_cannot_start_is_explained_by_its_log_and_the_others_are_ended(tmp_path: Path) -> None:
    broken = LocalCluster(tmp_path / "broken")
    version = broken.home / "data" / "nn" / "current" / "VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("layoutVersion=nonsense\n")
    with pytest.raises(TonyError, match="namenode ended by itself") as raised:
        broken.start(SMALL)
    assert len(str(raised.value).splitlines()) > 1
    assert "tony cluster logs namenode" in str(raised.value.hint)
    assert broken.status().daemons == ()
    assert processes_of(broken) == []


def test_a_failing_maven_is_shown_with_its_last_lines_and_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mvn").write_text("#!/bin/sh\necho '[INFO] working'\necho '[ERROR] no such artifact'\nexit 1\n")
    (tmp_path / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TonyError, match=r"exit code 1[^$]*\[ERROR\] no such artifact"):
        jars.fetch(Path("/jdk"), lambda line: None, root=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "hadoop").iterdir()] == [".lock"]
