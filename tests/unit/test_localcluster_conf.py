"""The configuration folder, the commands and the daemons' command lines, as texts."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tony.localcluster import conf, daemons, shim
from tony.localcluster.ports import Ports
from tony.localcluster.settings import ClusterSettings

HOME, JARS = Path("/state/cluster"), Path("/cache/jars")
SETTINGS = ClusterSettings(nodes=2, memory_mb=8192, vcores=64, gpus=8, queues=("a", "b", "c"), labels=((2, "gpu"),))


def properties(name: str, settings: ClusterSettings = SETTINGS) -> dict[str, str]:
    texts = conf.files(HOME, JARS, Ports(21000, settings.nodes), settings, user="ann", user_home="/home/ann")
    root = ElementTree.fromstring(texts[name].encode())
    return {item.findtext("name") or "": item.findtext("value") or "" for item in root}


def test_nodes_offer_their_share_and_no_container_may_ask_for_more() -> None:
    yarn = properties("yarn-site.xml")
    assert yarn["yarn.nodemanager.resource.memory-mb"] == "4096"
    assert yarn["yarn.scheduler.maximum-allocation-mb"] == "4096"
    assert yarn["yarn.scheduler.maximum-allocation-vcores"] == "32"
    assert properties("node-resources.xml") == {"yarn.nodemanager.resource-type.yarn.io/gpu": "4"}
    assert properties("resource-types.xml") == {"yarn.resource-types": "yarn.io/gpu"}


def test_memory_limits_are_left_to_the_node_manager_which_kills() -> None:
    assert properties("yarn-site.xml")["yarn.nodemanager.resource.memory.enforced"] == "false"


def test_everything_listens_on_loopback_only() -> None:
    for name in ("core-site.xml", "hdfs-site.xml", "yarn-site.xml"):
        for key, value in properties(name).items():
            if key.endswith(("address", "hostname", "defaultFS")):
                assert "127.0.0.1" in value, key


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 11])
def test_queue_shares_sum_to_exactly_one_hundred(count: int) -> None:
    assert sum(round(float(share) * 100) for share in conf.shares(count)) == 10000


def test_every_queue_may_use_the_whole_cluster_and_every_label() -> None:
    queues = properties("capacity-scheduler.xml")
    assert queues["yarn.scheduler.capacity.root.queues"] == "a,b,c"
    for queue in "abc":
        name = f"yarn.scheduler.capacity.root.{queue}"
        assert queues[f"{name}.maximum-capacity"] == "100"
        assert queues[f"{name}.accessible-node-labels.gpu.maximum-capacity"] == "100"
        assert queues[f"{name}.accessible-node-labels.gpu.capacity"] == queues[f"{name}.capacity"]


def test_paths_with_markup_survive_in_xml() -> None:
    root = ElementTree.fromstring(conf.site_xml({"a<b": "x&y"}).encode())
    assert [(item.findtext("name"), item.findtext("value")) for item in root] == [("a<b", "x&y")]


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    conf.write_whole(tmp_path / "f", "one")
    conf.write_whole(tmp_path / "f", "two", mode=0o755)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "two")]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o755


def test_node_managers_differ_by_their_command_line() -> None:
    ports = Ports(21000, 2)
    first, second = (
        daemons.command(Path("/java"), HOME, JARS, ports, name) for name in ("nodemanager-1", "nodemanager-2")
    )
    assert "yarn.nodemanager.address=127.0.0.1:21020" in first
    assert "yarn.nodemanager.address=127.0.0.1:21023" in second
    assert "yarn.nodemanager.local-dirs=/state/cluster/data/nm2/local" in second
    assert first[-1] == "yarn.nodemanager.recovery.dir=/state/cluster/data/nm1/recovery"


def test_daemons_get_no_hadoop_settings_of_the_user() -> None:
    mine = {"PATH": "/bin", "HADOOP_HOME": "/opt/h", "CLASSPATH": "x.jar", "JAVA_TOOL_OPTIONS": "-Xmx1g"}
    assert daemons.environment(HOME, Path("/jdk"), mine) == {
        "PATH": "/bin",
        "JAVA_HOME": "/jdk",
        "HADOOP_CONF_DIR": "/state/cluster/conf",
        "TONY_LOCAL_CLUSTER": "/state/cluster",
    }


def test_the_commands_are_valid_shell_with_every_path_quoted(tmp_path: Path) -> None:
    shim.write(tmp_path, conf=Path("/a b/conf"), jars=Path("/j'j"), java=Path("/jdk/bin/java"), tmp=Path("/t"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hadoop", "hdfs", "yarn"]
    text = (tmp_path / "yarn").read_text()
    assert "conf='/a b/conf'" in text
    assert (tmp_path / "yarn").stat().st_mode & 0o777 == 0o755
