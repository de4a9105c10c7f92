"""Runs `jobs/lives_on.py`, whose processes live on when others are lost, and reads what they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from command_line import Running, Tony, wait_for

from tests.training import HOROVOD, interpreter

PATIENCE_S = 240.0
QUICK = ("--env", "HOROVOD_GLOO_TIMEOUT_SECONDS=10", "-c", "stop_grace=2s")
"""A rank that does not speak with the lost one notices the loss by this timeout only."""


class Begun(NamedTuple):
    """What a process found when it began, or went on."""

    pid: int
    rank: int
    size: int
    step: int
    index: int


def begin(tony: Tony, folder: Path, *flags: str, script: str = "lives_on.py") -> Running:
    words = ("--framework", "horovod", "--python", interpreter(HOROVOD), "--memory", "1g", *QUICK, *flags)
    return tony.begin(script, str(folder), flags=words)


def rounds(folder: Path) -> list[Begun]:
    path = folder / "rounds.txt"
    return [Begun(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def wait_while_running(job: Running, look: Callable[[], Any]) -> Any:
    """The first true value of `look`; a job that ends before is shown."""

    def watched() -> Any:
        if job.process.poll() is not None:
            raise AssertionError(job.process.communicate())
        return look()

    return wait_for(watched, timeout_s=PATIENCE_S)


def next_round(job: Running, folder: Path, before: list[Begun], size: int) -> list[Begun]:
    """Waits until so many processes have gone on together; by rank."""

    def look() -> list[Begun] | None:
        new = rounds(folder)[len(before) :]
        return sorted(new[-size:], key=lambda one: one.rank) if len(new) >= size else None

    found: list[Begun] = wait_while_running(job, look)
    before[:] = rounds(folder)
    assert [one.rank for one in found] == list(range(size)) and {one.size for one in found} == {size}, found
    assert len({one.step for one in found}) == 1, "all go on from the same state"
    return found


def finish(job: Running, folder: Path) -> dict[str, object]:
    (folder / "enough").touch()
    code, document = job.result(PATIENCE_S)
    assert code == 0, document
    return document
