"""A job whose size changes while it trains, as processes of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Tony, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def backend() -> str:
    return "local"


def starts(folder: Path, generation: int) -> list[list[object]]:
    """What the tasks of a generation found: generation, rank, world size, first step, index; by rank."""
    path = folder / "starts.txt"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted((line for line in lines if line[0] == generation), key=lambda line: line[1])


def test_a_training_job_is_resized_down_and_up_and_loses_no_step(tony: Tony, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    flags = ("--workers", "3", "--min-workers", "1", "--max-workers", "4")
    job = tony.begin("counts_to.py", "100000", str(folder), flags=flags)
    application_id = job.application_id()
    wait_for(lambda: len(starts(folder, 1)) == 3)

    done = tony.run("--json", "resize", application_id, "2")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["before"], document["now"], document["generation"]) == (3, 2, 2)
    wait_for(lambda: len(starts(folder, 2)) == 2)
    first, second = starts(folder, 2)
    assert first[1:3] == [0, 2] and second[1:3] == [1, 2]
    assert int(str(first[3])) > 0, "it went on from its checkpoint"

    done = tony.run("--json", "resize", application_id, "4", "--timeout", "1m")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(starts(folder, 3)) == 4)
    grown = starts(folder, 3)
    assert [line[1:3] for line in grown] == [[rank, 4] for rank in range(4)]
    assert int(str(grown[0][3])) > int(str(first[3]))

    done = tony.run("resize", application_id, "5")
    assert done.returncode == 2 and "worker may have 1 to 4 tasks, not 5" in done.stderr
    (folder / "enough").touch()
    code, document = job.result()
    assert (code, document["generations"]) == (0, 3), document


def test_a_job_of_fixed_size_is_not_resized(tony: Tony) -> None:
    job = tony.begin("sleeps.py", "600")
    application_id = job.application_id()
    job.processes("user")
    done = tony.run("resize", application_id, "3")
    assert done.returncode == 2 and "its size is fixed" in done.stderr
    assert tony.run("kill", application_id).returncode == 0
    assert tony.run("resize", application_id, "3").returncode == 2
    assert job.result()[0] == 103


def test_a_job_that_cannot_change_its_size_is_refused_at_submit(tony: Tony) -> None:
    done = tony.submit("exit_0.py", flags=("--min-workers", "1", "--framework", "standalone"))
    assert done.returncode == 2 and "cannot change its size" in done.stderr
    done = tony.submit("exit_0.py", flags=("--min-workers", "3"))
    assert done.returncode == 2 and "is more than the 2 that are asked for" in done.stderr
