"""Signs that one user process gets on, and since when there were none. Pure.

What counts: a report of the script (`tony.current().report()`), new output, processor or GPU time, bytes read or
written. So a long first step, a silent evaluation or the writing of a checkpoint are no silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_BUSY_CPU_PERCENT = 10.0
"""Of one core. Below are the threads with which frameworks wait: they wake up often, and do little."""
_BUSY_GPU_PERCENT = 10.0
_BUSY_IO_MB_PER_S = 0.1
_WARM_UP_REPORTS = 5
"""Intervals before these are those of compiling and caching."""


@dataclass
class Pulse:
    """One user process since its release. Times are monotonic seconds; `active_at` begins with the release.

    `frozen`: whether a process of it is stopped (SIGSTOP, a debugger). `measured`: whether its executor can tell of
    processor time at all; without that, silence means nothing. `slowest_s`: the longest time between two reports
    after the warm-up, 0 while that is not known.
    """

    active_at: float
    reported_at: float | None = None
    frozen: bool = False
    measured: bool = False
    reports: int = 0
    slowest_s: float = 0.0
    _output_bytes: float = 0.0
    _said: dict[str, float] = field(default_factory=dict)

    def beat(self, metrics: Mapping[str, float], progress: Mapping[str, float], now: float) -> bool:
        """Take what one beat tells; whether the script has reported something new."""
        output_bytes = metrics.get("output_bytes", 0.0)
        if metrics:
            self.measured = self.measured or "cpu_percent" in metrics
            busy = (
                metrics.get("cpu_percent", 0.0) >= _BUSY_CPU_PERCENT
                or metrics.get("gpu_percent", 0.0) >= _BUSY_GPU_PERCENT
                or metrics.get("io_mb_per_s", 0.0) >= _BUSY_IO_MB_PER_S
                or output_bytes > self._output_bytes
            )
            self._output_bytes = output_bytes
            if busy:
                self.active_at = now
            self.frozen = bool(metrics.get("frozen"))
        # After a broken connection everything is told once more: only what is new is a sign of life.
        news = any(self._said.get(name) != value for name, value in progress.items())
        if news:
            self._said.update(progress)
            self._reported(now)
        return news

    def _reported(self, now: float) -> None:
        if self.reported_at is not None and self.reports >= _WARM_UP_REPORTS:
            self.slowest_s = max(self.slowest_s, now - self.reported_at)
        self.reports += 1
        self.reported_at = self.active_at = now

    @property
    def step(self) -> float | None:
        """The last step that the script has reported, if it reports steps."""
        return self._said.get("step")

    def shift(self, seconds: float) -> None:
        """Nobody listened for so long: the process was not silent."""
        self.active_at += seconds
        if self.reported_at is not None:
            self.reported_at += seconds

    def quiet_s(self, now: float) -> float:
        """How long there was no sign at all; 0 where it cannot be known."""
        return now - self.active_at if self.measured else 0.0
