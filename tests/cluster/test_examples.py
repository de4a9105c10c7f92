"""Every example trains in containers of a real YARN and reaches the accuracy that its README states."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training import ALL, TIMEOUT_S, Example, assert_trained, submit
from tony.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)


@pytest.mark.parametrize("example", ALL, ids=str)
def test_the_example_trains_on_yarn(example: Example, yarn_cluster: LocalCluster, tmp_path: Path) -> None:
    environment = {
        "HADOOP_CONF_DIR": str(yarn_cluster.conf_dir),
        "PATH": f"{yarn_cluster.bin_dir}:{os.environ['PATH']}",
        "TONY_STATE_DIR": str(tmp_path),
    }
    done = submit(example, "--am-memory", "1g", environment=environment)
    assert_trained(example, done)
