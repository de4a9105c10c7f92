"""Slow ranks, by what they report. Time moves only when told."""

from __future__ import annotations

import io

from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.view import snapshot
from tony.cli.output import Output
from tony.cli.status import status_lines
from tony.events import EventKind
from tony.spec import TaskId

WORKERS = ("worker:0", "worker:1", "worker:2", "worker:3")


def running() -> World:
    world = World(job(4))
    world.bring_up(*WORKERS)
    world.pass_time(1.0, beating=WORKERS)
    return world


def steps(world: World, seconds: int, step_s: dict[str, float], own: bool) -> None:
    """Each task steps at its pace; with `own`, all make their steps together and report what they themselves need."""
    began = world.now
    for _ in range(seconds):
        world.now += 1.0
        for name in WORKERS:
            pace = step_s.get(name, 1.0)
            slowest = max([1.0, *step_s.values()])
            said = {"step": began + (world.now - began) // (slowest if own else pace)}
            if own:
                said["step_s"] = pace + 0.001 * (world.now % 3)
            world.feed(on.Beaten(world.who(name), {}, said))
        world.feed(on.Tick())


def told(world: World, kind: EventKind) -> list[do.RecordEvent]:
    return [c for c in world.all(do.RecordEvent) if c.kind is kind]


def test_a_slow_rank_is_named_once_with_its_host_within_two_minutes() -> None:
    world = running()
    steps(world, 120, {"worker:2": 2.0}, own=True)
    steps(world, 120, {"worker:2": 2.0}, own=True)
    [warning] = told(world, EventKind.WARNING)
    assert (warning.task, warning.fields["reason"], warning.fields["host"]) == ("worker:2", "STRAGGLER", "node1")
    assert "worker:2 on node1 takes 2.0 times as long for a step as its peers" in warning.text
    [row] = [task for task in snapshot(world.machine, world.now, 0).tasks if task.warning]
    assert row.task == "worker:2"


def test_the_warning_stands_in_the_status_until_it_keeps_pace_again() -> None:
    world = running()
    steps(world, 90, {"worker:2": 2.0}, own=True)
    lines = status_lines(Output(out=io.StringIO()), snapshot(world.machine, world.now, 0))
    assert any(line.startswith("warning: worker:2 on node1 takes") for line in lines)
    steps(world, 30, {"worker:2": 1.0}, own=True)
    assert any("keeps pace again" in note.text for note in told(world, EventKind.NOTE))
    assert world.machine.tasks[TaskId("worker", 2)].warning == ""


def test_ranks_that_step_at_their_own_pace_are_compared_by_their_steps() -> None:
    world = running()
    steps(world, 150, {"worker:1": 3.0}, own=False)
    assert [warning.task for warning in told(world, EventKind.WARNING)] == ["worker:1"]


def test_small_differences_and_a_single_long_step_are_no_straggler() -> None:
    world = running()
    steps(world, 200, {"worker:1": 1.3}, own=True)
    for _ in range(3):
        world.feed(on.Beaten(world.who("worker:0"), {}, {"step_s": 30.0}))
        steps(world, 60, {}, own=True)
    assert told(world, EventKind.WARNING) == []


def test_in_synchronous_training_without_own_times_nobody_is_accused() -> None:
    world = running()
    steps(world, 300, dict.fromkeys(WORKERS, 4.0), own=False)
    assert told(world, EventKind.WARNING) == []
