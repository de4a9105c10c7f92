"""Files of a job that somebody takes away while it runs, on a real YARN."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import time
from pathlib import Path

import pytest
from command_line import Running, Tony

from tony.localcluster.cluster import LocalCluster
from tony.storage import Storage
from tony.yarn import YarnCluster

pytestmark = pytest.mark.timeout(240)

JOB = """
name: taken-away
src: none
venv: none
roles:
  prepare: {instances: 1, memory: 256m, command: [sh, -c, "while [ ! -e %s/go ]; do sleep 0.1; done"]}
  worker:
    instances: 2
    memory: 256m
    command: [cat, words.txt]
    files: [words.txt]
    depends_on: [prepare]
am: {memory: 1g}
"""


@pytest.fixture(params=["yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_that_is_removed_after_the_submit_is_named_and_not_tried_again(
    tony: Tony, yarn_cluster: LocalCluster, tmp_path: Path
) -> None:
    words = f"the words of this test, {time.time()}\n".encode()
    (tmp_path / "words.txt").write_bytes(words)
    (tmp_path / "job.yaml").write_text(JOB % tmp_path)
    process = subprocess.Popen(
        tony.command("--json", "submit", "-f", "job.yaml", "--tag", tony.tag),
        cwd=tmp_path,
        env=tony.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    tony.started.append(process)
    job = Running(tony, process)
    job.processes("executor", 1)
    sha256 = hashlib.sha256(words).hexdigest()
    with contextlib.closing(YarnCluster(yarn_cluster.conf_dir, yarn_cluster.bin_dir)) as yarn:
        storage = Storage(yarn.storage)
        uploads = [entry.name for entry in storage.entries("cache") if entry.name.startswith(sha256)]
        assert len(uploads) == 1
        storage.remove(f"cache/{uploads[0]}")
        storage.close()
    (tmp_path / "go").touch()
    code, document = job.result()
    assert (code, document["reason"], document["generations"]) == (104, "ARTIFACT_CHANGED", 1), document
    assert f"{sha256}" in document["first_failure"]["message"]
    assert "was removed after the submit" in document["first_failure"]["message"]
