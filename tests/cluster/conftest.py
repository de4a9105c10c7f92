"""One real Hadoop for all tests of this folder: started once, in a home of its own, stopped at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tony.localcluster.cluster import ClusterSettings, LocalCluster

YARN_SETTINGS = ClusterSettings(nodes=2, memory_mb=8192, vcores=64, gpus=8, queues=("default", "batch"))


@pytest.fixture(scope="session")
def yarn_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A healthy cluster: 2 nodes of 4 GiB, 32 vcores and 4 counted GPUs each, queues default and batch.

    Tests share it: give each its own application, and leave daemons and queues as they were.
    """
    cluster = LocalCluster(tmp_path_factory.mktemp("yarn"))
    try:
        cluster.start(YARN_SETTINGS)
        yield cluster
    finally:
        cluster.stop()
