"""A gang that starts smaller, grows when there is room, and is resized while it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.resume import KeptState, keep, next_attempt, same_attempt
from appmaster.view import snapshot
from tony.events import EventKind
from tony.frameworks import problems, task_environment
from tony.records import decode, encode
from tony.spec import JobSpec, RestartPolicy, RestartSpec, RoleSpec, SuccessPolicy, TaskId, Times
from tony.state import JobState

TIMES = Times(gang_s=60.0, replacement_s=5.0, growth_s=100.0, lease_s=20.0, stop_grace_s=2.0)


def elastic(asked: int = 4, least: int | None = 2, most: int | None = 6, **changes: object) -> JobSpec:
    role = RoleSpec("worker", ("train.py",), instances=asked, min_instances=least, max_instances=most)
    return job(roles=(role,), **{"times": TIMES, **changes})


def names(*indexes: int) -> list[str]:
    return [f"worker:{index}" for index in indexes]


def running(count: int = 4, **changes: object) -> World:
    world = World(elastic(count, **changes))  # type: ignore[arg-type]
    world.bring_up(*names(*range(count)))
    assert world.machine.state is JobState.RUNNING
    return world


def ranks(world: World) -> dict[str, int]:
    """Rank by task, of the newest release; every member was told the same world."""
    releases = world.all(do.SayRelease)
    newest = max(one.cluster.generation for one in releases)
    last = [one for one in releases if one.cluster.generation == newest]
    assert len({one.cluster.tasks for one in last}) == 1
    assert {one.identity.task for one in last} == set(last[0].cluster.tasks)
    found = {}
    for one in last:
        extra = {"application_id": "application_1_0001"}
        environment = task_environment(one.identity.task, one.cluster, world.machine.job, extra)
        assert environment["WORLD_SIZE"] == str(len(last))
        assert environment["TONY_WORLD_SIZE"] == environment["TASK_NUM"] == str(len(last))
        found[str(one.identity.task)] = int(environment["RANK"])
    return found


def stopped(world: World, *who: str) -> None:
    """Their user processes have ended as asked, and they are ready for the next generation."""
    for name in who:
        world.feed(on.UserStopped(world.who(name), world.machine.generation - 1))
    world.prepare(*who)


def sizes(world: World) -> list[str]:
    return [event.text for event in world.all(do.RecordEvent) if event.kind is EventKind.RESIZE]


# Smaller ------------------------------------------------------------------------------------------------------


def test_a_gang_starts_smaller_at_its_timeout_when_enough_are_ready() -> None:
    world = World(elastic())
    world.bring_up(*names(0, 2, 3))
    world.pass_time(59.0, beating=names(0, 2, 3))
    assert world.machine.state is JobState.ALLOCATING
    world.pass_time(2.0, beating=names(0, 2, 3))
    assert world.machine.state is JobState.RUNNING
    assert ranks(world) == {"worker:0": 0, "worker:2": 1, "worker:3": 2}
    assert sizes(world) == ["starts with 3 of 4 worker tasks, without worker:1"]
    assert world.machine.size is not None and (world.machine.size.now, world.machine.size.target) == (3, 4)


def test_what_was_asked_for_and_did_not_come_is_given_back() -> None:
    world = World(elastic())
    world.bring_up(*names(0, 1))
    world.hold("worker:2")
    world.pass_time(61.0, beating=names(0, 1))
    assert world.machine.state is JobState.RUNNING
    assert {str(one.identity.task) for one in world.all(do.StopContainer)} == {"worker:2", "worker:3"}


def test_with_less_than_enough_everything_is_given_back_as_ever() -> None:
    world = World(elastic())
    world.bring_up("worker:0")
    world.pass_time(61.0, beating=["worker:0"])
    assert world.machine.state is JobState.BACKING_OFF


def test_a_job_of_fixed_size_never_starts_smaller() -> None:
    world = World(job(4, times=TIMES))
    world.bring_up(*names(0, 1, 2))
    world.pass_time(61.0, beating=names(0, 1, 2))
    assert world.machine.state is JobState.BACKING_OFF


def test_a_missing_member_of_another_role_is_not_gone_without() -> None:
    roles = (RoleSpec("chief", ("c.py",)), RoleSpec("worker", ("w.py",), instances=3, min_instances=1))
    world = World(job(roles=roles, times=TIMES))
    world.bring_up(*names(0, 1, 2))
    world.pass_time(61.0, beating=names(0, 1, 2))
    assert world.machine.state is JobState.BACKING_OFF


def test_a_lost_task_without_a_successor_is_gone_without_soon() -> None:
    world = running()
    world.end_container("worker:1")
    world.pass_time(4.0, beating=names(0, 2, 3))
    stopped(world, *names(0, 2, 3))
    assert world.machine.state is JobState.RESTARTING
    world.pass_time(6.0, beating=names(0, 2, 3))
    assert world.machine.state is JobState.RUNNING
    assert ranks(world) == {"worker:0": 0, "worker:2": 1, "worker:3": 2}


def test_a_successor_that_is_on_its_way_is_waited_for() -> None:
    world = running()
    world.end_container("worker:1")
    world.pass_time(4.0, beating=names(0, 2, 3))
    stopped(world, *names(0, 2, 3))
    world.hold("worker:1")
    world.pass_time(20.0, beating=names(0, 2, 3))
    assert world.machine.state is JobState.RESTARTING
    world.bring_up("worker:1")
    assert sorted(ranks(world).values()) == [0, 1, 2, 3]


def test_nobody_goes_on_before_the_lease_of_a_silent_task_is_over() -> None:
    world = running()
    heard_at = world.now
    survivors = names(1, 2, 3)
    world.pass_time(11.0, beating=survivors)
    world.exit("worker:1", 1)
    world.pass_time(4.0, beating=survivors)
    assert world.machine.state is JobState.RESTARTING
    stopped(world, *survivors)
    while world.machine.state is JobState.RESTARTING:
        world.pass_time(0.5, beating=survivors)
        assert world.now < heard_at + 30.0
    assert world.now >= heard_at + TIMES.lease_s
    assert ranks(world) == {"worker:1": 0, "worker:2": 1, "worker:3": 2}


# Larger again -------------------------------------------------------------------------------------------------


def smaller(**times: float) -> World:
    """Three of four run."""
    world = World(elastic(times=replace(TIMES, **times)))
    world.bring_up(*names(0, 2, 3))
    world.pass_time(61.0, beating=names(0, 2, 3))
    assert world.machine.state is JobState.RUNNING
    return world


def test_a_job_below_its_size_asks_again_with_one_pending_request_after_the_interval() -> None:
    world = smaller()
    asked = len(world.all(do.RequestContainer))
    world.pass_time(95.0, beating=names(0, 2, 3))
    assert len(world.all(do.RequestContainer)) == asked
    world.pass_time(300.0, beating=names(0, 2, 3))
    assert len(world.all(do.RequestContainer)) == asked + 1
    assert world.machine.state is JobState.RUNNING
    assert world.machine.waiting_for.startswith("3 of 4 worker tasks run, waiting for 1 × worker {2g}")


def test_a_candidate_that_is_prepared_is_taken_in_with_the_next_generation() -> None:
    world = smaller()
    world.pass_time(105.0, beating=names(0, 2, 3))
    world.bring_up("worker:1")
    world.pass_time(0.5, beating=names(0, 1, 2, 3))
    assert world.machine.state is JobState.RESTARTING and world.machine.generation == 2
    assert sorted(world.told(do.SayStopUser)) == names(0, 1, 2, 3)
    stopped(world, *names(0, 1, 2, 3))
    assert world.machine.state is JobState.RUNNING
    assert ranks(world) == {name: rank for rank, name in enumerate(names(0, 1, 2, 3))}
    assert world.machine.restarts == 0 and world.machine.budget.infrastructure == 0


def test_growth_does_not_come_twice_within_the_interval() -> None:
    world = World(elastic(4, least=1))
    world.bring_up("worker:0", "worker:1")
    world.pass_time(61.0, beating=names(0, 1))
    world.pass_time(105.0, beating=names(0, 1))
    world.bring_up("worker:2")
    world.pass_time(5.0, beating=names(0, 1, 2))
    assert world.machine.generation == 1, "another one may come in a moment"
    world.pass_time(8.0, beating=names(0, 1, 2))
    assert world.machine.generation == 2
    stopped(world, *names(0, 1, 2))
    released_at = world.now
    world.bring_up("worker:3")
    world.pass_time(90.0, beating=names(0, 1, 2, 3))
    assert world.machine.generation == 2
    while world.machine.generation == 2:
        world.pass_time(1.0, beating=names(0, 1, 2, 3))
    assert world.now >= released_at + TIMES.growth_s


def test_a_candidate_that_fails_disturbs_nobody() -> None:
    world = smaller()
    world.pass_time(105.0, beating=names(0, 2, 3))
    world.hold("worker:1")
    world.end_container("worker:1")
    world.pass_time(20.0, beating=names(0, 2, 3))
    assert world.machine.state is JobState.RUNNING and world.machine.generation == 1
    assert world.machine.incident is None
    asked = len(world.all(do.RequestContainer))
    world.pass_time(100.0, beating=names(0, 2, 3))
    assert len(world.all(do.RequestContainer)) == asked + 1


def test_a_restart_takes_a_prepared_candidate_with_it() -> None:
    world = World(elastic(4, least=1))
    world.bring_up("worker:0", "worker:1")
    world.pass_time(166.0, beating=names(0, 1))
    world.bring_up("worker:2")
    world.exit("worker:0", signal="SIGKILL")
    world.pass_time(1.0, beating=names(0, 1, 2))
    assert world.machine.state is JobState.RESTARTING
    stopped(world, *names(0, 1, 2))
    assert ranks(world) == {"worker:0": 0, "worker:1": 1, "worker:2": 2}


def test_nobody_is_stopped_for_a_candidate_when_a_task_has_already_finished() -> None:
    world = smaller()
    world.pass_time(105.0, beating=names(0, 2, 3))
    world.exit("worker:0")
    world.bring_up("worker:1")
    world.pass_time(5.0, beating=names(0, 1, 2, 3))
    assert world.machine.generation == 1
    world.exit("worker:2")
    world.exit("worker:3")
    assert world.machine.verdict is not None and world.machine.verdict.state is JobState.SUCCEEDED
    world.leave(*names(0, 1, 2, 3))
    assert world.machine.finished


def test_candidates_leave_with_the_gang_that_is_given_back() -> None:
    world = World(elastic(4, least=2))
    world.bring_up(*names(0, 1, 2))
    world.pass_time(166.0, beating=names(0, 1, 2))
    world.hold("worker:3")
    for name in names(0, 1, 2):
        world.end_container(name)
    world.pass_time(80.0)
    assert world.machine.state is JobState.BACKING_OFF
    assert "worker:3" in world.told(do.StopContainer)


# Resize -------------------------------------------------------------------------------------------------------


def ask(world: World, size: int) -> None:
    world.feed(on.ResizeAsked("alice", size))


def test_a_shrink_lets_the_highest_ranks_leave_politely() -> None:
    world = running()
    ask(world, 2)
    assert world.told(do.SayLeave) == names(2, 3)
    assert world.told(do.SayStopUser) == names(0, 1)
    world.leave(*names(2, 3))
    stopped(world, *names(0, 1))
    assert world.machine.state is JobState.RUNNING
    assert ranks(world) == {"worker:0": 0, "worker:1": 1}
    assert world.states()["worker:3"] == "STOPPED"
    world.exit("worker:0")
    world.exit("worker:1")
    world.leave("worker:0", "worker:1")
    assert world.machine.verdict is not None and world.machine.verdict.state is JobState.SUCCEEDED


def test_the_smaller_gang_begins_when_those_who_left_have_ended() -> None:
    world = running()
    ask(world, 2)
    stopped(world, *names(0, 1))
    world.leave("worker:3")
    world.pass_time(4.0, beating=names(0, 1, 2))
    assert world.machine.state is JobState.RESTARTING
    assert world.machine.waiting_for == "waiting until worker:2 has certainly ended"
    world.leave("worker:2")
    assert world.machine.state is JobState.RUNNING


def test_a_dismissed_task_that_is_silent_is_waited_for_until_its_lease_is_over() -> None:
    world = running()
    world.pass_time(5.0, beating=names(0, 1, 2))
    ask(world, 2)
    stopped(world, *names(0, 1))
    world.leave("worker:2")
    world.pass_time(10.0, beating=names(0, 1))
    assert world.machine.state is JobState.RESTARTING
    world.pass_time(6.0, beating=names(0, 1))
    assert world.machine.state is JobState.RUNNING


def test_growth_prepares_all_new_ones_while_the_others_train_on() -> None:
    world = running()
    ask(world, 6)
    assert world.told(do.RequestContainer)[-2:] == names(4, 5)
    world.bring_up("worker:4")
    world.pass_time(30.0, beating=names(0, 1, 2, 3, 4))
    assert world.machine.generation == 1, "all that were asked for come together"
    assert world.machine.waiting_for.startswith("4 of 6 worker tasks run, waiting for 1 × worker")
    world.bring_up("worker:5")
    world.pass_time(0.5, beating=names(*range(6)))
    stopped(world, *names(*range(6)))
    assert sorted(ranks(world).values()) == list(range(6))


def test_growth_that_the_cluster_has_no_room_for_takes_whom_it_gets() -> None:
    world = running()
    ask(world, 6)
    world.bring_up("worker:4")
    world.pass_time(62.0, beating=names(*range(5)))
    stopped(world, *names(*range(5)))
    assert sorted(ranks(world).values()) == list(range(5))
    assert world.machine.size is not None and (world.machine.size.now, world.machine.size.target) == (5, 6)


def test_a_shrunk_job_can_grow_again() -> None:
    world = running()
    ask(world, 2)
    world.leave(*names(2, 3))
    stopped(world, *names(0, 1))
    ask(world, 3)
    assert world.who("worker:2").incarnation == 2
    world.bring_up("worker:2")
    world.pass_time(0.5, beating=names(0, 1, 2))
    stopped(world, *names(0, 1, 2))
    assert ranks(world) == {"worker:0": 0, "worker:1": 1, "worker:2": 2}


def test_a_resize_back_lets_the_candidates_go() -> None:
    world = running()
    ask(world, 6)
    world.bring_up("worker:4")
    ask(world, 4)
    assert world.told(do.SayLeave) == ["worker:4"]
    assert "worker:5" in world.told(do.StopContainer)
    world.pass_time(200.0, beating=names(0, 1, 2, 3))
    assert world.machine.generation == 1 and world.machine.waiting_for == ""


def test_a_resize_while_the_gang_gathers_changes_what_is_gathered() -> None:
    world = World(elastic())
    world.bring_up(*names(0, 1, 2))
    ask(world, 3)
    assert world.machine.state is JobState.RUNNING
    assert sorted(ranks(world).values()) == [0, 1, 2]
    other = World(elastic())
    other.bring_up(*names(0, 1, 2, 3)[:3])
    ask(other, 5)
    other.bring_up("worker:3")
    assert other.machine.state is JobState.ALLOCATING
    other.bring_up("worker:4")
    assert sorted(ranks(other).values()) == [0, 1, 2, 3, 4]


def test_a_resize_during_the_back_off_counts_for_the_next_round() -> None:
    world = World(elastic())
    world.bring_up("worker:0")
    world.pass_time(61.0, beating=["worker:0"])
    assert world.machine.state is JobState.BACKING_OFF
    ask(world, 2)
    world.pass_time(125.0)
    assert world.machine.state is JobState.ALLOCATING
    world.bring_up(*names(0, 1))
    assert ranks(world) == {"worker:0": 0, "worker:1": 1}


@pytest.mark.parametrize(
    ("size", "said"),
    [(1, "worker may have 2 to 6 tasks, not 1"), (7, "worker may have 2 to 6 tasks, not 7"), (2, ""), (6, "")],
)
def test_only_sizes_within_the_bounds_are_taken(size: int, said: str) -> None:
    world = running()
    assert world.machine.resize_problem(size) == said
    if said:
        ask(world, size)
        assert world.machine.size is not None and world.machine.size.target == 4


def test_a_job_of_fixed_size_and_one_that_is_over_say_so() -> None:
    assert "submit it with --min-workers" in World(job(2)).machine.resize_problem(3)
    world = running()
    world.feed(on.StopAsked("alice", "", 1.0))
    assert world.machine.resize_problem(3) == "the job is over"


def test_tasks_that_never_were_are_not_shown() -> None:
    world = running()
    assert [task.task for task in snapshot(world.machine, world.now, 0).tasks] == names(0, 1, 2, 3)


# What is kept -------------------------------------------------------------------------------------------------


def test_a_restarted_master_goes_on_with_the_size_it_had() -> None:
    world = smaller()
    kept = decode(encode(keep(world.machine, 0)), KeptState)
    again = same_attempt(kept, world.machine.job, "application_1_0001", "alice", world.now)
    assert again.size == world.machine.size
    assert [str(record.task) for record in again.stages.gang(0)] == names(0, 2, 3)


def test_a_second_attempt_asks_for_the_size_that_was_asked_for_last() -> None:
    world = running()
    ask(world, 2)
    kept = decode(encode(keep(world.machine, 0)), KeptState)
    machine = next_attempt(kept, world.machine.job, "application_1_0001", "alice", 2, world.now, 9_000.0)
    asked = [one for one in machine.handle(on.Begin(), world.now) if isinstance(one, do.RequestContainer)]
    assert [str(one.identity.task) for one in asked] == names(0, 1)


# Which jobs may ------------------------------------------------------------------------------------------------


def worker(**changes: object) -> RoleSpec:
    return RoleSpec("worker", ("t.py",), instances=4, min_instances=2, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("framework", ["auto", "pytorch", "tensorflow", "horovod"])
def test_frameworks_whose_world_is_made_anew_may_be_elastic(framework: str) -> None:
    assert problems(job(roles=(worker(),), framework=framework)) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (job(roles=(worker(),), framework="standalone"), "framework standalone cannot change its size."),
        (job(roles=(worker(), RoleSpec("ps", ("t.py",), untracked=True))), "the tasks of role ps are told once"),
        (job(roles=(worker(sidecar=True), RoleSpec("chief", ("t.py",)))), "only a tracked role"),
        (job(roles=(worker(), replace(worker(), name="more"))), "role worker is elastic already"),
        (job(roles=(worker(),), restart=RestartSpec(RestartPolicy.NEVER)), "needs a restart of the gang"),
        (job(roles=(worker(),), success=SuccessPolicy.ANY), "goes with success: all only"),
    ],
)
def test_other_jobs_are_told_why_not(spec: JobSpec, said: str) -> None:
    assert any(said in problem.message for problem in problems(spec)), problems(spec)


def test_indexes_in_the_cluster_spec_have_no_gaps() -> None:
    world = World(elastic(framework="tensorflow"))
    world.bring_up(*names(0, 2, 3))
    world.pass_time(61.0, beating=names(0, 2, 3))
    release = next(one for one in world.all(do.SayRelease) if one.identity.task == TaskId("worker", 2))
    extra = {"application_id": "a"}
    environment = task_environment(release.identity.task, release.cluster, world.machine.job, extra)
    assert '"task": {"type": "worker", "index": 1}' in environment["TF_CONFIG"]
    assert (environment["TASK_INDEX"], environment["TONY_INDEX"]) == ("1", "2")
