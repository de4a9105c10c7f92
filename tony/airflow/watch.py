"""Looking at a job again and again: its end, and what is new since the last look, as lines for a log."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tony.airflow.result import first_task
from tony.errors import NoSuchJob, TonyError, Unreachable
from tony.gradient_numbers import without_gradients
from tony.jobhandle import JobHandle
from tony.outcome import Outcome
from tony.snapshot import JobSnapshot, TaskSnapshot
from tony.state import TaskState
from tony.text import safe
from tony.units import format_duration

PATIENCE_S = 600.0
"""How long a cluster may be silent, or not know the job, before the wait for it is given up."""
_UNKNOWN_S = 60.0
_CONFIRM_S = 15.0
_MOST_NUMBERS = 8


class Watch:
    """One job. `look` blocks for a few requests, each under its deadline; nothing is held between two looks.

    `lines` are those that the last look has added.
    """

    def __init__(self, handle: JobHandle, patience_s: float = PATIENCE_S) -> None:
        self._handle = handle
        self._patience_s = patience_s
        self._heard_at = time.monotonic()
        self._silent = False
        self._said: dict[str, str] = {}
        self.lines: list[str] = []
        self.urls: dict[str, str] = {}

    def on(self, handle: JobHandle) -> Watch:
        """The same over a new handle on the job; returns itself."""
        self._handle = handle
        return self

    def look(self) -> Outcome | None:
        """How the job ended; None while it has not.

        A cluster that is away is borne for a while. Raises Unreachable and NoSuchJob when that is over, NotPermitted.
        """
        self.lines = []
        try:
            outcome = self._end()
        except (Unreachable, NoSuchJob) as error:
            self._bear(error)
            return None
        if self._silent:
            self.lines.append(f"the cluster answers again after {format_duration(time.monotonic() - self._heard_at)}")
        self._heard_at, self._silent = time.monotonic(), False
        if outcome is None:
            self._progress()
        return outcome

    def _end(self) -> Outcome | None:
        if self._handle.verdict() is None:
            report = self._handle.report()
            self._say("state", f"{self._handle.application_id} is {report.state.value}")
            if not report.state.ended:
                return None
        return self._handle.wait(_CONFIRM_S)

    def _bear(self, error: TonyError) -> None:
        patience_s = self._patience_s if isinstance(error, Unreachable) else min(self._patience_s, _UNKNOWN_S)
        if time.monotonic() - self._heard_at > patience_s:
            raise error
        if not self._silent:
            self.lines.append(f"{error.message}; waiting up to {format_duration(patience_s)} for it to come back")
        self._silent = True

    def _progress(self) -> None:
        """Numbers are the master's to tell; that it does not answer is no news."""
        try:
            snapshot = self._handle.snapshot()
        except TonyError:
            return
        self.urls = dict(snapshot.urls)
        for what, line in progress_lines(snapshot):
            self._say(what, line)

    def _say(self, what: str, line: str) -> None:
        if self._said.get(what) != line:
            self._said[what] = line
            self.lines.append(safe(line))


def progress_lines(snapshot: JobSnapshot) -> Iterator[tuple[str, str]]:
    """What is worth a line of a log, each with the subject that it is about."""
    if snapshot.waiting_for:
        yield "waiting", snapshot.waits
    elif running := sum(task.state is TaskState.RUNNING for task in snapshot.tasks):
        generation = f", generation {snapshot.generation}" if snapshot.generation > 1 else ""
        yield "tasks", f"{running} of {len(snapshot.tasks)} tasks run{generation}"
    for task in snapshot.tasks:
        if task.warning:
            yield f"warning {task.task}", f"warning: {task.task}: {task.warning}"
    first = first_task(snapshot.tasks)
    if first is not None and (numbers := _numbers(first)):
        yield "numbers", f"{first.task}: {numbers}"


def _numbers(task: TaskSnapshot) -> str:
    """What the script reported, the step first."""
    reported = without_gradients(task.progress)
    names = sorted(reported, key=lambda name: (name != "step", name))[:_MOST_NUMBERS]
    return ", ".join(f"{name} {reported[name]:.6g}" for name in names)
