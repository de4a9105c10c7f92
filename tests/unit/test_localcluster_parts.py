"""Ports, Java's own words, the record, left-overs, log excerpts: the small parts of the local cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import MappingProxyType

import pytest

from tony.errors import Refused, TonyError, UsageError
from tony.localcluster import daemons, jars, java, launch, leftovers, ports, record
from tony.localcluster.cluster import LocalCluster
from tony.localcluster.daemons import Pid
from tony.localcluster.ports import Ports
from tony.localcluster.record import ClusterRecord
from tony.localcluster.settings import ClusterSettings

SETTINGS = ClusterSettings(nodes=2, memory_mb=2048, vcores=4)
HOME = Path("/state/cluster")


def test_no_port_of_a_cluster_is_used_twice() -> None:
    everything = Ports(21000, 16).all()
    assert len(set(everything)) == len(everything) == 10 + 3 * 16
    assert max(everything) < 21000 + ports.BLOCK


def test_every_port_belongs_to_one_daemon() -> None:
    cluster = Ports(21000, 2)
    owned = [port for name in daemons.daemon_names(2) for port in cluster.of_daemon(name)]
    assert sorted(owned) == sorted(cluster.all())


def test_the_remembered_ports_come_back_when_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    assert ports.choose(HOME, 2, wanted=None, remembered=23400).base == 23400


def test_taken_remembered_ports_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != 23414)
    chosen = ports.choose(HOME, 2, wanted=None, remembered=23400)
    assert 23414 not in chosen.all()


def test_chosen_ports_lie_below_the_kernels_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    for number in range(50):
        assert max(ports.choose(Path(f"/home/{number}"), 16, wanted=None, remembered=None).all()) < 32768


def test_two_homes_begin_their_search_at_different_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    bases = {ports.choose(Path(f"/home/{n}"), 1, wanted=None, remembered=None).base for n in range(20)}
    assert len(bases) > 10


def test_a_wanted_port_that_is_taken_is_named_with_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != 21014)
    monkeypatch.setattr(ports, "holder", lambda port: "nginx (pid 7)")
    with pytest.raises(Refused, match=r"port 21014 is taken by nginx \(pid 7\)"):
        ports.choose(HOME, 1, wanted=21000, remembered=None)


def test_no_free_block_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(Refused, match="no free block"):
        ports.choose(HOME, 1, wanted=None, remembered=21000)


def test_java_is_read_from_its_own_properties() -> None:
    text = "Property settings:\n    java.home = /usr/lib/jvm/17\n    java.specification.version = 17\nopenjdk 17"
    assert java.parse_properties(text, "PATH") == java.Java(Path("/usr/lib/jvm/17"), 17)


def test_the_version_scheme_of_java_eight_is_understood() -> None:
    text = "    java.home = /jre\n    java.specification.version = 1.8\n"
    assert java.parse_properties(text, "PATH").version == 8


def test_an_old_java_is_refused_with_its_origin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("")
    (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(
        java, "_properties", lambda command, origin: "java.home = /old\njava.specification.version = 11\n"
    )
    with pytest.raises(Refused, match=r"Java 11 is too old.*JAVA_HOME="):
        java.find_java()


def test_no_java_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="no Java found") as raised:
        java.find_java()
    assert "install a Java 17" in str(raised.value.hint)


def test_a_java_home_without_java_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Refused, match=f"JAVA_HOME={tmp_path} has no bin/java"):
        java.find_java()


def test_no_maven_is_refused_and_leaves_nothing_half_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(Refused, match="no Maven"):
        jars.fetch(Path("/jdk"), lambda line: None, root=tmp_path)
    assert [path.name for path in (tmp_path / "hadoop").iterdir()] == [".lock"]


def test_a_jar_folder_with_a_missing_or_cut_jar_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "a.jar").write_bytes(b"12345")
    assert not jars.is_complete(tmp_path)
    (tmp_path / "complete.json").write_text(json.dumps({"sizes": {"a.jar": 5}}))
    assert jars.is_complete(tmp_path)
    (tmp_path / "a.jar").write_bytes(b"1234")
    assert not jars.is_complete(tmp_path)
    (tmp_path / "a.jar").unlink()
    assert not jars.is_complete(tmp_path)


def test_the_jar_folder_is_named_by_version_and_pom(tmp_path: Path) -> None:
    assert jars.jars_folder(tmp_path).name.startswith("3.5.0-")


def test_mavens_own_errors_are_shown_before_its_chatter() -> None:
    lines = ["[INFO] a", "[ERROR] no such artifact", "[ERROR]", "[INFO] b"]
    assert jars.maven_failure(lines) == "    [ERROR] no such artifact"
    assert jars.maven_failure(["one", "two"]) == "    one\n    two"


def a_record(**pids: Pid) -> ClusterRecord:
    return ClusterRecord(
        settings=SETTINGS,
        port_base=21000,
        jars_dir=Path("/jars"),
        java_home=Path("/jdk"),
        hadoop_version="3.5.0",
        started_at=12.5,
        pids=MappingProxyType(pids),
    )


def test_the_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    kept = a_record(namenode=Pid(4, 99))
    record.write(tmp_path, kept)
    assert record.read(tmp_path) == kept


def test_the_record_tells_a_client_how_to_reach_the_cluster(tmp_path: Path) -> None:
    record.write(tmp_path, a_record(namenode=Pid(4, 99)))
    document = json.loads((tmp_path / "cluster.json").read_text())
    assert document["conf_dir"] == f"{tmp_path}/conf"
    assert document["bin_dir"] == f"{tmp_path}/bin"
    assert document["rm_url"] == "http://127.0.0.1:21014"
    assert document["webhdfs_url"] == "http://127.0.0.1:21001"
    assert document["pids"] == {"namenode": 4}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "tony.cluster/99"}', "\x00"])
def test_a_record_that_cannot_be_understood_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    assert record.read(tmp_path) is None


def test_our_own_process_is_alive_and_a_reused_pid_is_not() -> None:
    mine = Pid.of(os.getpid())
    assert mine.alive()
    assert not Pid(mine.pid, mine.started - 1).alive()
    assert not Pid(mine.pid, -1).alive()


@pytest.mark.parametrize(
    ("environment", "folder", "has_terminal", "expected"),
    [
        ({"TONY_LOCAL_CLUSTER": "/state/cluster"}, "/", False, True),
        ({"TONY_LOCAL_CLUSTER": "/state/cluster2"}, "/", False, False),
        ({"LOCAL_DIRS": "/state/cluster/data/nm1/local/usercache/u/appcache/a"}, "/", True, True),
        ({"LOCAL_DIRS": "/other/data/nm1/local/usercache/u/appcache/a"}, "/", False, False),
        ({}, "/state/cluster/data/nm2/local/usercache/u/appcache/a/c", False, True),
        ({}, "/state/cluster/data/nm2/local/usercache/u/appcache/a/c", True, False),
        ({"HADOOP_CONF_DIR": "/state/cluster/conf"}, "/state/cluster/logs", False, False),
    ],
)
def test_only_containers_and_daemons_belong_to_a_cluster(
    environment: dict[str, str], folder: str, has_terminal: bool, expected: bool
) -> None:
    assert leftovers.belongs(HOME, environment, folder, has_terminal=has_terminal) is expected


def test_the_end_of_a_log_is_shown_without_stack_frames() -> None:
    lines = [
        "2026 INFO a.B: fine",
        "2026 ERROR a.B: Failed to start namenode.",
        "java.io.IOException: no room",
        "\tat a.b.C(D.java:1)",
        "\t... 3 more",
        "/************",
        "SHUTDOWN_MSG: bye",
    ]
    assert launch.telling(lines) == ["2026 ERROR a.B: Failed to start namenode.", "java.io.IOException: no room"]


def test_only_what_this_start_wrote_is_blamed(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("old error\nnew line\n")
    assert launch.lines_since(log, len("old error\n")) == ["new line"]
    assert launch.lines_since(log, 10_000) == ["old error", "new line"]  # rotated meanwhile
    assert launch.lines_since(tmp_path / "none", 0) == []


def test_a_death_by_a_taken_port_names_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "namenode.log").write_text("java.net.BindException: Port in use: 127.0.0.1:21001\n")
    monkeypatch.setattr(launch, "holder", lambda port: "nginx (pid 7)" if port == 21001 else None)
    error = launch.death(tmp_path, Ports(21000, 1), "namenode", 0)
    assert str(error) == "namenode could not start: port 21001 is taken by nginx (pid 7)"


def test_a_silent_death_says_so(tmp_path: Path) -> None:
    error = launch.death(tmp_path, Ports(21000, 1), "namenode", 0)
    assert "namenode ended by itself" in str(error)
    assert "it wrote nothing" in str(error)


def test_a_log_is_cut_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert daemons.last_lines(log, 2) == ["line 98", "line 99"]
    assert daemons.last_lines(log, 0) == []


def test_a_cluster_that_was_never_started_is_stopped_and_says_so(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "none")
    assert cluster.status().running is False
    assert cluster.stop().daemons == 0
    assert not (tmp_path / "none").exists()
    with pytest.raises(TonyError, match="never started"):
        _ = cluster.rm_url


def test_the_users_own_cluster_lives_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONY_STATE_DIR", str(tmp_path))
    assert LocalCluster.default().home == tmp_path / "cluster"


def test_impossible_settings_are_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not divide"):
        LocalCluster(tmp_path / "c").start(ClusterSettings(nodes=2, memory_mb=2048, vcores=3))
    assert not (tmp_path / "c").exists()


def test_a_home_that_hadoop_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Hadoop cannot use the state folder"):
        LocalCluster(tmp_path / "a b").start(SETTINGS)


def test_a_second_start_at_the_same_time_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    first, second = LocalCluster(tmp_path), LocalCluster(tmp_path)
    with first._lock(), pytest.raises(Refused, match=rf"in progress \(pid {os.getpid()}\)"), second._lock():
        raise AssertionError("both hold the lock")
    with second._lock():
        pass
