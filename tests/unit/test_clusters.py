"""Which cluster a command speaks to, in the promised order."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tony.clusters import LOCAL, find
from tony.errors import UsageError
from tony.processes import start_time

SITE = {
    "one": {"conf_dir": "/one", "bin_dir": "/one/bin"},
    "two": {"conf_dir": "/two", "default": "true", "storage": "hdfs://two/base", "node_python": "/py"},
}


def running(state: Path, *, mark: str | None = None) -> None:
    """What a running `tony cluster` writes; its one daemon is this process."""
    folder = state / "cluster"
    folder.mkdir(parents=True)
    started = start_time(os.getpid()) if mark is None else mark
    document = {"schema": "tony.cluster/1", "conf_dir": "/local/conf", "bin_dir": "/local/bin", "rm_url": "http://x"}
    document |= {"pids": {"rm": os.getpid()}, "start_marks": {"rm": int(started or 0)}}  # type: ignore[dict-item]
    (folder / "cluster.json").write_text(json.dumps(document))


def test_hadoops_configuration_wins_over_the_site_file_and_that_over_the_running_cluster(tmp_path: Path) -> None:
    running(tmp_path)
    environ = {"HADOOP_CONF_DIR": "/etc/hadoop/conf", "HADOOP_HOME": "/opt/hadoop"}
    first = find(None, SITE, environ, tmp_path)
    assert (first.conf_dir, first.bin_dir) == ("/etc/hadoop/conf", "/opt/hadoop/bin")
    second = find(None, SITE, {}, tmp_path)
    assert (second.called, second.conf_dir, second.storage, second.node_python) == (
        "two",
        "/two",
        "hdfs://two/base",
        "/py",
    )
    third = find(None, {}, {}, tmp_path)
    assert (third.conf_dir, third.bin_dir, third.rm_url) == ("/local/conf", "/local/bin", "http://x")


def test_a_name_wins_over_everything(tmp_path: Path) -> None:
    environ = {"HADOOP_CONF_DIR": "/etc/hadoop/conf"}
    assert find("local", SITE, environ, tmp_path) == LOCAL
    assert find("one", SITE, environ, tmp_path).conf_dir == "/one"
    assert find("yarn", SITE, environ, tmp_path).conf_dir == "/etc/hadoop/conf"


def test_no_cluster_names_the_three_ways(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find(None, {}, {}, tmp_path)
    hint = caught.value.problems[0].hint or ""
    assert all(way in hint for way in ("HADOOP_CONF_DIR", "tony cluster start", "--cluster local"))


def test_an_unknown_name_has_a_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find("locl", SITE, {}, tmp_path)
    assert caught.value.problems[0].hint == "Did you mean 'local'?"
    with pytest.raises(UsageError) as caught:
        find("xyzzy", SITE, {}, tmp_path)
    assert caught.value.problems[0].hint == "Known: local, yarn, one, two."


@pytest.mark.parametrize("mark", ["1", "0"])
def test_a_cluster_whose_processes_are_gone_does_not_count(tmp_path: Path, mark: str) -> None:
    running(tmp_path, mark=mark)
    with pytest.raises(UsageError):
        find(None, {}, {}, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"conf_dir": 3}', '{"conf_dir": "/x", "pids": {}}'])
def test_a_record_that_cannot_be_used_does_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "cluster.json").write_text(text)
    with pytest.raises(UsageError):
        find(None, {}, {}, tmp_path)
