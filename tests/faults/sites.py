"""The clusters that a walk can hurt jobs on: this machine's processes, or a YARN of the walk's own or of the user."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.injector import Site
from tony.clusters import Address, connect
from tony.localcluster import conf
from tony.localcluster.cluster import ClusterSettings, LocalCluster
from tony.localjobs import LocalJobs

SETTINGS = ClusterSettings(nodes=2, memory_mb=8192, vcores=64, gpus=8, queues=("default", "urgent"))

PROPERTIES = {
    # Virtual memory counts, but only what nobody maps by accident.
    "yarn.nodemanager.vmem-check-enabled": "true",
    "yarn.nodemanager.vmem-pmem-ratio": "200",
    # A queue that has less than its share gets it, by force, soon.
    "yarn.resourcemanager.scheduler.monitor.enable": "true",
    "yarn.resourcemanager.monitor.capacity.preemption.monitoring_interval": "1000",
    "yarn.resourcemanager.monitor.capacity.preemption.max_wait_before_kill": "2000",
    "yarn.resourcemanager.monitor.capacity.preemption.total_preemption_per_round": "1.0",
    "yarn.resourcemanager.monitor.capacity.preemption.natural_termination_factor": "1.0",
}
"""How YARN differs from the local cluster of `tony cluster start`: so that rarer faults can be had at all."""

_EXPIRY_S = 20
_KEYS = ("am-rm-tokens", "nm-tokens", "container-tokens")


def _short_lives(patience: float) -> dict[str, str]:
    """Tokens of masters, nodes and containers live about a minute; YARN wants three times the expiry at least."""
    expiry_s = int(_EXPIRY_S * patience)
    return {
        "yarn.am.liveness-monitor.expiry-interval-ms": f"{expiry_s}000",
        **{f"yarn.resourcemanager.{key}.master-key-rolling-interval-secs": f"{3 * expiry_s + 1}" for key in _KEYS},
    }


_real_files = conf.files


def _files(*arguments: Any, **named: Any) -> dict[str, str]:
    texts = _real_files(*arguments, **named)
    more = conf.site_xml(PROPERTIES).partition("<configuration>\n")[2]
    # Of two properties with one name Hadoop takes the later one.
    texts["yarn-site.xml"] = texts["yarn-site.xml"].replace("</configuration>\n", more)
    return texts


conf.files = _files


@dataclass(frozen=True)
class Ground:
    """Where a walk happens, as it can be told to another process. `home`: the daemons that may be hurt."""

    backend: str
    folder: Path
    conf_dir: Path | None = None
    bin_dir: Path | None = None
    home: Path | None = None
    patience: float = 1.0

    @property
    def hurtable(self) -> bool:
        """Whether its daemons may be killed."""
        return self.home is not None


def site_at(ground: Ground, state: Path) -> Site:
    """The back-end with a state folder of its own. Sets TONY_STATE_DIR of this process to that folder."""
    os.environ["TONY_STATE_DIR"] = str(state)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TONY_")}
    environment |= {"TONY_CLUSTER": ground.backend, "TONY_STATE_DIR": str(state)}
    if ground.backend == "local":
        return Site("local", environment, LocalJobs(state), state, patience=ground.patience)
    assert ground.conf_dir is not None and ground.bin_dir is not None, "a YARN has a conf and a bin folder"
    environment |= {"HADOOP_CONF_DIR": str(ground.conf_dir), "PATH": f"{ground.bin_dir}:{environment['PATH']}"}
    cluster = connect(Address("yarn", str(ground.conf_dir), str(ground.bin_dir)), state)
    own = LocalCluster(ground.home) if ground.home is not None else None
    return Site("yarn", environment, cluster, state, own, ground.patience)


@contextmanager
def ground(
    backend: str,
    conf_dir: Path | None = None,
    bin_dir: Path | None = None,
    keep: bool = False,
    patience: float = 1.0,
) -> Iterator[Ground]:
    """A folder and, for YARN without `conf_dir`, a cluster of its own; both go away with it, unless `keep`."""
    folder = Path(tempfile.mkdtemp(prefix="walk-"))
    own = LocalCluster(folder / "cluster") if backend == "yarn" and conf_dir is None else None
    try:
        if own is not None:
            PROPERTIES.update(_short_lives(patience))
            own.start(SETTINGS)
            yield Ground(backend, folder, own.conf_dir, own.bin_dir, own.home, patience)
        else:
            yield Ground(backend, folder, conf_dir, bin_dir, patience=patience)
    finally:
        if own is not None:
            own.stop()
        if keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_site() -> Iterator[tuple[Site, Path]]:
    """This machine's processes, and a folder for their jobs."""
    with ground("local") as where:
        site = site_at(where, where.folder / "state")
        try:
            yield site, where.folder
        finally:
            site.cluster.close()
