"""Slow ranks, by what they report. Time moves only when told."""

from __future__ import annotations

import io

from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.view import snapshot
from tony.cli.output import Output
from tony.cli.status import status_lines
from tony.containers import EndCause, HandleState, Phase
from tony.events import EventKind
from tony.spec import OnStraggler, RestartPolicy, RestartSpec, TaskId
from tony.state import JobState

WORKERS = ("worker:0", "worker:1", "worker:2", "worker:3")


def running(**changes: object) -> World:
    world = World(job(4, **changes), node_count=4)
    for number, name in enumerate(WORKERS):
        world.hold(name, node=f"node{number}")
    world.greet(*WORKERS)
    world.prepare(*WORKERS)
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


def slow_until_replaced(world: World, name: str = "worker:2") -> None:
    """That rank is slow until something is done about it; then the gang comes together again."""
    before = world.machine.generation
    for _ in range(90):
        steps(world, 1, {name: 2.0}, own=True)
        if world.machine.generation > before:
            break
    else:
        return
    for other in WORKERS:
        if other != name:
            world.feed(on.UserStopped(world.who(other), before))
            world.prepare(other)
    identity = world.who(name, world.who(name).incarnation - 1)
    handle = f"{identity.task}#{identity.incarnation}"
    world.feed(on.ContainerSeen(identity, HandleState(handle, Phase.ENDED, "", "node2", EndCause.EXITED)))
    world.hold(name, node="node9")
    world.greet(name)
    world.prepare(name)
    world.pass_time(1.0, beating=WORKERS)


def test_a_straggler_is_replaced_where_that_was_asked_for_and_the_others_keep_their_containers() -> None:
    world = running(on_straggler=OnStraggler.REPLACE)
    slow_until_replaced(world)
    [decision] = told(world, EventKind.DECISION)
    assert (decision.fields["action"], decision.fields["reason"]) == ("RESTART_GANG", "STRAGGLER")
    assert [record.incarnation for record in world.machine.tasks.values()] == [1, 1, 2, 1]
    assert (world.machine.state, world.machine.generation) == (JobState.RUNNING, 2)
    assert world.machine.nodes.is_excluded("node2", world.now)


def test_stragglers_use_up_no_restart_and_after_three_the_slow_job_goes_on() -> None:
    world = running(on_straggler=OnStraggler.REPLACE, restart=RestartSpec(max_infrastructure=0))
    for _ in range(5):
        slow_until_replaced(world)
    assert [d.fields["action"] for d in told(world, EventKind.DECISION)] == ["RESTART_GANG"] * 3 + ["IGNORE"]
    assert (world.machine.state, world.machine.generation) == (JobState.RUNNING, 4)


def test_a_failure_beside_a_straggler_is_what_counts() -> None:
    world = running(on_straggler=OnStraggler.REPLACE)
    while not told(world, EventKind.WARNING):
        steps(world, 1, {"worker:2": 2.0}, own=True)
    world.exit("worker:1", 1, message="the loss is not a number")
    world.pass_time(3.0, beating=("worker:0", "worker:2", "worker:3"))
    verdict = world.machine.verdict
    assert verdict is not None and verdict.message == "the loss is not a number"


def test_nobody_is_replaced_for_being_slow_when_another_rank_has_ended_meanwhile() -> None:
    world = running(on_straggler=OnStraggler.REPLACE)
    while not told(world, EventKind.WARNING):
        steps(world, 1, {"worker:2": 2.0}, own=True)
    world.exit("worker:1")
    world.pass_time(3.0, beating=("worker:0", "worker:2", "worker:3"))
    assert told(world, EventKind.DECISION) == []
    assert world.machine.generation == 1


def test_without_restarts_a_straggler_is_only_named() -> None:
    world = running(on_straggler=OnStraggler.REPLACE, restart=RestartSpec(RestartPolicy.NEVER))
    slow_until_replaced(world)
    [decision] = told(world, EventKind.DECISION)
    assert decision.fields["action"] == "IGNORE"
    assert world.machine.generation == 1


def test_alone_it_is_replaced_alone() -> None:
    world = running(on_straggler=OnStraggler.REPLACE, restart=RestartSpec(RestartPolicy.TASK))
    steps(world, 90, {"worker:2": 2.0}, own=True)
    assert [record.incarnation for record in world.machine.tasks.values()] == [1, 1, 2, 1]
    assert world.machine.generation == 1
