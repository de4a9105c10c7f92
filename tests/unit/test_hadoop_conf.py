"""Hadoop's configuration folder as `HadoopConf` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from tony.errors import UsageError
from tony.hadoop import HadoopConf


def site(folder: Path, name: str, properties: Mapping[str, str]) -> None:
    lines = [
        f"<property><name>{escape(n)}</name><value>{escape(v)}</value></property>" for n, v in properties.items()
    ]
    (folder / name).write_text(f"<configuration>{''.join(lines)}</configuration>")


def conf(folder: Path, **files: Mapping[str, str]) -> HadoopConf:
    site(folder, "core-site.xml", {})
    for name, properties in files.items():
        site(folder, f"{name}-site.xml", properties)
    return HadoopConf.load(folder)


def test_variables_are_expanded_from_properties_environment_and_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ada")
    monkeypatch.setenv("ROOM", "n1")
    found = conf(
        tmp_path,
        core={
            "host": "${env.ROOM}.example",
            "fs.defaultFS": "hdfs://${host}:${port}/",
            "port": "8020",
            "of": "/tmp/${user.name}/${env.NOT_SET-x}/${env.NOT_SET:-y}",
            "unknown": "${no.such.thing}",
        },
    )
    assert found.default_fs == "hdfs://n1.example:8020"
    assert found.get("of") == "/tmp/ada/x/y"
    assert found.get("unknown") == "${no.such.thing}"
    assert found.get("missing", "default") == "default"


def test_a_circle_of_variables_ends(tmp_path: Path) -> None:
    found = conf(tmp_path, core={"a": "${b}", "b": "x${a}"})
    assert (found.get("a") or "").startswith("x")


def test_a_final_property_is_not_overridden_by_a_later_file(tmp_path: Path) -> None:
    text = "<property><name>a</name><value>first</value><final>true</final></property>"
    (tmp_path / "core-site.xml").write_text(f"<configuration>{text}</configuration>")
    site(tmp_path, "yarn-site.xml", {"a": "second", "b": "c"})
    found = HadoopConf.load(tmp_path)
    assert (found.get("a"), found.get("b")) == ("first", "c")
    assert found.site("yarn-site.xml") == {"a": "second", "b": "c"}
    assert found.site("absent.xml") == {}


def test_included_files_are_read_and_a_circle_of_them_is_told(tmp_path: Path) -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{}"/>'
    (tmp_path / "core-site.xml").write_text(f"<configuration>{include.format('more.xml')}</configuration>")
    site(tmp_path, "more.xml", {"a": "b"})
    assert HadoopConf.load(tmp_path).get("a") == "b"
    (tmp_path / "more.xml").write_text(f"<configuration>{include.format('core-site.xml')}</configuration>")
    with pytest.raises(UsageError, match="includes"):
        HadoopConf.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]><configuration>&a;</configuration>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><configuration>&a;</configuration>',
        "<configuration><property>",
        "",
    ],
)
def test_hostile_and_broken_files_are_refused_with_their_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "core-site.xml").write_text(text)
    with pytest.raises(UsageError, match=r"core-site\.xml"):
        HadoopConf.load(tmp_path)


def test_a_folder_without_site_files_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither"):
        HadoopConf.load(tmp_path)
    with pytest.raises(UsageError, match="neither"):
        HadoopConf.load(tmp_path / "absent")


def test_the_configuration_is_found_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    assert HadoopConf.find() is None
    site(tmp_path, "yarn-site.xml", {"a": "b"})
    monkeypatch.setenv("YARN_CONF_DIR", str(tmp_path))
    found = HadoopConf.find()
    assert found is not None and found.get("a") == "b"


@pytest.mark.parametrize(
    ("properties", "addresses"),
    [
        ({}, ("http://localhost:8088",)),
        ({"yarn.resourcemanager.hostname": "rm"}, ("http://rm:8088",)),
        ({"yarn.resourcemanager.address": "rm:8032"}, ("http://rm:8088",)),
        (
            {"yarn.resourcemanager.hostname": "rm", "yarn.resourcemanager.webapp.address": "0.0.0.0:9000"},
            ("http://rm:9000",),
        ),
        (
            {
                "yarn.resourcemanager.hostname": "rm",
                "yarn.resourcemanager.webapp.address": "${yarn.resourcemanager.hostname}:80",
            },
            ("http://rm:80",),
        ),
        ({"yarn.resourcemanager.hostname": "rm", "yarn.http.policy": "HTTPS_ONLY"}, ("https://rm:8090",)),
        (
            {
                "yarn.resourcemanager.ha.enabled": "true",
                "yarn.resourcemanager.ha.rm-ids": "a, b",
                "yarn.resourcemanager.hostname.a": "one",
                "yarn.resourcemanager.webapp.address.b": "two:8000",
            },
            ("http://one:8088", "http://two:8000"),
        ),
        ({"yarn.resourcemanager.webapp.address": "[::1]:8000"}, ("http://[::1]:8000",)),
    ],
)
def test_resource_managers_are_found(
    tmp_path: Path, properties: Mapping[str, str], addresses: tuple[str, ...]
) -> None:
    assert conf(tmp_path, yarn=properties).rm_web_addresses() == addresses


HA = {
    "dfs.nameservices": "ns1,ns2",
    "dfs.ha.namenodes.ns1": "a,b",
    "dfs.namenode.rpc-address.ns1.a": "one:8020",
    "dfs.namenode.http-address.ns1.a": "one:9870",
    "dfs.namenode.rpc-address.ns1.b": "two:8020",
    "dfs.namenode.http-address.ns2": "three:50070",
}


@pytest.mark.parametrize(
    ("default", "hdfs", "file_system", "addresses"),
    [
        ("hdfs://nn:8020", {}, None, ("nn:9870",)),
        ("hdfs://nn", {"dfs.namenode.http-address": "0.0.0.0:50070"}, None, ("nn:50070",)),
        ("hdfs://nn:8020", {"dfs.namenode.http-address": "web:80"}, "hdfs://other:8020", ("other:9870",)),
        ("hdfs://ns1", HA, None, ("one:9870", "two:9870")),
        ("hdfs://ns1", HA, "hdfs://ns2", ("three:50070",)),
        ("hdfs://nn:8020", {"dfs.http.policy": "HTTPS_ONLY"}, None, ("nn:9871",)),
        ("webhdfs://gate:14000", {}, None, ("gate:14000",)),
        ("file:///", {}, None, ()),
        ("s3a://bucket", {}, None, ()),
    ],
)
def test_name_nodes_are_found(
    tmp_path: Path, default: str, hdfs: Mapping[str, str], file_system: str | None, addresses: tuple[str, ...]
) -> None:
    assert conf(tmp_path, core={"fs.defaultFS": default}, hdfs=hdfs).webhdfs_addresses(file_system) == addresses


def test_the_storage_base_is_complete_without_the_configuration(tmp_path: Path) -> None:
    found = conf(tmp_path, core={"fs.defaultFS": "hdfs://ns1"}, hdfs=HA)
    assert found.storage_base("ada") == "webhdfs://one:9870,two:9870/user/ada/.tony?fs=hdfs://ns1"
    assert conf(tmp_path, core={"fs.defaultFS": "s3a://bucket"}).storage_base("ada") == "s3a://bucket/user/ada/.tony"


def test_a_configuration_without_shared_storage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fs\.defaultFS"):
        conf(tmp_path).storage_base("ada")
