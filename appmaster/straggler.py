"""Ranks that are slower than their peers, as far as their reports tell. Pure.

In synchronous training all ranks make a step at the same moment, whoever is slow: the time between reports is the
same for all, and says nothing. A script that knows better reports its own time, without the waiting for others, as
`step_s`. Where ranks step at their own pace (parameter servers, standalone), the time between reports is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low

from tony.spec import TaskId

_SLOW = 1.5
_WELL_AGAIN = 1.25
"""Times the median of the role: between the two nothing changes."""

_LASTING_S = 60.0
_LASTING_REPORTS = 5
"""Slow for so long, and in so many reports: an evaluation on one rank is a single long step."""

_WEIGHT = 0.3
"""Of the newest step in the moving mean."""


@dataclass
class Pace:
    """Seconds that one task takes for a step: a moving mean. `own`: without waiting for others, as it says itself."""

    step_s: float = 0.0
    own: bool = False
    told: bool = False
    _step: float | None = None
    _at: float = 0.0
    _slow_since: float | None = None
    _slow_reports: int = 0

    def report(self, progress: Mapping[str, float], now: float) -> bool:
        """Take a report at a monotonic time; whether the pace is known anew."""
        if progress.get("step_s", 0.0) > 0.0:
            self._mean(progress["step_s"], anew=not self.own)
            self.own = True
            return True
        step = progress.get("step")
        if step is None or self.own:
            return False
        before, self._step = self._step, step
        began, self._at = self._at, now
        if before is None or step <= before:
            return False
        self._mean((now - began) / (step - before), anew=self.step_s == 0.0)
        return True

    def _mean(self, step_s: float, anew: bool) -> None:
        self.step_s = step_s if anew else (1 - _WEIGHT) * self.step_s + _WEIGHT * step_s

    def compare(self, median_s: float, now: float) -> bool | None:
        """After a report: True once when it has become a straggler, False once when it is none any more."""
        if self.step_s <= _WELL_AGAIN * median_s:
            was_told, self.told = self.told, False
            self._slow_since, self._slow_reports = None, 0
            return False if was_told else None
        if self.step_s <= _SLOW * median_s or self.told:
            return None
        self._slow_since = now if self._slow_since is None else self._slow_since
        self._slow_reports += 1
        if now - self._slow_since < _LASTING_S or self._slow_reports < _LASTING_REPORTS:
            return None
        self.told = True
        return True


Medians = Mapping[tuple[str, bool], float]
"""By role and kind of time (`Pace.own`)."""


def medians(paces: Mapping[TaskId, Pace]) -> Medians:
    """The median pace wherever there is somebody to compare with; of two the faster one."""
    known: dict[tuple[str, bool], list[float]] = {}
    for task, pace in paces.items():
        if pace.step_s > 0.0:
            known.setdefault((task.role, pace.own), []).append(pace.step_s)
    return {kind: median_low(times) for kind, times in known.items() if len(times) > 1}
