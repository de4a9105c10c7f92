"""One fault as a value: the row of the matrix, where it exists, how and when it is injected, what has to follow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.injector import Scene
from tests.faults.invariants import Expected

LOCAL, YARN, BOTH = ("local",), ("yarn",), ("local", "yarn")
OWN = ("own",)
"""A YARN whose daemons may be hurt."""

STEPS = 60
"""Of every job, unless it is said otherwise."""

LEASE = "times.lease=12s"
SHORT = ("-c", LEASE, "-c", "stop_grace=5s")
NEVER = ("--restart", "never", *SHORT)
ONCE = ("--generation", "1")
LONG = ("--steps", "250")
UNHURT = Expected(generations=1)


@dataclass(frozen=True)
class Fault:
    """One way to hurt a job. `points`: named points, one of which is drawn; `step:*` draws a step too.

    `act` hurts; without it the script does so itself (`arguments`). `prepare` comes before the submit. `wrapped`:
    executors start through a script of the scene, for gates and proxies. `limit_s` bounds the whole job.
    """

    row: int
    name: str
    expected: Expected
    act: Callable[[Scene], None] | None = None
    points: tuple[str, ...] = ("step:*",)
    where: tuple[str, ...] = BOTH
    flags: tuple[str, ...] = SHORT
    arguments: tuple[str, ...] = ()
    prepare: Callable[[Scene], None] | None = None
    wrapped: bool = False
    limit_s: float = 120.0
    workers: int = 2
    quick: bool = False
    """Whether it belongs to the short part."""
    submits: bool = True
    """Whether the cluster ever hears of the job."""
    fills: bool = False
    """Whether it needs the whole cluster."""
    needs: Callable[[], object] | None = None
    """Tells whether this machine has what the fault is made with."""

    @property
    def key(self) -> str:
        """Row and name."""
        return f"{self.row} {self.name}"

    @property
    def alone(self) -> bool:
        """Whether other jobs on the same cluster would feel it."""
        return self.where == OWN or self.fills

    def says(self, words: str) -> bool:
        """Whether the text that this fault has to bring about is there."""
        return re.search(self.expected.message, words) is not None


def failed(reason: str, code: int, message: str = "", detect_s: float | None = None) -> Expected:
    """The job ends at once."""
    return Expected("FAILED", reason, code, cause=reason, message=message, detect_s=detect_s, generations=1)


def again(cause: str, detect_s: float | None = None, recover_s: float | None = None, message: str = "") -> Expected:
    """The gang starts again, once, and the job succeeds."""
    return Expected(cause=cause, generations=2, detect_s=detect_s, recover_s=recover_s, message=message)


def refused(error: str, code: int, message: str) -> Expected:
    """Nothing is submitted. `error`: the class of the error that the client names."""
    return Expected("nothing submitted", error, code, message=message)


def trouble(kind: str, *more: str) -> tuple[str, ...]:
    """Arguments with which the script hurts itself."""
    return ("--trouble", kind, *more)
