"""Every example trains as a job of this machine's processes and reaches the accuracy that its README states."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.training import (
    ALL,
    EXAMPLES,
    HELLO,
    MULTIWORKER,
    PYTORCH,
    TIMEOUT_S,
    Example,
    assert_trained,
    finish,
    start,
    submit,
    user_process,
)

pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)


def local(example: Example, folder: Path, *flags: str) -> str:
    done = submit(example, "--cluster", "local", *flags, environment={"TONY_STATE_DIR": str(folder / "state")})
    assert_trained(example, done)
    return f"{done.stdout}\n{done.stderr}"


def test_every_example_is_listed_and_explained() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/job.yaml")}
    assert folders == {example.name for example in ALL}
    overview = (EXAMPLES / "README.md").read_text()
    for folder in folders:
        assert (EXAMPLES / folder / "README.md").is_file()
        assert f"]({folder})" in overview


@pytest.mark.parametrize("example", [example for example in ALL if example is not PYTORCH], ids=str)
def test_the_example_trains(example: Example, tmp_path: Path) -> None:
    said = local(example, tmp_path)
    if example is HELLO:
        assert "hello from rank 0 of 2" in said
        assert "hello from rank 1 of 2" in said


def test_pytorch_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    flags = ("--checkpoint-dir", str(tmp_path / "checkpoints"))
    assert "resumed" not in local(PYTORCH, tmp_path, *flags)
    assert "resumed after epoch 20" in local(PYTORCH, tmp_path, *flags)


def test_tensorflow_goes_on_from_its_checkpoint_when_the_gang_is_restarted(tmp_path: Path) -> None:
    state, checkpoints = tmp_path / "state", tmp_path / "checkpoints"
    flags = ("--cluster", "local", "--checkpoint-dir", str(checkpoints))
    following = start(MULTIWORKER, *flags, environment={"TONY_STATE_DIR": str(state)})
    deadline = time.monotonic() + TIMEOUT_S / 2
    while not list(checkpoints.glob("backup/**/*.index")) and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        user_process("worker:1", state).kill()
    finally:
        done = finish(following)
    assert_trained(MULTIWORKER, done)
    said = f"{done.stdout}\n{done.stderr}"
    assert "generation 2" in said
    assert "resumed after epoch" in said
