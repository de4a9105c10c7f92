"""Which cluster a command speaks to: by name, by Hadoop's configuration, by the site's file, or the local one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tony.errors import Problem, ProtocolError, UsageError
from tony.paths import state_dir
from tony.records import decode

if TYPE_CHECKING:
    from tony.containers import Cluster

Clusters = Mapping[str, Mapping[str, str]]
"""The site file's ``clusters``: name → conf_dir, bin_dir, storage, node_python, default."""

_NONE: Clusters = {}
_WAYS = """\
Three ways to name one:
    export HADOOP_CONF_DIR=/etc/hadoop/conf     the cluster whose configuration lies there
    tony cluster start                          a real YARN and HDFS on this machine
    --cluster local                             processes of this machine, no Java"""


@dataclass(frozen=True)
class Address:
    """A cluster before anybody speaks to it. `conf_dir` is empty for the local back-end; `called` is for people.

    `storage` is the base URL where it is not the default; `beat` False leaves skein's slow beat as it is.
    """

    called: str
    conf_dir: str = ""
    bin_dir: str = ""
    storage: str = ""
    node_python: str = ""
    rm_url: str = ""
    beat: bool = True

    @property
    def local(self) -> bool:
        """Whether jobs are processes of this machine."""
        return not self.conf_dir


LOCAL = Address("local")


@dataclass(frozen=True)
class _Running:
    """What ``tony cluster start`` writes to ``<state>/cluster/cluster.json``, as far as it matters here."""

    conf_dir: str
    bin_dir: str = ""
    rm_url: str = ""
    webhdfs_url: str = ""
    pids: Mapping[str, int] = field(default_factory=dict)
    start_marks: Mapping[str, int] = field(default_factory=dict)


def find(
    name: str | None, clusters: Clusters = _NONE, environ: Mapping[str, str] = os.environ, state: Path | None = None
) -> Address:
    """The cluster of that name, or the first that there is: HADOOP_CONF_DIR, site file, ``tony cluster``.

    Connects to nothing. Raises UsageError when there is none, or none of that name.
    """
    if name == "local":
        return LOCAL
    if name is not None and name != "yarn":
        return _named(name, clusters)
    conf_dir = environ.get("HADOOP_CONF_DIR")
    if conf_dir:
        bin_dir = str(Path(environ["HADOOP_HOME"]) / "bin") if environ.get("HADOOP_HOME") else ""
        return Address("HADOOP_CONF_DIR", conf_dir, bin_dir, environ.get("TONY_STORAGE", ""))
    if clusters:
        chosen = [one for one, entry in clusters.items() if entry.get("default", "").lower() in ("true", "yes", "1")]
        return _named((chosen or list(clusters))[0], clusters)
    running = _running(state or state_dir())
    if running is not None:
        return running
    raise UsageError([Problem("cluster", "no cluster is known.", hint=_WAYS)])


def choose(
    name: str | None, clusters: Clusters = _NONE, environ: Mapping[str, str] = os.environ, state: Path | None = None
) -> Cluster:
    """The back-end of `find`. Blocks only as its constructor does."""
    return connect(find(name, clusters, environ, state), state)


def connect(address: Address, state: Path | None = None) -> Cluster:
    """The back-end at that address; what it needs (skein, requests) is loaded only now."""
    if address.local:
        from tony.localjobs import LocalJobs

        return LocalJobs(state)
    from tony.hadoop import HadoopConf
    from tony.storage import storage_base
    from tony.yarn import YarnCluster

    storage = address.storage or None
    if storage is not None and storage.startswith("hdfs://"):
        conf = HadoopConf.load(address.conf_dir)
        authority = storage.split("/")[2]
        storage = storage_base(storage, conf.webhdfs_addresses(f"hdfs://{authority}"), conf.webhdfs_secure)
    bin_dir = Path(address.bin_dir) if address.bin_dir else None
    cluster: Cluster = YarnCluster(Path(address.conf_dir), bin_dir, storage=storage, beat=address.beat)
    return cluster


def _named(name: str, clusters: Clusters) -> Address:
    entry = clusters.get(name)
    if entry is None:
        known = ["local", "yarn", *clusters]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        raise UsageError([Problem("cluster", "no such cluster.", name, hint=hint)])
    return Address(
        name, entry["conf_dir"], entry.get("bin_dir", ""), entry.get("storage", ""), entry.get("node_python", "")
    )


def _running(state: Path) -> Address | None:
    from tony.processes import start_time

    try:
        found = decode((state / "cluster" / "cluster.json").read_bytes(), _Running)
    except (OSError, ProtocolError):
        return None
    alive = [start_time(pid) == str(found.start_marks.get(name, "")) for name, pid in found.pids.items()]
    if not alive or not all(alive):
        return None
    return Address("tony cluster", found.conf_dir, found.bin_dir, rm_url=found.rm_url)
