"""The root-cause window: failures that may have one cause, until it is clear which came first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from appmaster.tasks import TaskRecord
from tony.snapshot import Failure
from tony.spec import Times


@dataclass
class Incident:
    """Opened by the first failure, at a monotonic time. A lost node often shows first as the exits it causes."""

    opened_at: float
    failures: list[Failure] = field(default_factory=list)

    def is_clear(self, gang: Iterable[TaskRecord], beat_s: float, times: Times, now: float) -> bool:
        """Whether every other member was heard from since, or has had its time to explain itself.

        Usually one beat is enough; a member that is silent keeps the window open until it is lost.
        """
        quiet = silent = False
        for record in gang:
            if record.failure is not None or record.state.over or record.heard_at is None:
                continue
            quiet = quiet or not record.connected or record.heard_at < self.opened_at + 0.5 * beat_s
            silent = silent or now - record.heard_at > times.suspect_beats * beat_s
        if not quiet:
            return True
        patience_s = times.root_cause_s
        if silent:
            patience_s += max(times.lost_s, 10 * beat_s)
        return now - self.opened_at > patience_s
