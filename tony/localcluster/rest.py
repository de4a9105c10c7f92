"""The few web calls to our own daemons: health, first folders of HDFS, node labels. Loopback only, never a proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from tony.errors import Unreachable
from tony.localcluster.ports import LOOPBACK, Ports

_TIMEOUT_S = 3.0
_CHANGE_TIMEOUT_S = 20.0
_FS_STATE = "Hadoop:service=NameNode,name=FSNamesystemState"


@dataclass(frozen=True)
class Health:
    """What the daemons say of themselves; None where one does not answer (yet)."""

    active_nodes: int | None
    unhealthy_nodes: int | None
    running_applications: int | None
    live_datanodes: int | None
    hdfs_state: str | None

    def hdfs_ready(self) -> bool:
        return self.hdfs_state == "Operational" and (self.live_datanodes or 0) > 0


def health(ports: Ports) -> Health:
    """Ask ResourceManager and NameNode how they are. Takes at most a few seconds, raises nothing."""
    metrics = _json(f"http://{LOOPBACK}:{ports.rm_http}/ws/v1/cluster/metrics").get("clusterMetrics") or {}
    beans = _json(f"http://{LOOPBACK}:{ports.namenode_http}/jmx", {"qry": _FS_STATE}).get("beans") or [{}]
    return Health(
        active_nodes=metrics.get("activeNodes"),
        unhealthy_nodes=metrics.get("unhealthyNodes"),
        running_applications=metrics.get("appsRunning"),
        live_datanodes=beans[0].get("NumLiveDataNodes"),
        hdfs_state=beans[0].get("FSState"),
    )


def make_folder(ports: Ports, path: str, permission: str, user: str) -> None:
    """Create a folder in HDFS; one that exists already is left alone. Raises Unreachable."""
    url = f"http://{LOOPBACK}:{ports.namenode_http}/webhdfs/v1{path}"
    with _session() as session:
        try:
            there = session.get(url, params={"op": "GETFILESTATUS", "user.name": user}, timeout=_CHANGE_TIMEOUT_S)
            if there.status_code == 200:
                return
            wanted = {"op": "MKDIRS", "permission": permission, "user.name": user}
            answer = session.put(url, params=wanted, timeout=_CHANGE_TIMEOUT_S)
        except requests.RequestException as error:
            raise Unreachable(f"the local HDFS does not answer: {error}") from error
        if answer.status_code != 200:
            raise Unreachable(f"the local HDFS refused to create {path}: {answer.text[:500]}")


def set_labels(ports: Ports, labels: Mapping[int, str], nodes: int) -> None:
    """Give node number → label; the other nodes have none afterwards. Raises Unreachable with YARN's words."""
    names = sorted(set(labels.values()))
    if names:
        _change(ports, "add-node-labels", {"nodeLabelInfo": [{"name": name, "exclusivity": True} for name in names]})
    known = [
        {"nodeId": f"localhost:{ports.node(number)[0]}", "labels": [labels[number]] if number in labels else []}
        for number in range(1, nodes + 1)
    ]
    _change(ports, "replace-node-to-labels", {"nodeToLabels": known})


def _change(ports: Ports, what: str, body: Mapping[str, Any]) -> None:
    url = f"http://{LOOPBACK}:{ports.rm_http}/ws/v1/cluster/{what}"
    with _session() as session:
        try:
            answer = session.post(url, json=body, timeout=_CHANGE_TIMEOUT_S)
        except requests.RequestException as error:
            raise Unreachable(f"the local ResourceManager does not answer: {error}") from error
        if answer.status_code != 200:
            raise Unreachable(f"the local ResourceManager refused {what}: {answer.text[:500]}")


def _json(url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
    with _session() as session:
        try:
            answer = session.get(url, params=params, timeout=_TIMEOUT_S)
            found = answer.json() if answer.status_code == 200 else {}
        except (requests.RequestException, ValueError):
            return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # a proxy of the user's must not see loopback
        yield session
