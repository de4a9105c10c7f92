"""The job's life, fault by fault: facts in, commands out. No I/O, no clock."""

from __future__ import annotations

import pytest
from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.resume import KeptState, keep, next_attempt, same_attempt
from tony.containers import EndCause, HandleState, Identity, Phase
from tony.records import decode, encode
from tony.spec import (
    RestartPolicy,
    RestartSpec,
    RoleSpec,
    SuccessPolicy,
    TaskId,
    Times,
)
from tony.state import InvalidMove, JobState, Reason, TaskState

WORKERS = ("worker:0", "worker:1")


def running(**changes: object) -> World:
    world = World(job(**changes))
    world.bring_up(*WORKERS)
    assert world.machine.state is JobState.RUNNING
    return world


def verdict(world: World) -> tuple[JobState, Reason]:
    found = world.machine.verdict
    assert found is not None
    return found.state, found.reason


def test_nobody_is_released_before_the_whole_gang_is_ready() -> None:
    world = World(job())
    world.bring_up("worker:0")
    world.hold("worker:1")
    world.greet("worker:1")
    assert world.all(do.SayRelease) == []
    world.prepare("worker:1")
    assert world.told(do.SayRelease) == list(WORKERS)


def test_the_history_tells_which_gpus_a_task_has() -> None:
    world = World(job())
    world.hold(*WORKERS)
    world.feed(on.Greeted(world.who("worker:0"), host="node1", gpus=("GPU 0: T4", "GPU 1: T4")))
    world.greet("worker:1")
    events = [event for event in world.all(do.RecordEvent) if event.fields.get("state") == "REGISTERED"]
    assert [event.fields.get("gpus") for event in events] == ["GPU 0: T4, GPU 1: T4", None]


def test_a_release_names_every_endpoint_in_rank_order() -> None:
    world = running()
    cluster = world.all(do.SayRelease)[0].cluster
    assert [str(task) for task in cluster.tasks] == list(WORKERS)
    assert cluster.addresses("worker") == ["node1:7000", "node1:7000"]


def test_the_state_is_kept_before_anybody_is_released_or_acknowledged() -> None:
    world = World(job())
    world.bring_up("worker:0")
    world.hold("worker:1")
    world.greet("worker:1")
    said = world.feed(on.Prepared(world.who("worker:1"), on.Ports(1, 7000)))
    kinds = [type(command) for command in said]
    assert kinds.index(do.SaveState) < kinds.index(do.SayRelease)
    said = world.feed(on.UserEnded(world.who("worker:0"), on.ExitReport(1)))
    kinds = [type(command) for command in said]
    assert kinds.index(do.SaveState) < kinds.index(do.SayResultAck)


def test_the_job_succeeds_when_every_tracked_task_exits_with_0() -> None:
    world = running()
    world.exit("worker:0")
    assert world.machine.verdict is None
    world.exit("worker:1")
    assert verdict(world) == (JobState.SUCCEEDED, Reason.SUCCEEDED)
    assert world.told(do.SayLeave) == list(WORKERS)
    assert world.all(do.Finish) == []
    world.leave(*WORKERS)
    assert len(world.all(do.Finish)) == 1
    assert world.states() == {"worker:0": "SUCCEEDED", "worker:1": "SUCCEEDED"}


def test_a_user_error_fails_the_job_and_names_the_task() -> None:
    world = running()
    world.exit("worker:1", code=3, message="ValueError: bad")
    world.pass_time(1.0, beating=["worker:0"])
    assert verdict(world) == (JobState.FAILED, Reason.WORKER_EXIT)
    failure = world.machine.verdict.first_failure
    assert (failure.task, failure.exit_code, failure.message) == ("worker:1", 3, "ValueError: bad")
    world.leave(*WORKERS)
    assert world.states() == {"worker:0": "STOPPED", "worker:1": "FAILED"}
    assert world.machine.state is JobState.FAILED


def test_a_lone_task_fails_without_waiting_for_other_evidence() -> None:
    world = World(job(workers=1))
    world.bring_up("worker:0")
    world.exit("worker:0", code=1)
    assert verdict(world) == (JobState.FAILED, Reason.WORKER_EXIT)


def test_a_lost_node_outranks_the_exit_that_it_caused() -> None:
    world = running(restart=RestartSpec(policy=RestartPolicy.NEVER))
    world.exit("worker:0", code=1, message="Connection reset by peer")
    world.feed(on.StreamClosed(world.who("worker:1")))
    world.end_container("worker:1", EndCause.NODE_LOST, "Container released on a *lost* node")
    world.pass_time(4.0)
    assert verdict(world) == (JobState.FAILED, Reason.NODE_LOST)
    assert world.machine.verdict.collateral == ("worker:0",)


def test_a_silent_member_is_given_time_before_the_exit_of_another_is_blamed() -> None:
    world = running(restart=RestartSpec(policy=RestartPolicy.NEVER))
    world.exit("worker:0", code=1, message="Connection reset by peer")
    world.pass_time(6.0)
    assert world.machine.verdict is None
    world.pass_time(8.0)
    assert verdict(world)[1] is Reason.EXECUTOR_UNRESPONSIVE


def test_an_abort_signal_does_not_outrank_an_earlier_exit() -> None:
    world = running()
    world.exit("worker:0", code=1, message="ValueError: cause")
    world.exit("worker:1", signal="SIGABRT")
    assert world.machine.verdict.first_failure.message == "ValueError: cause"


def test_a_killed_user_process_restarts_the_gang_in_its_containers() -> None:
    world = running()
    world.exit("worker:1", signal="SIGKILL")
    world.pass_time(1.0, beating=WORKERS)
    assert world.machine.state is JobState.RESTARTING
    assert world.machine.generation == 2
    assert sorted(world.told(do.SayStopUser)) == list(WORKERS)
    assert len(world.all(do.RequestContainer)) == 2
    for name in WORKERS:
        world.feed(on.UserStopped(world.who(name), 1))
    world.prepare(*WORKERS, port=7100)
    assert world.told(do.SayRelease)[2:] == list(WORKERS)
    assert world.all(do.SayRelease)[-1].cluster.generation == 2


def test_only_the_dead_container_is_replaced() -> None:
    world = running()
    world.feed(on.StreamClosed(world.who("worker:1")))
    world.end_container("worker:1", text="exit code 137")
    world.pass_time(1.0, beating=["worker:0"])
    assert world.machine.state is JobState.RESTARTING
    assert [str(c.identity.task) for c in world.all(do.RequestContainer)] == [*WORKERS, "worker:1"]
    assert world.machine.tasks[TaskId("worker", 1)].incarnation == 2
    world.feed(on.UserStopped(world.who("worker:0"), 1))
    world.prepare("worker:0")
    world.bring_up("worker:1")
    assert world.machine.state is JobState.RUNNING


def test_the_successor_of_a_silent_task_is_released_only_after_its_lease() -> None:
    world = running()
    world.pass_time(14.0, beating=["worker:0"])
    assert world.machine.tasks[TaskId("worker", 1)].incarnation == 2
    world.feed(on.UserStopped(world.who("worker:0"), 1))
    world.prepare("worker:0")
    world.bring_up("worker:1")
    world.pass_time(0.5, beating=WORKERS)
    assert world.machine.state is JobState.RESTARTING
    assert "predecessor" in world.machine.waiting_for
    world.pass_time(60.0, beating=WORKERS)
    assert world.machine.state is JobState.RUNNING


def test_the_lease_is_not_waited_for_when_the_old_container_certainly_ended() -> None:
    world = running()
    world.pass_time(14.0, beating=["worker:0"])
    old = Identity(TaskId("worker", 1), 1)
    ended = HandleState("worker:1#1", Phase.ENDED, "c", "node1", EndCause.NODE_LOST)
    world.feed(on.UserStopped(world.who("worker:0"), 1))
    world.prepare("worker:0")
    world.bring_up("worker:1")
    world.feed(on.ContainerSeen(old, ended))
    assert world.machine.state is JobState.RUNNING


def test_messages_of_an_old_incarnation_change_nothing() -> None:
    world = running()
    world.feed(on.StreamClosed(world.who("worker:1")))
    world.end_container("worker:1")
    world.pass_time(1.0, beating=["worker:0"])
    old = Identity(TaskId("worker", 1), 1)
    before = world.states()
    world.feed(on.UserEnded(old, on.ExitReport(2, exit_code=9)))
    said = world.feed(on.Greeted(old, host="node1"))
    assert world.states() == before
    assert any(isinstance(command, do.SayRefused) for command in said)


def test_a_result_of_an_older_generation_is_acknowledged_and_ignored() -> None:
    world = running()
    world.exit("worker:1", signal="SIGKILL")
    world.pass_time(1.0, beating=WORKERS)
    said = world.feed(on.UserEnded(world.who("worker:0"), on.ExitReport(1, exit_code=143)))
    assert [c.generation for c in said if isinstance(c, do.SayResultAck)] == [1]
    assert world.machine.state is JobState.RESTARTING


def test_the_same_failure_three_times_without_progress_ends_the_job() -> None:
    world = running(restart=RestartSpec(max_infrastructure=9))
    for _ in range(3):
        world.exit("worker:1", signal="SIGKILL")
        world.pass_time(1.0, beating=WORKERS)
        for name in WORKERS:
            world.feed(on.UserStopped(world.who(name), world.machine.generation - 1))
        world.prepare(*WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.REPEATED)


def test_the_same_failure_of_other_ranks_is_the_same_failure() -> None:
    world = running(restart=RestartSpec(max_user=9))
    for name in ("worker:1", "worker:0", "worker:1"):
        world.exit(name, code=1, message="ValueError: bad batch")
        world.pass_time(1.0, beating=WORKERS)
        for one in WORKERS:
            world.feed(on.UserStopped(world.who(one), world.machine.generation - 1))
        world.prepare(*WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.REPEATED)


def test_nodes_that_are_lost_one_after_the_other_are_not_the_same_failure() -> None:
    world = running(restart=RestartSpec(max_infrastructure=9))
    for name, other in (WORKERS, WORKERS[::-1], WORKERS):
        world.end_container(name, EndCause.NODE_LOST, "Container released on a *lost* node")
        world.feed(on.StreamClosed(world.who(name)))
        world.pass_time(5.0, beating=[other])
        world.feed(on.UserStopped(world.who(other), world.machine.generation - 1))
        world.bring_up(name)
        world.prepare(other)
        assert world.machine.state is JobState.RUNNING


def test_the_last_words_of_an_executor_are_in_the_failure() -> None:
    world = running(restart=RestartSpec(policy=RestartPolicy.NEVER))
    world.feed(on.Confessed(world.who("worker:1"), "the executor ended by a defect of tony: KeyError: 'x'", "Trace"))
    world.end_container("worker:1", text="Container failed during execution")
    world.pass_time(1.0, beating=["worker:0"])
    failure = world.machine.verdict.first_failure
    assert (failure.reason, failure.traceback) == (Reason.EXECUTOR_LOST, "Trace")
    assert failure.message == "the executor ended by a defect of tony: KeyError: 'x'"


def test_progress_between_failures_keeps_the_job_going() -> None:
    world = running(restart=RestartSpec(max_infrastructure=9))
    for step in range(4):
        world.feed(on.Beaten(world.who("worker:0"), progress={"step": 10.0 * (step + 1)}))
        world.exit("worker:1", signal="SIGKILL")
        world.pass_time(1.0, beating=WORKERS)
        for name in WORKERS:
            world.feed(on.UserStopped(world.who(name), world.machine.generation - 1))
        world.prepare(*WORKERS)
    assert world.machine.verdict is None
    assert world.machine.generation == 5


def test_infrastructure_restarts_are_bounded() -> None:
    world = running(restart=RestartSpec(max_infrastructure=1, same_failure=99))
    for _ in range(2):
        world.exit("worker:1", signal="SIGKILL")
        world.pass_time(1.0, beating=WORKERS)
        for name in WORKERS:
            world.feed(on.UserStopped(world.who(name), world.machine.generation - 1))
        world.prepare(*WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.WORKER_SIGNAL)


def test_a_clash_of_ports_is_tried_again_without_holding_the_ports() -> None:
    world = running(restart=RestartSpec(max_infrastructure=0))
    assert world.all(do.SayRelease)[0].hold_ports
    world.exit("worker:0", code=1, reason="PORT_CLASH")
    world.pass_time(1.0, beating=WORKERS)
    for name in WORKERS:
        world.feed(on.UserStopped(world.who(name), 1))
    world.prepare(*WORKERS, port=7200)
    assert world.machine.state is JobState.RUNNING
    assert not world.all(do.SayRelease)[-1].hold_ports


def test_a_replaced_task_leaves_the_others_alone_under_restart_task() -> None:
    world = running(restart=RestartSpec(policy=RestartPolicy.TASK))
    world.feed(on.StreamClosed(world.who("worker:1")))
    world.end_container("worker:1")
    world.pass_time(1.0, beating=["worker:0"])
    assert world.all(do.SayStopUser) == []
    world.bring_up("worker:1")
    assert world.told(do.SayRelease) == [*WORKERS, "worker:1"]
    assert world.machine.generation == 1


def test_memory_killed_by_the_cluster_is_a_user_error() -> None:
    world = running()
    world.feed(on.StreamClosed(world.who("worker:0")))
    world.end_container("worker:0", EndCause.OUT_OF_MEMORY, "314 MB of 128 MB physical memory used")
    world.pass_time(1.0, beating=["worker:1"])
    assert verdict(world) == (JobState.FAILED, Reason.OUT_OF_MEMORY)
    assert world.machine.verdict.reason.exit_code == 107


def test_a_container_that_never_greets_times_out_and_is_replaced() -> None:
    world = World(job(times=Times(registration_s=20.0, gang_s=600.0)))
    world.bring_up("worker:0")
    world.hold("worker:1")
    world.pass_time(25.0, beating=["worker:0"])
    assert world.machine.tasks[TaskId("worker", 1)].incarnation == 2
    assert "worker:1" in world.told(do.StopContainer)


def test_an_incomplete_gang_is_given_back_and_asked_for_again() -> None:
    world = World(job(times=Times(gang_s=30.0, backoff_min_s=5.0, backoff_max_s=10.0)))
    world.bring_up("worker:0")
    world.pass_time(31.0, beating=["worker:0"])
    assert world.machine.state is JobState.BACKING_OFF
    assert world.told(do.SayLeave) == ["worker:0"]
    assert world.told(do.StopContainer) == ["worker:1"]
    world.pass_time(11.0)
    assert world.machine.state is JobState.ALLOCATING
    assert len(world.all(do.RequestContainer)) == 4
    world.bring_up(*WORKERS)
    assert world.machine.state is JobState.RUNNING


def test_the_gang_fails_after_its_rounds_with_what_was_missing() -> None:
    world = World(job(times=Times(gang_s=10.0, backoff_min_s=1.0, backoff_max_s=2.0, gang_rounds=2)))
    for _ in range(2):
        world.bring_up("worker:0")
        world.pass_time(13.0, beating=["worker:0"])
    assert verdict(world) == (JobState.FAILED, Reason.GANG_TIMEOUT)
    assert "1 of 2 containers allocated" in world.machine.verdict.message
    assert "worker {2g} in queue default" in world.machine.verdict.message


def test_the_clock_of_the_gang_starts_with_the_first_container() -> None:
    world = World(job(times=Times(gang_s=10.0, queue_s=1000.0)))
    world.pass_time(500.0)
    assert world.machine.state is JobState.ALLOCATING
    world.pass_time(600.0)
    assert verdict(world) == (JobState.FAILED, Reason.QUEUE_TIMEOUT)


def test_a_stop_leaves_politely_and_is_killed_by_its_asker() -> None:
    world = running()
    world.feed(on.StopAsked(by="alice", reason="no longer needed", grace_s=7.0))
    assert [c.grace_s for c in world.all(do.SayLeave)] == [7.0, 7.0]
    world.exit("worker:0", signal="SIGTERM")
    world.leave(*WORKERS)
    assert world.machine.state is JobState.KILLED
    assert verdict(world) == (JobState.KILLED, Reason.CANCELLED)
    assert world.states() == {"worker:0": "STOPPED", "worker:1": "STOPPED"}


def test_the_first_reason_to_stop_stays() -> None:
    world = running()
    world.feed(on.StopAsked(by="alice", reason="first", grace_s=5.0))
    world.feed(on.StopAsked(by="bob", reason="second", grace_s=5.0))
    world.feed(on.BackendLost("third"))
    assert world.machine.verdict.message == "first"


def test_a_stop_before_anything_is_held_ends_at_once() -> None:
    world = World(job())
    world.feed(on.StopAsked(by="alice", reason="", grace_s=30.0))
    assert world.told(do.StopContainer) == list(WORKERS)
    assert len(world.all(do.Finish)) == 1


def test_an_executor_that_does_not_leave_is_not_waited_for_beyond_the_grace() -> None:
    world = running()
    world.feed(on.StopAsked(by="alice", reason="", grace_s=2.0))
    world.leave("worker:0")
    world.pass_time(9.0, beating=["worker:1"])
    assert len(world.all(do.Finish)) == 1
    assert "worker:1" in world.told(do.StopContainer)


def test_parameter_servers_are_not_waited_for_but_their_failure_counts() -> None:
    roles = (
        RoleSpec("ps", ("train.py",), untracked=True),
        RoleSpec("worker", ("train.py",)),
    )
    world = World(job(roles=roles))
    world.bring_up("ps:0", "worker:0")
    world.exit("worker:0")
    assert verdict(world)[0] is JobState.SUCCEEDED
    world.leave("ps:0", "worker:0")
    assert world.states() == {"ps:0": "STOPPED", "worker:0": "SUCCEEDED"}

    world = World(job(roles=roles))
    world.bring_up("ps:0", "worker:0")
    world.exit("ps:0", code=1)
    world.pass_time(1.0, beating=["worker:0"])
    assert verdict(world)[0] is JobState.FAILED


def test_a_sidecar_is_neither_waited_for_nor_able_to_fail_the_job() -> None:
    roles = (RoleSpec("worker", ("train.py",)), RoleSpec("board", ("board.py",), sidecar=True))
    world = World(job(roles=roles))
    world.bring_up("worker:0")
    assert world.machine.state is JobState.RUNNING
    world.bring_up("board:0")
    assert world.told(do.SayRelease) == ["worker:0", "board:0"]
    told = [[str(task) for task in release.cluster.tasks] for release in world.all(do.SayRelease)]
    assert told == [["worker:0"], ["worker:0", "board:0"]]
    world.exit("board:0", code=1)
    world.pass_time(5.0, beating=["worker:0"])
    assert world.machine.verdict is None
    world.exit("worker:0")
    assert verdict(world)[0] is JobState.SUCCEEDED


def test_a_stage_begins_when_the_roles_that_it_depends_on_succeeded() -> None:
    roles = (
        RoleSpec("prepare", ("prepare.py",)),
        RoleSpec("worker", ("train.py",), instances=2, depends_on=("prepare",)),
    )
    world = World(job(roles=roles))
    assert world.told(do.RequestContainer) == ["prepare:0"]
    world.bring_up("prepare:0")
    world.exit("prepare:0")
    assert world.told(do.SayLeave) == ["prepare:0"]
    assert world.told(do.RequestContainer) == ["prepare:0", *WORKERS]
    world.leave("prepare:0")
    world.end_container("prepare:0", EndCause.KILLED_BY_US)
    assert world.states()["prepare:0"] == "SUCCEEDED"
    world.bring_up(*WORKERS)
    assert [str(t) for t in world.all(do.SayRelease)[-1].cluster.tasks] == list(WORKERS)
    world.exit("worker:0")
    world.exit("worker:1")
    assert verdict(world)[0] is JobState.SUCCEEDED


@pytest.mark.parametrize("policy", [SuccessPolicy.CHIEF, SuccessPolicy.ANY])
def test_success_of_the_chief_or_of_any_ends_the_job(policy: SuccessPolicy) -> None:
    world = running(success=policy)
    world.exit("worker:1", code=1)
    world.pass_time(2.0, beating=WORKERS)
    assert world.machine.verdict is None
    world.exit("worker:0")
    assert verdict(world)[0] is JobState.SUCCEEDED


def test_any_fails_when_all_have_failed() -> None:
    world = running(success=SuccessPolicy.ANY)
    for name in WORKERS:
        world.exit(name, code=1)
        world.pass_time(2.0, beating=WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.WORKER_EXIT)


def test_a_job_that_takes_longer_than_allowed_is_ended() -> None:
    world = running(times=Times(duration_s=60.0))
    world.pass_time(61.0, beating=WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.DURATION)


def test_a_role_that_stops_on_failure_ends_the_job_in_spite_of_restarts() -> None:
    roles = (RoleSpec("worker", ("train.py",), instances=2, stop_on_failure=True),)
    world = World(job(roles=roles))
    world.bring_up(*WORKERS)
    world.exit("worker:0", signal="SIGKILL")
    world.pass_time(1.0, beating=WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.WORKER_SIGNAL)


def test_a_bad_archive_is_not_tried_again() -> None:
    world = World(job(restart=RestartSpec(max_user=5)))
    world.hold(*WORKERS)
    world.greet(*WORKERS)
    report = on.ExitReport(1, phase="PREPARE", reason="BAD_ARCHIVE", message="source.tar.gz is truncated")
    world.feed(on.UserEnded(world.who("worker:0"), report))
    world.pass_time(1.0, beating=WORKERS)
    assert verdict(world) == (JobState.FAILED, Reason.BAD_ARCHIVE)


def test_a_reconnected_executor_goes_on_where_it_was() -> None:
    world = running()
    world.feed(on.StreamClosed(world.who("worker:1")))
    world.pass_time(3.0, beating=["worker:0"])
    world.feed(on.Greeted(world.who("worker:1"), host="node1", generation=1, user_running=True))
    world.pass_time(20.0, beating=WORKERS)
    assert world.machine.state is JobState.RUNNING
    assert len(world.all(do.SayRelease)) == 2


def test_a_result_that_comes_with_hello_counts() -> None:
    world = running()
    world.exit("worker:0")
    world.feed(on.StreamClosed(world.who("worker:1")))
    world.feed(on.Greeted(world.who("worker:1"), host="node1", generation=1, result=on.ExitReport(1)))
    assert verdict(world)[0] is JobState.SUCCEEDED


def restarted(world: World) -> World:
    """The same job after its application master's process was killed and started again."""
    machine = world.machine
    raw = encode(keep(machine, 7))
    again = World.__new__(World)
    again.now, again.said = world.now + 2.0, []
    kept = decode(raw, KeptState)
    again.machine = same_attempt(kept, machine.job, machine.application_id, "alice", again.now)
    again.said.extend(again.machine.resume(again.now))
    return again


def test_a_restarted_application_master_neither_restarts_nor_forgets() -> None:
    world = running()
    world.exit("worker:0")
    again = restarted(world)
    assert again.states() == {"worker:0": "SUCCEEDED", "worker:1": "RUNNING"}
    again.feed(on.Greeted(again.who("worker:1"), host="node1", generation=1, user_running=True))
    again.pass_time(5.0, beating=["worker:1"])
    assert again.machine.generation == 1
    again.exit("worker:1")
    assert verdict(again)[0] is JobState.SUCCEEDED


def test_a_task_whose_release_was_lost_with_the_application_master_is_released_again() -> None:
    again = restarted(running())
    ports = on.Ports(1, 7000)
    again.feed(on.Greeted(again.who("worker:1"), host="node1", generation=0, ports=ports))
    again.feed(on.Greeted(again.who("worker:0"), host="node1", generation=1, user_running=True))
    assert again.told(do.SayRelease) == ["worker:1"]


def test_a_second_attempt_starts_the_gang_again_in_a_new_generation() -> None:
    world = running()
    kept = decode(encode(keep(world.machine, 7)), KeptState)
    machine = next_attempt(kept, world.machine.job, "application_1_0001", "alice", 2, world.now, 9_000.0)
    said = machine.handle(on.Begin(), world.now)
    asked = [command.identity for command in said if isinstance(command, do.RequestContainer)]
    assert [(str(who.task), who.incarnation) for who in asked] == [("worker:0", 2), ("worker:1", 2)]
    assert machine.generation == 2


def test_a_move_that_is_not_in_the_table_raises_with_the_story() -> None:
    world = running()
    record = world.machine.tasks[TaskId("worker", 0)]
    with pytest.raises(InvalidMove, match="released in generation 1"):
        record.move(TaskState.HELD, "nonsense", world.now)


def test_a_refused_request_is_a_launch_failure() -> None:
    world = World(job(restart=RestartSpec(policy=RestartPolicy.NEVER)))
    world.feed(on.ContainerRefused(world.who("worker:0"), "no such service"))
    world.pass_time(4.0)
    assert verdict(world) == (JobState.FAILED, Reason.LAUNCH_FAILED)


def test_a_page_is_shown_once() -> None:
    world = running()
    for _ in range(2):
        world.feed(on.PageOffered(world.who("worker:0"), "tensorboard", "http://node1:6006"))
    urls = [c for c in world.all(do.RecordEvent) if c.kind.value == "URL"]
    assert len(urls) == 1
    assert world.machine.urls == {"tensorboard": "http://node1:6006"}


def test_a_wait_is_explained_once_it_is_long_enough_to_be_noticed() -> None:
    world = World(job())
    world.bring_up("worker:0")
    world.pass_time(2.0, beating=["worker:0"])
    assert [c for c in world.all(do.RecordEvent) if c.kind.value == "WAITING"] == []
    assert world.machine.waiting_for == ("1 of 2 containers allocated, waiting for 1 × worker {2g} in queue default")
    world.pass_time(60.0, beating=["worker:0"])
    said = [c.text for c in world.all(do.RecordEvent) if c.kind.value == "WAITING"]
    assert said == [world.machine.waiting_for]


def test_the_cluster_is_shown_how_far_the_job_is() -> None:
    world = running()
    world.feed(on.Beaten(world.who("worker:0"), progress={"progress": 0.25}))
    world.pass_time(1.0, beating=WORKERS)
    world.exit("worker:0")
    world.pass_time(1.0, beating=WORKERS)
    assert [command.fraction for command in world.all(do.ShowProgress)] == [0.25, 0.5]


def test_a_repeated_answer_to_a_stop_does_not_touch_the_next_generation() -> None:
    world = running()
    world.exit("worker:1", signal="SIGKILL")
    world.pass_time(1.0, beating=WORKERS)
    for name in WORKERS:
        world.feed(on.UserStopped(world.who(name), 1))
    world.prepare(*WORKERS)
    world.feed(on.UserStopped(world.who("worker:0"), 1))
    assert world.states() == {"worker:0": "RUNNING", "worker:1": "RUNNING"}


def test_a_lost_answer_to_a_stop_is_made_up_for_by_the_next_ready() -> None:
    world = running()
    world.exit("worker:1", signal="SIGKILL")
    world.pass_time(1.0, beating=WORKERS)
    world.prepare(*WORKERS, port=7100)
    assert world.machine.state is JobState.RUNNING
    world.pass_time(60.0, beating=WORKERS)
    assert world.machine.generation == 2


def test_a_failed_task_gets_a_new_container_under_restart_task() -> None:
    world = running(restart=RestartSpec(policy=RestartPolicy.TASK))
    world.exit("worker:1", signal="SIGKILL")
    world.pass_time(1.0, beating=WORKERS)
    assert world.told(do.SayLeave) == ["worker:1"]
    world.bring_up("worker:1")
    assert world.told(do.SayRelease) == [*WORKERS, "worker:1"]
    assert (world.machine.generation, world.states()["worker:0"]) == (1, "RUNNING")


def test_the_others_are_asked_at_once_whether_they_are_well() -> None:
    world = running()
    world.exit("worker:1", signal="SIGKILL")
    world.pass_time(0.5, step=0.1)
    assert world.told(do.SayBeatNow) == ["worker:0"]
    assert world.machine.state is JobState.RUNNING
    world.feed(on.Beaten(world.who("worker:0")))
    world.feed(on.Tick())
    assert world.machine.state is JobState.RESTARTING


def test_nobody_was_silent_while_this_process_itself_stood_still() -> None:
    world = running()
    world.now += 25.0
    world.feed(on.StoodStill(25.0))
    world.feed(on.Tick())
    world.pass_time(5.0, beating=WORKERS)
    assert (world.machine.generation, world.states()) == (1, {"worker:0": "RUNNING", "worker:1": "RUNNING"})
