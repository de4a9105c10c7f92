"""Who waits for whom before the ranks of a release meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from appmaster.gathering import Gathering
from tony.frameworks.horovod import Place
from tony.spec import TaskId

Answer = asyncio.Future[str]


def task(number: int) -> TaskId:
    return TaskId("worker", number)


class Room:
    """A gathering of tasks with one process each, ranked in the order given."""

    def __init__(self) -> None:
        self.gathering = Gathering()
        self.rings = self.emptied = 0
        self.gathering.on_complete(self.ring)

    def ring(self) -> None:
        self.rings += 1

    def empty(self) -> None:
        self.emptied += 1

    def open(self, *order: int, lives_on: tuple[int, ...] = ()) -> None:
        size = len(order)
        places = {task(n): Place(rank, size, 1, rank, size, f"worker-{n}") for rank, n in enumerate(order)}
        self.gathering.open(places, frozenset(map(task, lives_on)), self.empty)

    def come(self, number: int) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        self.gathering.come(task(number), 0, answer)
        return answer

    def ask(self, number: int) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        self.gathering.ask(task(number), 0, answer)
        return answer


def inside(scenario: Callable[[Room], None]) -> None:
    async def main() -> None:
        scenario(Room())

    asyncio.run(main())


def test_new_ones_go_on_when_all_have_come() -> None:
    def scenario(room: Room) -> None:
        room.open(0, 1, 2)
        early = [room.come(2), room.come(0)]
        assert not any(answer.done() for answer in early)
        assert room.come(1).done() and all(answer.done() for answer in early)
        assert room.come(1).done(), "said again, it is not held"
        assert room.rings == 0

    inside(scenario)


def test_the_lost_one_is_replaced_and_everybody_goes_on_at_once() -> None:
    def scenario(room: Room) -> None:
        room.open(0, 1, 2)
        [room.come(number) for number in range(3)]
        before = [room.ask(1), room.ask(2)]
        room.open(1, 2, 0, lives_on=(1, 2))
        assert not any(answer.done() for answer in before)
        assert room.gathering.is_outside(task(1)) and not room.gathering.is_outside(task(0))
        new = room.come(0)
        assert [answer.result() for answer in before] == ["0,3,0,1,0,3", "1,3,0,1,1,3"]
        assert new.done() and not room.gathering.is_outside(task(1))
        assert room.rings == 0

    inside(scenario)


def test_who_trains_on_is_told_once_when_all_new_ones_are_at_the_door() -> None:
    def scenario(room: Room) -> None:
        room.open(0, 1)
        [room.come(number) for number in range(2)]
        room.open(0, 1, 2, 3, lives_on=(0, 1))
        new = [room.come(3)]
        assert room.rings == 0
        new.append(room.come(2))
        assert room.rings == 1 and room.gathering.first() == task(0)
        asked = [room.ask(1)]
        assert room.rings == 1 and not any(answer.done() for answer in [*new, *asked])
        asked.append(room.ask(0))
        assert all(answer.done() for answer in [*new, *asked]) and asked[0].result() == "1,4,0,1,1,4"

    inside(scenario)


def test_where_nobody_is_lost_the_same_ones_meet_once_more() -> None:
    def scenario(room: Room) -> None:
        room.open(0, 1)
        [room.come(number) for number in range(2)]
        first = room.ask(0)
        assert not first.done() and room.emptied == 0
        second = room.ask(1)
        assert room.emptied == 1
        assert (first.result(), second.result()) == ("0,2,0,1,0,2", "1,2,0,1,1,2")

    inside(scenario)


def test_who_has_no_place_any_more_is_sent_away() -> None:
    def scenario(room: Room) -> None:
        room.open(0, 1, 2)
        late = room.come(0)
        gone, stays = room.ask(2), room.ask(1)
        room.open(1, 0, lives_on=(1,))
        assert late.cancelled() and gone.cancelled() and not stays.done()
        room.gathering.withdraw(task(1), 0, stays)
        room.come(0)
        assert room.gathering.is_outside(task(1)) and room.ask(1).result() == "0,2,0,1,0,2"

    inside(scenario)


def test_after_a_restart_of_the_master_who_asks_waits_for_the_next_release_or_for_all() -> None:
    def scenario(room: Room) -> None:
        places = {task(n): Place(n, 2, 1, n, 2, f"worker-{n}") for n in range(2)}
        room.gathering.reopen(places, room.empty)
        assert room.gathering.is_outside(task(0))
        first = room.ask(1)
        assert not first.done() and room.rings == 0
        room.open(1, 0, lives_on=(1,))
        room.come(0)
        assert first.result() == "0,2,0,1,0,2"

    inside(scenario)


def test_the_processes_of_a_task_come_one_by_one() -> None:
    def scenario(room: Room) -> None:
        own = Place(rank=2, size=4, processes=2, cross_rank=1, cross_size=2, host="worker-1")
        room.gathering.open({task(1): own}, frozenset((task(1),)), room.empty)
        loop = asyncio.get_running_loop()
        answers: list[Answer] = [loop.create_future() for _ in range(2)]
        room.gathering.ask(task(1), 1, answers[1])
        assert not answers[1].done()
        room.gathering.ask(task(1), 0, answers[0])
        assert [answer.result() for answer in answers] == ["2,4,0,2,1,2", "3,4,1,2,1,2"]

    inside(scenario)
