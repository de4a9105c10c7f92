"""The root-cause window: failures that may have one cause, until it is clear which came first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from appmaster.tasks import TaskRecord
from tony.snapshot import Failure
from tony.spec import Times
from tony.state import Reason

UNSURE_S = 2.0
"""How long it is waited for whether a silent executor was alive, before its silence is the reason."""

ASK_AFTER_S = 0.3
"""How long news of the same cause is waited for before the others are asked whether they are well."""


@dataclass
class Incident:
    """Opened by the first failure, at a monotonic time. A lost node often shows first as the exits it causes.

    `asked_at`: when the other members were asked for a sign of life; None until then. `unsure_until`: until then
    something may still show why a member was silent.
    """

    opened_at: float
    asked_at: float | None = None
    unsure_until: float | None = None
    failures: list[Failure] = field(default_factory=list)

    def add(self, failure: Failure, now: float) -> None:
        """One more. Of a silent member more may be known in a moment."""
        self.failures.append(failure)
        if failure.reason is Reason.EXECUTOR_UNRESPONSIVE:
            self.unsure_until = now + UNSURE_S

    def explain(self, before: Failure, after: Failure | None) -> None:
        """More is known of a failure, or nothing more will be."""
        if before in self.failures:
            self.unsure_until = None
            self.failures = [after if after and one == before else one for one in self.failures]

    def others(self, gang: Iterable[TaskRecord]) -> list[TaskRecord]:
        """The members that are still to show that they are well."""
        return [r for r in gang if r.failure is None and not r.state.over and r.heard_at is not None]

    def is_clear(self, gang: Iterable[TaskRecord], beat_s: float, times: Times, now: float) -> bool:
        """Whether every other member has answered since it was asked, or has had its time to explain itself.

        Usually that takes moments; a member that is silent keeps the window open until it is lost.
        """
        if self.unsure_until is not None and now < self.unsure_until:
            return False
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
