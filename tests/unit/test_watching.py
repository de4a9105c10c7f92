"""How the user processes get on: ranks that ended too early. Facts in, commands out; time moves only when told."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.pulse import Pulse
from tony.spec import RestartPolicy, RestartSpec, RoleSpec, SuccessPolicy, TaskId, Times
from tony.state import JobState, Reason

WORKERS = ("worker:0", "worker:1", "worker:2")
IDLE = {"cpu_percent": 0.4, "io_mb_per_s": 0.0, "output_bytes": 100.0}
BUSY = {**IDLE, "cpu_percent": 97.0}
QUICK = Times(early_exit_s=60.0)


def running(**changes: object) -> World:
    changes.setdefault("times", QUICK)
    world = World(job(3, **changes))
    names = [str(task) for task in world.machine.tasks]
    world.bring_up(*names)
    world.pass_time(1.0, beating=names)
    assert world.machine.state is JobState.RUNNING
    return world


def pass_time(world: World, seconds: float, metrics: dict[str, float], beating: Iterable[str]) -> None:
    """Time goes by in seconds; the named tasks beat with these numbers."""
    for _ in range(round(seconds)):
        world.now += 1.0
        for name in beating:
            world.feed(on.Beaten(world.who(name), metrics))
        world.feed(on.Tick())


def ended(world: World, name: str, seconds: float = 12.0) -> None:
    world.feed(on.UserEnded(world.who(name), on.ExitReport(world.machine.generation, seconds=seconds)))


def test_a_rank_that_ends_while_the_others_stand_still_fails_the_job() -> None:
    world = running()
    ended(world, "worker:2")
    pass_time(world, 50, IDLE, WORKERS)
    assert world.machine.verdict is None
    pass_time(world, 20, IDLE, WORKERS)
    verdict = world.machine.verdict
    assert verdict is not None and (verdict.state, verdict.reason) == (JobState.FAILED, Reason.EARLY_EXIT)
    assert verdict.message == "worker:2 ended after 12s while 2 run; they show no progress for 1m"
    assert verdict.first_failure is not None
    assert (verdict.first_failure.task, verdict.first_failure.exit_code) == ("worker:2", 0)


def test_the_others_may_work_on_as_long_as_they_like() -> None:
    world = running()
    ended(world, "worker:2")
    pass_time(world, 300, BUSY, WORKERS)
    assert world.machine.verdict is None
    ended(world, "worker:1")
    pass_time(world, 300, BUSY, WORKERS)
    ended(world, "worker:0")
    assert world.machine.verdict is not None and world.machine.verdict.state is JobState.SUCCEEDED


def test_one_other_that_works_is_enough() -> None:
    world = running()
    ended(world, "worker:2")
    for _ in range(300):
        world.feed(on.Beaten(world.who("worker:0"), BUSY))
        pass_time(world, 1, IDLE, ("worker:1", "worker:2"))
    assert world.machine.verdict is None


@pytest.mark.parametrize("sign", ["report", "output", "io", "gpu"])
def test_every_sign_of_progress_counts(sign: str) -> None:
    world = running()
    ended(world, "worker:2")
    for step in range(12):
        metrics = dict(IDLE)
        if sign == "output":
            metrics["output_bytes"] += step
        elif sign == "io":
            metrics["io_mb_per_s"] = 5.0
        elif sign == "gpu":
            metrics["gpu_percent"] = 90.0
        progress = {"step": float(step)} if sign == "report" else {}
        world.feed(on.Beaten(world.who("worker:0"), metrics, progress))
        pass_time(world, 30, {}, WORKERS)
    assert world.machine.verdict is None


@pytest.mark.parametrize(
    "changes",
    [
        {"framework": "standalone"},
        {"success": SuccessPolicy.CHIEF},
        {"restart": RestartSpec(policy=RestartPolicy.TASK)},
        {"times": Times(early_exit_s=0.0)},
        {"roles": (RoleSpec("worker", ("t.py",), 3), RoleSpec("ps", ("t.py",), untracked=True))},
    ],
    ids=["standalone", "chief", "task", "off", "ps"],
)
def test_ranks_that_do_not_need_each_other_end_when_they_like(changes: dict[str, object]) -> None:
    world = running(**changes)
    ended(world, "worker:2")
    pass_time(world, 400, IDLE, [str(task) for task in world.machine.tasks])
    assert world.machine.verdict is None


def test_an_executor_that_cannot_measure_is_never_called_silent() -> None:
    world = running()
    ended(world, "worker:2")
    pass_time(world, 400, {}, WORKERS)
    assert world.machine.verdict is None


def test_a_rank_that_fails_after_another_has_ended_is_told_with_it() -> None:
    world = running()
    ended(world, "worker:2")
    world.exit("worker:0", code=1, message="RuntimeError: Connection closed by peer")
    pass_time(world, 2, IDLE, WORKERS)
    verdict = world.machine.verdict
    assert verdict is not None and verdict.first_failure is not None
    assert verdict.message == "RuntimeError: Connection closed by peer (worker:2 had ended with 0 before)"
    assert verdict.first_failure.message == "RuntimeError: Connection closed by peer"


def test_after_a_restart_everybody_has_the_whole_time_again() -> None:
    world = running(restart=RestartSpec(max_user=1))
    ended(world, "worker:2")
    pass_time(world, 70, IDLE, WORKERS)
    assert world.machine.state is JobState.RESTARTING
    for name in WORKERS:
        world.feed(on.UserStopped(world.who(name), 1))
    world.prepare(*WORKERS)
    pass_time(world, 100, IDLE, WORKERS)
    assert world.machine.state is JobState.RUNNING


@pytest.mark.parametrize(("reason", "kind"), [("LOG_QUOTA", "WARNING"), ("DISK_FULL", "WARNING"), ("", "NOTE")])
def test_what_an_executor_warns_of_is_a_warning_of_its_task_and_host(reason: str, kind: str) -> None:
    world = running()
    world.feed(on.Remark(world.who("worker:1"), "stdout.log grows faster than 10 MB/s", reason))
    event = world.all(do.RecordEvent)[-1]
    assert (event.kind.value, event.task) == (kind, "worker:1")
    if reason:
        assert event.text == "worker:1 on node1: stdout.log grows faster than 10 MB/s"
        assert (event.fields["reason"], event.fields["host"]) == (reason, "node1")
        assert world.machine.tasks[TaskId("worker", 1)].warning == event.text


def test_numbers_that_are_told_again_after_a_broken_connection_are_no_news() -> None:
    pulse = Pulse(0.0)
    assert pulse.beat({}, {"step": 3.0}, 1.0)
    assert not pulse.beat({}, {"step": 3.0}, 50.0)
    assert pulse.reported_at == 1.0


@pytest.mark.parametrize("how", ["chief", "untracked"])
def test_who_is_not_required_is_stopped_when_the_last_required_task_ends(how: str) -> None:
    roles = (
        RoleSpec("chief", ("t.py",)),
        RoleSpec("worker", ("t.py",), 2, untracked=how == "untracked"),
        RoleSpec("evaluator", ("t.py",), untracked=how == "untracked"),
        RoleSpec("board", ("b.py",), sidecar=True),
    )
    success = SuccessPolicy.CHIEF if how == "chief" else SuccessPolicy.ALL
    world = World(job(roles=roles, success=success))
    names = [str(task) for task in world.machine.tasks]
    world.bring_up(*names)
    before = world.now
    ended(world, "chief:0")
    assert sorted(world.told(do.SayLeave)) == sorted(names) and world.now == before
    world.leave(*names)
    assert world.machine.state is JobState.SUCCEEDED
    assert world.states()["evaluator:0"] == "STOPPED"
