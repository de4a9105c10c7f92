"""Where containers land: those on an excluded node are declined and asked for again, within bounds.

The resource manager cannot be told of excluded nodes through skein. So a container that lands on one is held idle
until another has been allocated elsewhere (given back at once, its place would be offered again), then given back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.nodes import NodeMemory
from appmaster.returning import Returning
from appmaster.tasks import TaskRecord
from tony.containers import Identity, Phase
from tony.events import EventKind
from tony.snapshot import Failure
from tony.spec import JobSpec, TaskId
from tony.state import TaskState

_DECLINES = 3
"""How many containers in a row a task declines; the next one is taken wherever it is."""

_HOLD_S = 30.0
"""How long a declined container is held: when nothing was allocated elsewhere by then, nothing will be soon."""

_UNUSED = (TaskState.REQUESTED, TaskState.HELD, TaskState.REGISTERED)


@dataclass(frozen=True)
class Declined:
    """A container that is held without being used, until a monotonic time at most."""

    identity: Identity
    handle: str
    node: str
    until: float


class Placement(Returning):
    """The memory of nodes, and the containers that are declined because of it."""

    def __init__(self, job: JobSpec, now: float, wall: float, node_count: int) -> None:
        super().__init__(job, now, wall)
        self.nodes = NodeMemory()
        self.node_count = node_count
        self.declined: list[Declined] = []
        self._declines: Counter[TaskId] = Counter()

    def is_held_idle(self, identity: Identity) -> bool:
        """Whether that incarnation's container was declined and is still held: its executor gets no answer."""
        return any(one.identity == identity for one in self.declined)

    def may_greet(self, identity: Identity) -> bool:
        """Whether a Hello of that incarnation is of interest; others are turned away at the door."""
        known = self.current(identity) is not None
        return known or self.is_held_idle(identity) or self.may_come_back(identity)

    def _blame(self, record: TaskRecord, failure: Failure) -> None:
        said = self.nodes.blame(
            record.node, str(record.task), failure.reason, self.job.exclusion, self.node_count, self._now
        )
        self._tell_of_nodes(said, record.node)

    def _is_on_excluded_node(self, record: TaskRecord) -> bool:
        return bool(record.node) and self.nodes.is_excluded(record.node, self._now)

    def _on_seen(self, fact: on.ContainerSeen) -> None:
        for one in self.declined:
            if one.identity == fact.identity:
                if fact.state.phase is Phase.ENDED:
                    self.declined.remove(one)
                return
        record = self.current(fact.identity)
        where = fact.state.node_id or fact.state.node or ""
        if record is not None and where and not record.node:
            record.node = where
            fresh = record.state in _UNUSED and fact.state.phase is Phase.HELD and not record.stop_asked
            if fresh and self._is_on_excluded_node(record) and self._decline(record):
                return
        super()._on_seen(fact)
        if record is not None and record.state is TaskState.HELD and record.node:
            self._give_declined_back(record.task)
            self._declines.pop(record.task, None)

    def _decline(self, record: TaskRecord) -> bool:
        if self._declines[record.task] >= _DECLINES:
            said = f"{record.task} takes its container on the excluded node {record.node}: no other was offered"
            self._event(EventKind.NODE, said, record.task, node=record.node)
            return False
        self._declines[record.task] += 1
        self._event(
            EventKind.NODE,
            f"{record.task} declines its container on the excluded node {record.node} and asks for another",
            record.task,
            node=record.node,
        )
        self.declined.append(Declined(record.identity, record.handle, record.node, self._now + _HOLD_S))
        # What is held keeps others out, used or not: the clock of the gang runs.
        self._on_held()
        record.next_incarnation()
        self._request(record)
        return True

    def _give_declined_back(self, task: TaskId | None = None) -> None:
        """Those of one task, or all."""
        for one in [one for one in self.declined if task in (None, one.identity.task)]:
            self.declined.remove(one)
            self._out.append(do.StopContainer(one.identity, one.handle))
            self._out.append(do.DropStream(one.identity))

    def _watch_nodes(self) -> None:
        """Time has passed."""
        for one in self.declined:
            if self._now >= one.until:
                self._give_declined_back(one.identity.task)
                break
        self._tell_of_nodes(self.nodes.expire(self._now), "")

    def _tell_of_nodes(self, sentences: list[str], node: str) -> None:
        for sentence in sentences:
            self._event(EventKind.NODE, sentence, node=node)
