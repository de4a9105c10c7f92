"""Those who fell silent and were alive: cut off from the application master, not dead.

Silence alone does not tell a partition from a frozen or dead executor. Two things do, afterwards: it says Hello
again and has not stood still itself; or it ends in good order when its container is stopped. Where the cluster
only says that it has ended the container, the silence stays unexplained.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from appmaster import stimuli as on
from appmaster.attendance import Attendance
from appmaster.tasks import TaskRecord
from tony.containers import Identity, Phase
from tony.events import EventKind
from tony.snapshot import Failure
from tony.spec import JobSpec
from tony.state import Reason, TaskState

_ASKED_TO_END = 143
"""Exit code of an executor that has taken our TERM: no frozen one does."""

_REMEMBERED = 1000


class Returning(Attendance):
    """Remembers who was lost by silence, and what turned out to be true."""

    def __init__(self, job: JobSpec, now: float, wall: float) -> None:
        super().__init__(job, now, wall)
        self._silent: dict[Identity, Failure] = {}

    @abstractmethod
    def _explain(self, before: Failure, after: Failure | None) -> None:
        """More is known of a failure, or nothing more will be (`after` is None)."""

    def may_come_back(self, identity: Identity) -> bool:
        """Whether that incarnation was lost by silence: a Hello of it would explain that."""
        return identity in self._silent

    def _end_incarnation(self, record: TaskRecord, state: TaskState, failure: Failure | None, why: str) -> None:
        if state is TaskState.LOST and failure is not None and record.user_stop_deadline is None:
            self._silent[record.identity] = failure
            for old in list(self._silent)[:-_REMEMBERED]:
                del self._silent[old]
        super()._end_incarnation(record, state, failure, why)

    def _on_greeted(self, fact: on.Greeted) -> None:
        lost = self._silent.get(fact.identity)
        if lost is not None:
            # A process that stood still for about as long as it was silent was not cut off.
            if fact.stood_still_s < self.job.times.lost_s / 2:
                self._was_cut_off(fact.identity, "it spoke again")
            else:
                del self._silent[fact.identity]
                self._explain(lost, None)
        super()._on_greeted(fact)

    def _on_seen(self, fact: on.ContainerSeen) -> None:
        lost = self._silent.get(fact.identity)
        if lost is not None and fact.state.phase is Phase.ENDED:
            if fact.state.exit_code == _ASKED_TO_END:
                self._was_cut_off(fact.identity, "it ended in good order when it was stopped")
            else:
                # It may still speak, if the cluster was wrong.
                self._explain(lost, None)
        super()._on_seen(fact)

    def _was_cut_off(self, identity: Identity, how: str) -> None:
        lost = self._silent.pop(identity)
        text = f"{identity.task} was alive and cut off from the application master: {lost.message}; then {how}"
        self._event(
            EventKind.NOTE,
            text,
            identity.task,
            reason=Reason.PARTITIONED.value,
            incarnation=str(identity.incarnation),
            host=lost.host,
        )
        self._explain(lost, partitioned(lost))


def partitioned(lost: Failure) -> Failure:
    """The same failure, with what it was."""
    return replace(lost, reason=Reason.PARTITIONED, message=f"cut off from the application master: {lost.message}")
