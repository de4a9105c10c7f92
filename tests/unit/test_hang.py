"""Hangs: found when nothing moves, never while anything does, and what follows. Time moves only when told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.hang import LEARNED_LEAST_S, find_hang, limit_s
from appmaster.pulse import Pulse
from tony.events import EventKind
from tony.spec import HangSpec, OnHang, RestartPolicy, RestartSpec, RoleSpec, SuccessPolicy, TaskId
from tony.state import JobState, Reason

WORKERS = ("worker:0", "worker:1")
IDLE = {"cpu_percent": 0.4, "io_mb_per_s": 0.0, "output_bytes": 100.0}
BUSY = {**IDLE, "cpu_percent": 97.0}
MINUTE = HangSpec(60.0)


def running(action: OnHang = OnHang.WARN, **changes: object) -> World:
    changes.setdefault("hang", replace(MINUTE, action=action))
    world = World(job(**changes))
    names = [str(task) for task in world.machine.tasks]
    world.bring_up(*names)
    world.pass_time(1.0, beating=names)
    assert world.machine.state is JobState.RUNNING
    return world


def go_on(world: World, seconds: int, beats: Mapping[str, Mapping[str, float]]) -> None:
    """Time goes by in seconds; each named task beats with its numbers."""
    for _ in range(seconds):
        world.now += 1.0
        for name, metrics in beats.items():
            world.feed(on.Beaten(world.who(name), metrics))
        world.feed(on.Tick())


def all_idle(world: World, seconds: int) -> None:
    go_on(world, seconds, {str(task): IDLE for task in world.machine.tasks})


def warnings(world: World) -> list[str]:
    return [c.text for c in world.all(do.RecordEvent) if c.kind is EventKind.WARNING]


def answer(world: World, *names: str) -> None:
    for name in names:
        world.feed(on.StacksTaken(world.who(name), f"stack of {name}\n  in allreduce"))


def test_a_hang_is_warned_of_once_and_everybody_is_asked_where_it_is() -> None:
    world = running()
    all_idle(world, 55)
    assert warnings(world) == []
    all_idle(world, 120)
    [text] = warnings(world)
    assert text.startswith("no task has reported, written or computed anything for 1m")
    assert world.told(do.SayDumpStacks) == list(WORKERS)
    assert world.machine.verdict is None


@pytest.mark.parametrize("behind", WORKERS)
def test_who_is_a_step_behind_is_named_and_not_who_waits_for_it(behind: str) -> None:
    world = running()
    for name in WORKERS:
        steps = {"step": 8.0 if name == behind else 9.0}
        world.feed(on.Beaten(world.who(name), IDLE, steps))
    all_idle(world, 70)
    [warned] = [c for c in world.all(do.RecordEvent) if c.kind is EventKind.WARNING]
    assert warned.task == behind


@pytest.mark.parametrize("behind", WORKERS)
def test_what_comes_right_after_the_release_counts(behind: str) -> None:
    world = World(job(hang=replace(MINUTE, action=OnHang.WARN)))
    world.bring_up(*WORKERS)
    for name in (behind, *WORKERS):
        world.feed(on.Beaten(world.who(name), IDLE, {"step": 5.0 if name == behind else 6.0}))
    all_idle(world, 70)
    [warned] = [c for c in world.all(do.RecordEvent) if c.kind is EventKind.WARNING]
    assert warned.task == behind


@pytest.mark.parametrize(("reports", "blamed"), [(1, 1), (2, 0)])
def test_a_rank_without_a_report_is_behind_the_first_report_of_others_only(reports: int, blamed: int) -> None:
    pulses = {TaskId("worker", 0): Pulse(0.0), TaskId("worker", 1): Pulse(0.0)}
    for step in range(reports):
        for task, pulse in pulses.items():
            pulse.beat(BUSY, {"step": 1.0 + step} if task.index == 0 else {}, 5.0 + step + task.index / 2)
    pulses[TaskId("worker", 1)].beat(BUSY, {}, 8.0)
    for pulse in pulses.values():
        pulse.beat(IDLE, {}, 9.0)
    world = running()
    hang = find_hang(MINUTE, tuple(world.machine.tasks.values()), pulses, 100.0)
    assert hang is not None and hang.task == TaskId("worker", blamed)


def test_a_job_that_goes_on_may_hang_again() -> None:
    world = running()
    all_idle(world, 70)
    go_on(world, 5, {"worker:0": BUSY, "worker:1": IDLE})
    assert any("progress again" in c.text for c in world.all(do.RecordEvent))
    all_idle(world, 70)
    assert len(warnings(world)) == 2


@pytest.mark.parametrize("busy", ["cpu_percent", "io_mb_per_s", "gpu_percent"])
def test_a_silent_evaluation_or_checkpoint_of_one_rank_is_no_hang(busy: str) -> None:
    world = running()
    go_on(world, 200, {"worker:0": {**IDLE, busy: 50.0}, "worker:1": IDLE})
    assert warnings(world) == []


def test_the_policy_waits_for_the_stacks_and_puts_them_into_the_failure() -> None:
    world = running(OnHang.KILL)
    all_idle(world, 65)
    assert world.machine.verdict is None
    answer(world, *WORKERS)
    all_idle(world, 3)
    verdict = world.machine.verdict
    assert verdict is not None and (verdict.state, verdict.reason) == (JobState.FAILED, Reason.HUNG)
    assert verdict.reason.exit_code == 106
    assert verdict.first_failure is not None and verdict.first_failure.tail[1] == "  in allreduce"


def test_an_executor_that_never_tells_delays_the_policy_for_a_bounded_time() -> None:
    world = running(OnHang.KILL)
    all_idle(world, 65)
    answer(world, "worker:0")
    all_idle(world, 10)
    assert world.machine.verdict is None
    all_idle(world, 15)
    assert world.machine.verdict is not None


def hang_once(world: World) -> None:
    all_idle(world, 64)
    answer(world, *WORKERS)
    all_idle(world, 3)
    for name in WORKERS:
        world.feed(on.UserStopped(world.who(name), world.machine.generation - 1))
    world.prepare(*WORKERS)


def test_a_restart_gives_a_new_generation_and_the_third_hang_without_a_step_ends_the_job() -> None:
    world = running(OnHang.RESTART, restart=RestartSpec(max_infrastructure=9))
    hang_once(world)
    assert (world.machine.state, world.machine.generation) == (JobState.RUNNING, 2)
    hang_once(world)
    hang_once(world)
    verdict = world.machine.verdict
    assert verdict is not None and verdict.reason is Reason.REPEATED
    assert verdict.reason.exit_code == 109


def test_restarts_for_hangs_are_counted_with_those_for_infrastructure() -> None:
    world = running(OnHang.RESTART, restart=RestartSpec(max_infrastructure=1))
    hang_once(world)
    hang_once(world)
    verdict = world.machine.verdict
    assert verdict is not None and verdict.reason is Reason.HUNG


def test_a_hang_ends_the_job_even_where_only_the_chief_counts() -> None:
    world = running(OnHang.KILL, success=SuccessPolicy.CHIEF, restart=RestartSpec(policy=RestartPolicy.TASK))
    all_idle(world, 64)
    answer(world, *WORKERS)
    all_idle(world, 3)
    assert world.machine.verdict is not None and world.machine.verdict.reason is Reason.HUNG


def test_a_stopped_process_is_a_hang_whatever_the_others_do() -> None:
    world = running()
    go_on(world, 70, {"worker:0": BUSY, "worker:1": {**IDLE, "frozen": 1.0}})
    [text] = warnings(world)
    assert text.startswith("a process of worker:1 is stopped")


def test_one_that_stands_still_while_others_report_is_a_hang_except_beside_servers() -> None:
    for servers in (False, True):
        roles = (RoleSpec("worker", ("t.py",), 2),)
        roles += (RoleSpec("ps", ("t.py",), untracked=True),) if servers else ()
        world = running(roles=roles)
        world.feed(on.Beaten(world.who("worker:1"), IDLE, {"step": 1.0}))
        for step in range(100):
            world.feed(on.Beaten(world.who("worker:0"), IDLE, {"step": float(step)}))
            all_idle(world, 1)
        assert [text[:8] for text in warnings(world)] == ([] if servers else ["worker:1"])


def test_busy_tasks_that_stopped_reporting_hang_after_four_times_the_limit() -> None:
    world = running()
    for name in WORKERS:
        world.feed(on.Beaten(world.who(name), BUSY, {"step": 7.0}))
    go_on(world, 230, dict.fromkeys(WORKERS, BUSY))
    assert warnings(world) == []
    go_on(world, 20, dict.fromkeys(WORKERS, BUSY))
    assert warnings(world)[0].startswith("the tasks are busy, but none has reported for 4m")


def test_parameter_servers_evaluators_and_sidecars_may_idle_for_ever() -> None:
    roles = (
        RoleSpec("worker", ("t.py",)),
        RoleSpec("ps", ("t.py",), untracked=True),
        RoleSpec("evaluator", ("t.py",)),
        RoleSpec("board", ("t.py",), sidecar=True),
    )
    world = running(roles=roles)
    go_on(world, 200, {str(task): BUSY if task.role == "worker" else IDLE for task in world.machine.tasks})
    assert warnings(world) == []


def test_time_in_which_nobody_listened_is_no_silence() -> None:
    world = running()
    all_idle(world, 50)
    world.now += 3600.0
    world.feed(on.StoodStill(3600.0))
    all_idle(world, 5)
    assert warnings(world) == []


def test_hangs_are_not_looked_for_unless_asked() -> None:
    world = running(hang=HangSpec())
    all_idle(world, 5000)
    assert warnings(world) == []


def test_the_limit_is_learned_from_the_slowest_step_after_the_warm_up() -> None:
    learned = HangSpec(learned=True)
    pulse = Pulse(0.0)
    pulses = {TaskId("worker", 0): pulse}
    assert limit_s(learned, pulses) == LEARNED_LEAST_S
    at = 0.0
    for step, pause_s in enumerate((500.0, 1.0, 1.0, 1.0, 1.0, 1.0, 200.0, 1.0)):
        at += pause_s
        pulse.beat({}, {"step": float(step)}, at)
    assert pulse.slowest_s == 200.0
    assert limit_s(learned, pulses) == 1000.0
    assert limit_s(HangSpec(30.0), pulses) == 30.0
    assert find_hang(learned, (), pulses, 1e6) is None
