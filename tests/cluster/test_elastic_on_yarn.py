"""Jobs that change their size, on a real YARN of two nodes with 4 GiB each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Running, Tony, wait_for

pytestmark = pytest.mark.timeout(300)

QUICK = ("-c", "gang_timeout=8s", "-c", "times.growth=5s", "-c", "stop_grace=5s")


@pytest.fixture(params=["yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoints"
    made.mkdir()
    return made


def starts(folder: Path, generation: int) -> list[list[object]]:
    """What the tasks of a generation found: generation, rank, world size, first step, index; by rank."""
    path = folder / "starts.txt"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted((line for line in lines if line[0] == generation), key=lambda line: line[1])


@contextlib.contextmanager
def full_cluster(tony: Tony, folder: Path, workers: int) -> Iterator[Running]:
    """Another job that holds so many containers of 1 GiB."""
    other = folder.parent / "other"
    other.mkdir()
    flags = ("--workers", str(workers), "--memory", "1g")
    holder = tony.begin("counts_to.py", "100000", str(other), flags=flags)
    wait_for(lambda: len(starts(other, 1)) == workers)
    yield holder
    (other / "enough").touch()
    assert holder.result()[0] == 0


def test_a_job_is_resized_up_and_down_and_goes_on_from_its_checkpoint(tony: Tony, folder: Path) -> None:
    flags = ("--min-workers", "1", "--max-workers", "4", "-c", "stop_grace=5s")
    job = tony.begin("counts_to.py", "100000", str(folder), flags=flags)
    application_id = job.application_id()
    wait_for(lambda: len(starts(folder, 1)) == 2)
    assert tony.run("resize", application_id, "4", "--timeout", "1m").returncode == 0
    wait_for(lambda: len(starts(folder, 2)) == 4)
    assert tony.run("resize", application_id, "1", "--timeout", "1m").returncode == 0
    wait_for(lambda: len(starts(folder, 3)) == 1)
    (folder / "enough").touch()
    code, document = job.result()
    assert (code, document["generations"]) == (0, 3), document
    worlds = [[line[1:3] for line in starts(folder, generation)] for generation in (1, 2, 3)]
    assert worlds == [[[0, 2], [1, 2]], [[rank, 4] for rank in range(4)], [[0, 1]]]
    steps = [int(str(starts(folder, generation)[0][3])) for generation in (1, 2, 3)]
    assert 0 == steps[0] < steps[1] < steps[2]


def test_a_job_starts_smaller_on_a_full_cluster_and_grows_when_there_is_room(tony: Tony, folder: Path) -> None:
    with full_cluster(tony, folder, 4) as holder:
        flags = ("--workers", "3", "--min-workers", "1", "--memory", "1g", *QUICK)
        job = tony.begin("counts_to.py", "100000", str(folder), flags=flags)
        first = wait_for(lambda: starts(folder, 1), timeout_s=90.0)
        world = int(str(first[0][2]))
        assert 1 <= world < 3
        wait_for(lambda: len(starts(folder, 1)) == world)
        assert holder.process.poll() is None
    wait_for(lambda: any(len(starts(folder, generation)) == 3 for generation in (2, 3, 4)), timeout_s=90.0)
    (folder / "enough").touch()
    code, document = job.result()
    assert code == 0, document
    assert document["first_failure"] is None
