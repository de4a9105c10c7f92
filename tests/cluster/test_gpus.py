"""GPUs on a real YARN that counts them, with an ``nvidia-smi`` on its nodes that shows all of them to everybody."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import JOBS, Tony

from tony.localcluster.cluster import ClusterSettings, LocalCluster

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has an nvidia-smi of its own"),
]

README = (Path(__file__).parents[2] / "README.md").read_text()
DEVICES = 32
SMI = f"""#!/bin/sh
case "$1" in
-L) for n in $(seq 0 {DEVICES - 1}); do echo "GPU $n: Tesla T4 (UUID: GPU-cluster-test-$n)"; done ;;
*) echo "35, 1024, 61, 0" ;;
esac
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two nodes with 16 counted GPUs each, and as much memory on paper as the README's job asks for."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "nvidia-smi").write_text(SMI)
    (programs / "nvidia-smi").chmod(0o755)
    own = LocalCluster(tmp_path_factory.mktemp("own"))
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        try:
            own.start(ClusterSettings(nodes=2, memory_mb=160 * 1024, vcores=64, gpus=DEVICES))
            yield own
        finally:
            own.stop()


@pytest.fixture
def tony(cluster: LocalCluster, tmp_path: Path) -> Tony:
    environment = {
        **os.environ,
        "TONY_STATE_DIR": str(tmp_path / "state"),
        "HADOOP_CONF_DIR": str(cluster.conf_dir),
        "PATH": f"{cluster.bin_dir}:{os.environ['PATH']}",
    }
    return Tony("yarn", environment, tmp_path, "gpus")


def test_eight_workers_with_four_gpus_each_get_32_different_ones(tony: Tony) -> None:
    (tony.folder / "train.py").write_text((JOBS / "shows_gpus.py").read_text())
    as_in_the_readme = next(
        line for line in README.splitlines() if line.startswith("tony submit --workers 8 --gpus 4")
    )
    done = tony.run("--json", *shlex.split(as_in_the_readme, comments=True)[1:], timeout_s=200)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"rank (\d) local 0 devices (\S+)", done.stdout + done.stderr)
    assert sorted(rank for rank, _ in said) == [str(rank) for rank in range(8)]
    assert {len(devices.split(",")) for _, devices in said} == {4}
    assert len({device for _, devices in said for device in devices.split(",")}) == DEVICES
    document = json.loads(done.stdout.splitlines()[-1])
    tasks = document["tasks"]
    assert [len(task["gpus"]) for task in tasks] == [4] * 8
    assert tasks[0]["gpus"][0].startswith("GPU ")
    heads, *rows = tony.run("status", document["application_id"]).stdout.strip().splitlines()[-9:]
    column = heads.split().index("GPUS") - len(heads.split())
    numbers = [number for row in rows for number in row.split()[column].split(",")]
    assert sorted(numbers, key=int) == [str(number) for number in range(DEVICES)]


def test_one_process_for_each_gpu_and_none_for_those_without(tony: Tony) -> None:
    sizes = ("--workers", "2", "--memory", "256m", "--venv", "none")
    script = str(JOBS / "shows_gpus.py")
    done = tony.run("--json", "submit", *sizes, "--gpus", "4", "--procs-per-task", "auto", script)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"rank (\d) local (\d) devices (\S+)", done.stdout + done.stderr)
    assert sorted((rank, local) for rank, local, _ in said) == [(str(n), str(n % 4)) for n in range(8)]
    assert len({devices for _, _, devices in said}) == 2

    done = tony.run("--json", "submit", *sizes, script)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"devices (\S+)", done.stdout + done.stderr) == ["none", "none"]
