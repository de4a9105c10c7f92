"""`cluster.json`: what is known about the local cluster, for the next command and for the submitting client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tony.localcluster.conf import write_whole
from tony.localcluster.daemons import Pid
from tony.localcluster.ports import LOOPBACK, Ports
from tony.localcluster.settings import ClusterSettings

FILE = "cluster.json"
SCHEMA = "tony.cluster/1"


@dataclass(frozen=True)
class ClusterRecord:
    """The cluster as it was last started. `pids` is empty when it was stopped."""

    settings: ClusterSettings
    port_base: int
    jars_dir: Path
    java_home: Path
    hadoop_version: str
    started_at: float
    pids: Mapping[str, Pid] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ports(self) -> Ports:
        return Ports(self.port_base, self.settings.nodes)

    @property
    def rm_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.rm_http}"

    @property
    def webhdfs_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.namenode_http}"

    @property
    def hdfs_url(self) -> str:
        return f"hdfs://{LOOPBACK}:{self.ports.namenode_rpc}"


def write(home: Path, record: ClusterRecord) -> None:
    """Replace the record in one step."""
    document = {
        "schema": SCHEMA,
        "conf_dir": str(home / "conf"),
        "bin_dir": str(home / "bin"),
        "jars_dir": str(record.jars_dir),
        "java_home": str(record.java_home),
        "hadoop_version": record.hadoop_version,
        "rm_url": record.rm_url,
        "webhdfs_url": record.webhdfs_url,
        "hdfs_url": record.hdfs_url,
        "port_base": record.port_base,
        "settings": record.settings.to_record(),
        "started_at": record.started_at,
        "pids": {name: pid.pid for name, pid in record.pids.items()},
        "start_marks": {name: pid.started for name, pid in record.pids.items()},
    }
    write_whole(home / FILE, json.dumps(document, indent=1) + "\n")


def read(home: Path) -> ClusterRecord | None:
    """The record, or None when there is none or it cannot be understood (written by another version)."""
    try:
        document = json.loads((home / FILE).read_text())
        if document["schema"] != SCHEMA:
            return None
        marks = document["start_marks"]
        pids = {str(name): Pid(int(pid), int(marks[name])) for name, pid in document["pids"].items()}
        return ClusterRecord(
            settings=ClusterSettings.from_record(document["settings"]),
            port_base=int(document["port_base"]),
            jars_dir=Path(document["jars_dir"]),
            java_home=Path(document["java_home"]),
            hadoop_version=str(document["hadoop_version"]),
            started_at=float(document["started_at"]),
            pids=MappingProxyType(pids),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
