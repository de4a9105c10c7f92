"""What is remembered of nodes: who failed where, and which nodes are kept away from for a while. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tony.snapshot import ExcludedNode
from tony.spec import ExclusionSpec
from tony.state import Reason
from tony.units import format_duration

BLAMED = frozenset(
    {
        Reason.EXECUTOR_LOST,
        Reason.EXECUTOR_UNRESPONSIVE,
        Reason.PARTITIONED,
        Reason.LAUNCH_FAILED,
        Reason.REGISTRATION_TIMEOUT,
        Reason.DISK_FULL,
        Reason.NODE_LOST,
        Reason.GPU_FAULT,
        Reason.STRAGGLER,
    }
)
"""Failures for which a node may be the cause. Not a signal: user code ends by one, too; not preemption."""

AT_ONCE = frozenset({Reason.NODE_LOST, Reason.GPU_FAULT, Reason.STRAGGLER})
"""One of these is enough."""

_MAX_BLAMES = 1000


@dataclass(frozen=True)
class Blame:
    """A failure of a task on a node, at a monotonic time."""

    node: str
    task: str
    reason: Reason
    at: float


@dataclass(frozen=True)
class Exclusion:
    """A node that is kept away from, from one monotonic time to another, and why."""

    node: str
    why: str
    since: float
    until: float


@dataclass
class NodeMemory:
    """Which node did what. Times are monotonic; `shifted` carries them to another clock.

    At most `ExclusionSpec.share_percent` of the cluster's nodes are excluded at once, so that a fault of the job
    itself, which shows on every node, cannot use up the cluster. On a small cluster that means none.
    """

    blames: list[Blame] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)

    def is_excluded(self, node: str, now: float) -> bool:
        """Whether new containers on that node are to be declined."""
        return any(one.node == node and now < one.until for one in self.exclusions)

    def blame(
        self, node: str, task: str, reason: Reason, rule: ExclusionSpec, node_count: int, now: float
    ) -> list[str]:
        """Remember a failure; returns what follows from it, in sentences: an exclusion, or why there is none."""
        if reason not in BLAMED or not node or rule.failures < 1:
            return []
        self.blames = [one for one in self.blames if now - one.at <= rule.window_s][-_MAX_BLAMES + 1 :]
        self.blames.append(Blame(node, task, reason, now))
        here = [one for one in self.blames if one.node == node]
        if self.is_excluded(node, now) or (reason not in AT_ONCE and len(here) < rule.failures):
            return []
        why = f"{reason.value} of {task}"
        if reason not in AT_ONCE:
            why = f"{len(here)} failures within {format_duration(rule.window_s)}, the last: {why}"
        return self._exclude(Exclusion(node, why, now, now + rule.expiry_s), rule, node_count)

    def _exclude(self, new: Exclusion, rule: ExclusionSpec, node_count: int) -> list[str]:
        in_force = [one for one in self.exclusions if new.since < one.until]
        most = node_count * rule.share_percent // 100
        if len(in_force) >= most:
            allowed = f"at most {most} of {node_count}" if most else f"none of {node_count}"
            return [f"node {new.node} is not excluded ({new.why}): {allowed} may be ({rule.share_percent} %)"]
        self.exclusions = [*in_force, new]
        said = [f"node {new.node} is excluded for {format_duration(rule.expiry_s)}: {new.why}"]
        if len(self.exclusions) >= node_count:
            said += self.lift_oldest("every node would be excluded")
        return said

    def lift_oldest(self, why: str) -> list[str]:
        """Let the node that was excluded first in again, and forget its failures; returns the sentence for it."""
        if not self.exclusions:
            return []
        oldest = min(self.exclusions, key=lambda one: one.since)
        self.exclusions.remove(oldest)
        self.blames = [one for one in self.blames if one.node != oldest.node]
        return [f"node {oldest.node} is let in again: {why}"]

    def expire(self, now: float) -> list[str]:
        """Forget exclusions whose time is over; returns a sentence for each."""
        over = [one for one in self.exclusions if now >= one.until]
        if not over:
            return []
        self.exclusions = [one for one in self.exclusions if now < one.until]
        nodes = {one.node for one in over}
        self.blames = [one for one in self.blames if one.node not in nodes]
        return [f"node {one.node} is let in again: its time is over" for one in over]

    def shifted(self, seconds: float) -> NodeMemory:
        """The same on a monotonic clock that is ahead by so many seconds: that of another host."""
        return NodeMemory(
            [replace(one, at=one.at + seconds) for one in self.blames],
            [replace(one, since=one.since + seconds, until=one.until + seconds) for one in self.exclusions],
        )

    def shown(self, now: float, wall_offset: float) -> tuple[ExcludedNode, ...]:
        """What is in force, for people: with wall time."""
        return tuple(
            ExcludedNode(one.node, one.why, round(one.until + wall_offset, 1))
            for one in self.exclusions
            if now < one.until
        )
