"""How the processes of a release come together: all at once, those that live on from an earlier one included. Pure.

A new process leaves its address for the others and is answered when everybody is there; so nobody waits in gloo,
whose patience ends the process, for a program that still imports its libraries.

Horovod's elastic mode: a process whose peers have changed asks for its new place, and is answered then, too. Where
nobody was lost, training goes on meanwhile: only when all new ones are at the door, those inside are told.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Mapping

from tony.frameworks.horovod import Place
from tony.spec import TaskId

Process = tuple[TaskId, int]
"""A task and the local rank in it."""


class Gathering:
    """Of one release after the other. Lives in the loop's thread; one asyncio future for each that waits."""

    def __init__(self) -> None:
        self._places: dict[Process, Place] = {}
        self._to_ask: set[Process] = set()
        self._to_come: set[Process] = set()
        self._asking: dict[Process, Future[str]] = {}
        self._arrived: dict[Process, Future[str]] = {}
        self._forget: Callable[[], None] = lambda: None
        self._ring: Callable[[], None] = lambda: None
        self._rung = False

    def on_complete(self, ring: Callable[[], None]) -> None:
        """Call `ring` when all new processes of a release have come and others, who live on, have not."""
        self._ring = ring

    def open(self, places: Mapping[TaskId, Place], lives_on: frozenset[TaskId], forget: Callable[[], None]) -> None:
        """A new release with these places. `forget` empties the store, for when the same ones meet once more."""
        self._forget = forget
        self._places = _processes(places)
        self._to_ask = {process for process in self._places if process[0] in lives_on}
        self._to_come = self._places.keys() - self._to_ask
        self._rung = False
        for process in self._asking.keys() - self._to_ask:
            self._asking.pop(process).cancel()
        while self._arrived:
            self._arrived.popitem()[1].cancel()
        self._go_on()

    def reopen(self, places: Mapping[TaskId, Place], forget: Callable[[], None]) -> None:
        """After a restart of this process: a release whose ranks have met, or have not; who asks waits for all."""
        self.open({}, frozenset(), forget)
        self._places = _processes(places)
        self._to_ask, self._rung = set(self._places), True

    def is_outside(self, task: TaskId) -> bool:
        """Whether the task lives on and has not yet got its place in the present release."""
        return any(process[0] == task for process in self._to_ask)

    def first(self) -> TaskId | None:
        """The task of rank 0, if it lives on and has not yet asked: it is the one to be told."""
        process = next((p for p, own in self._places.items() if own.rank == 0 and p[1] == 0), None)
        if process is None:
            return None
        return process[0] if process in self._to_ask and process not in self._asking else None

    def come(self, task: TaskId, number: int, answer: Future[str]) -> None:
        """A process has left its address for the others, and waits for them."""
        self._to_come.discard((task, number))
        self._wait(self._arrived, (task, number), answer)

    def ask(self, task: TaskId, number: int, answer: Future[str]) -> None:
        """A process waits for its place. Cancelled, when there is none for it any more."""
        self._wait(self._asking, (task, number), answer)

    def _wait(self, waiting: dict[Process, Future[str]], process: Process, answer: Future[str]) -> None:
        before = waiting.pop(process, None)
        if before is not None:
            before.cancel()
        waiting[process] = answer
        self._go_on()

    def withdraw(self, task: TaskId, number: int, answer: Future[str]) -> None:
        """It does not wait any more."""
        for waiting in (self._asking, self._arrived):
            if waiting.get((task, number)) is answer:
                del waiting[task, number]

    def _go_on(self) -> None:
        if self._to_come:
            return
        if not self._to_ask <= self._asking.keys():
            if not self._rung:
                self._rung = True
                self._ring()
            return
        served, self._to_ask = self._to_ask, set()
        if not served and self._places and self._asking.keys() == self._places.keys():
            # All of a release that had met ask again, and nobody was lost: they meet once more, as they were.
            self._forget()
            served = set(self._places)
        self._answer(self._asking, served)
        self._answer(self._arrived, set(self._arrived))

    def _answer(self, waiting: dict[Process, Future[str]], served: set[Process]) -> None:
        for process in served:
            answer = waiting.pop(process)
            if not answer.done():
                answer.set_result(_line(self._places[process], process[1]))


def _processes(places: Mapping[TaskId, Place]) -> dict[Process, Place]:
    return {(task, number): own for task, own in places.items() for number in range(own.processes)}


def _line(own: Place, number: int) -> str:
    """As Horovod reads it: rank, size, local rank and size, cross rank and size."""
    numbers = (own.rank + number, own.size, number, own.processes, own.cross_rank, own.cross_size)
    return ",".join(map(str, numbers))
