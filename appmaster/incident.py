"""The root-cause window: failures that may have one cause, until it is clear which came first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from appmaster.tasks import TaskRecord
from tony.snapshot import Failure
from tony.spec import Times

ASK_AFTER_S = 0.3
"""How long news of the same cause is waited for before the others are asked whether they are well."""


@dataclass
class Incident:
    """Opened by the first failure, at a monotonic time. A lost node often shows first as the exits it causes.

    `asked_at`: when the other members were asked for a sign of life; None until then.
    """

    opened_at: float
    asked_at: float | None = None
    failures: list[Failure] = field(default_factory=list)

    def others(self, gang: Iterable[TaskRecord]) -> list[TaskRecord]:
        """The members that are still to show that they are well."""
        return [r for r in gang if r.failure is None and not r.state.over and r.heard_at is not None]

    def is_clear(self, gang: Iterable[TaskRecord], beat_s: float, times: Times, now: float) -> bool:
        """Whether every other member has answered since it was asked, or has had its time to explain itself.

        Usually that takes moments; a member that is silent keeps the window open until it is lost.
        """
        others = self.others(gang)
        asked_at = self.asked_at
        if not others:
            return True
        if asked_at is not None and all(r.connected and (r.heard_at or 0.0) > asked_at for r in others):
            return True
        patience_s = times.root_cause_s
        if any(now - (r.heard_at or 0.0) > times.suspect_beats * beat_s for r in others):
            patience_s += max(times.lost_s, 10 * beat_s)
        return now - self.opened_at > patience_s
