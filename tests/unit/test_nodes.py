"""Nodes that fail are kept away from, for a while and within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.nodes import AT_ONCE, BLAMED, NodeMemory
from appmaster.resume import KeptState, keep, next_attempt, same_attempt
from appmaster.view import snapshot
from tony.containers import EndCause, HandleState, Phase
from tony.events import EventKind
from tony.records import decode, encode
from tony.spec import ExclusionSpec, RestartSpec
from tony.state import Reason

RULE = ExclusionSpec()


def blame(memory: NodeMemory, node: str, reason: Reason, now: float, nodes: int = 10) -> list[str]:
    return memory.blame(node, "worker:0", reason, RULE, nodes, now)


@pytest.mark.parametrize("reason", sorted(BLAMED - AT_ONCE))
def test_two_failures_within_an_hour_exclude_a_node_for_an_hour(reason: Reason) -> None:
    memory = NodeMemory()
    assert blame(memory, "n1", reason, 0.0) == []
    assert blame(memory, "n2", reason, 10.0) == []
    (said,) = blame(memory, "n1", reason, 3599.0)
    assert said.startswith("node n1 is excluded for 1h: 2 failures within 1h, the last:")
    assert memory.is_excluded("n1", 3599.0) and not memory.is_excluded("n2", 3599.0)
    assert memory.expire(3599.0 + 3600.0) == ["node n1 is let in again: its time is over"]
    assert not memory.is_excluded("n1", 3599.0 + 3600.0)


def test_failures_that_lie_further_apart_than_the_window_do_not_add_up() -> None:
    memory = NodeMemory()
    for hour in range(5):
        assert blame(memory, "n1", Reason.EXECUTOR_LOST, hour * 3601.0) == []


@pytest.mark.parametrize("reason", [Reason.GPU_FAULT, Reason.NODE_LOST])
def test_one_broken_gpu_or_a_lost_node_is_enough(reason: Reason) -> None:
    memory = NodeMemory()
    assert blame(memory, "n1", reason, 0.0) == [f"node n1 is excluded for 1h: {reason.value} of worker:0"]


@pytest.mark.parametrize("reason", sorted(set(Reason) - BLAMED))
def test_what_the_user_or_the_scheduler_did_is_not_the_nodes_fault(reason: Reason) -> None:
    memory = NodeMemory()
    for moment in range(5):
        assert blame(memory, "n1", reason, float(moment)) == []
    assert memory == NodeMemory()


@pytest.mark.parametrize(("nodes", "most"), [(1, 0), (2, 0), (3, 0), (4, 1), (7, 2), (10, 3), (100, 30)])
def test_never_more_than_thirty_percent_of_the_nodes(nodes: int, most: int) -> None:
    memory = NodeMemory()
    for number in range(nodes):
        said = blame(memory, f"n{number}", Reason.GPU_FAULT, float(number), nodes)
        assert ("is not excluded" in said[0]) == (number >= most), said
    assert len(memory.exclusions) == most


def test_with_every_node_excluded_the_oldest_is_let_in_again() -> None:
    memory, rule = NodeMemory(), replace(RULE, share_percent=100)
    for number in range(3):
        said = memory.blame(f"n{number}", "worker:0", Reason.GPU_FAULT, rule, 3, float(number))
    assert said[-1] == "node n0 is let in again: every node would be excluded"
    assert [one.node for one in memory.exclusions] == ["n1", "n2"]


def test_no_failure_excludes_where_exclusion_is_switched_off() -> None:
    memory = NodeMemory()
    assert memory.blame("n1", "worker:0", Reason.GPU_FAULT, replace(RULE, failures=0), 10, 0.0) == []


# In the machine -----------------------------------------------------------------------------------------------

OFF_AT_ONCE = ExclusionSpec(failures=1)


def world(workers: int = 2, nodes: int = 10) -> World:
    made = World(job(workers, exclusion=OFF_AT_ONCE), node_count=nodes)
    for index in range(workers):
        made.hold(f"worker:{index}", node=f"n{index}")
        made.greet(f"worker:{index}")
        made.prepare(f"worker:{index}")
    assert made.machine.state.value == "RUNNING"
    return made


def of_nodes(made: World) -> list[str]:
    return [event.text for event in made.all(do.RecordEvent) if event.kind is EventKind.NODE]


def lose(made: World, name: str) -> None:
    made.end_container(name, text="gone")
    made.pass_time(4.0, beating=[name for name in ("worker:0", "worker:1") if name in made.told(do.SayRelease)])


def test_a_container_on_an_excluded_node_is_held_until_another_lands_elsewhere() -> None:
    made = world()
    lose(made, "worker:1")
    made.hold("worker:1", node="n1")
    first, again = made.who("worker:1", 2), made.who("worker:1")
    assert again.incarnation == 3, "a new container was asked for"
    assert "worker:1 declines its container on the excluded node n1 and asks for another" in of_nodes(made)
    assert first not in [one.identity for one in made.all(do.StopContainer)], "its place would be offered again"
    made.feed(on.Greeted(first, host="n1"))
    assert first not in [one.identity for one in made.all(do.SayRefused)]
    made.hold("worker:1", node="n2")
    assert first in [one.identity for one in made.all(do.StopContainer)]
    assert made.states()["worker:1"] == "HELD" and made.who("worker:1") == again


def test_a_declined_container_is_given_back_after_a_while_in_any_case() -> None:
    made = world()
    lose(made, "worker:1")
    made.hold("worker:1", node="n1")
    declined = made.who("worker:1", 2)
    made.pass_time(31.0, beating=["worker:0"])
    assert declined in [one.identity for one in made.all(do.StopContainer)]
    made.feed(on.Greeted(declined, host="n1"))
    assert declined in [one.identity for one in made.all(do.SayRefused)]


def test_a_task_that_is_offered_nothing_else_takes_the_excluded_node() -> None:
    made = world()
    lose(made, "worker:1")
    for _ in range(4):
        made.hold("worker:1", node="n1")
    assert made.states()["worker:1"] == "HELD"
    assert of_nodes(made)[-1] == "worker:1 takes its container on the excluded node n1: no other was offered"


def test_a_container_that_was_seen_after_its_executor_spoke_is_declined_too() -> None:
    made = world()
    lose(made, "worker:1")
    made.greet("worker:1")
    made.hold("worker:1", node="n1")
    assert made.who("worker:1").incarnation == 3


def test_the_end_of_a_declined_container_does_not_shorten_the_lease_of_a_lost_task() -> None:
    made = world()
    made.pass_time(11.0, beating=["worker:0"])
    made.pass_time(15.0, beating=["worker:0"])
    assert made.who("worker:1").incarnation == 2
    release_after = made.machine.tasks[made.who("worker:1").task].release_after
    assert release_after > made.now
    made.hold("worker:1", node="n1")
    who = made.who("worker:1", 2)
    ended = HandleState("worker:1#2", Phase.ENDED, "c", "n1", EndCause.EXITED)
    made.feed(on.ContainerSeen(who, ended))
    assert made.machine.tasks[who.task].release_after == release_after


def test_a_gpu_fault_moves_the_task_although_its_container_is_healthy() -> None:
    made = world()
    made.exit("worker:1", code=1, reason="GPU_FAULT", message="GPU has fallen off the bus")
    made.pass_time(4.0, beating=["worker:0", "worker:1"])
    assert made.who("worker:1").incarnation == 2
    assert made.who("worker:0").incarnation == 1
    assert of_nodes(made) == ["node n1 is excluded for 1h: GPU_FAULT of worker:1"]


def test_on_a_small_cluster_nothing_is_excluded_and_an_event_says_so() -> None:
    made = world(nodes=3)
    made.exit("worker:1", code=1, reason="GPU_FAULT", message="GPU has fallen off the bus")
    made.pass_time(4.0, beating=["worker:0", "worker:1"])
    assert made.who("worker:1").incarnation == 1
    said = "node n1 is not excluded (GPU_FAULT of worker:1): none of 3 may be (30 %)"
    assert of_nodes(made) == [said]


def test_what_is_declined_is_given_back_at_the_end() -> None:
    made = world()
    lose(made, "worker:1")
    made.hold("worker:1", node="n1")
    made.feed(on.StopAsked("alice", "", 1.0))
    assert made.who("worker:1", 2) in [one.identity for one in made.all(do.StopContainer)]
    assert made.machine.declined == []


def test_exclusions_are_shown_with_wall_time() -> None:
    made = world()
    lose(made, "worker:1")
    (excluded,) = snapshot(made.machine, made.now, 0).excluded_nodes
    assert excluded.node == "n1" and excluded.why.endswith("EXECUTOR_LOST of worker:1")
    assert 5_000.0 + 3600.0 <= excluded.until <= 5_010.0 + 3600.0


def test_a_restarted_master_and_a_second_attempt_remember() -> None:
    made = world()
    lose(made, "worker:1")
    machine = made.machine
    kept = decode(encode(keep(machine, 0)), KeptState)
    same = same_attempt(kept, machine.job, "application_1_0001", "alice", made.now, node_count=10)
    assert same.nodes == machine.nodes and same.node_count == 10
    later = next_attempt(kept, machine.job, "application_1_0001", "alice", 2, 7.0, 5_004.0, node_count=10)
    assert later.nodes.is_excluded("n1", 7.0) and not later.nodes.is_excluded("n1", 7.0 + 3700.0)


def test_a_job_that_may_restart_once_only_still_tells_whose_node_it_was() -> None:
    made = World(job(1, exclusion=OFF_AT_ONCE, restart=RestartSpec(max_infrastructure=0)), node_count=10)
    made.hold("worker:0", node="n7")
    made.greet("worker:0")
    made.prepare("worker:0")
    made.end_container("worker:0")
    made.pass_time(4.0)
    assert any("node n7 is excluded" in text for text in of_nodes(made))


# Who was alive ------------------------------------------------------------------------------------------------


def decided(made: World) -> list[str]:
    return [one.fields["reason"] for one in made.all(do.RecordEvent) if one.kind is EventKind.DECISION]


def silent(made: World) -> World:
    """worker:1 has just been lost by silence; its container is being stopped."""
    while made.machine.tasks[made.who("worker:1").task].state.value != "LOST":
        made.pass_time(0.5, beating=["worker:0"])
    assert decided(made) == []
    return made


@pytest.mark.parametrize(("stood_still_s", "reason"), [(0.0, "PARTITIONED"), (12.0, "EXECUTOR_UNRESPONSIVE")])
def test_a_lost_task_that_says_hello_was_cut_off_unless_it_stood_still_itself(
    stood_still_s: float, reason: str
) -> None:
    made = silent(world())
    assert made.machine.may_greet(made.who("worker:1"))
    made.feed(on.Greeted(made.who("worker:1"), host="n1", stood_still_s=stood_still_s))
    assert made.told(do.SayRefused) == ["worker:1"]
    made.pass_time(3.0, beating=["worker:0"])
    assert decided(made) == [reason]


def test_a_lost_task_that_ends_in_good_order_when_it_is_stopped_was_cut_off() -> None:
    made = silent(world())
    ended = HandleState("worker:1#1", Phase.ENDED, "c", "n1", EndCause.KILLED_BY_US, 143)
    made.feed(on.ContainerSeen(made.who("worker:1"), ended))
    made.pass_time(3.0, beating=["worker:0"])
    assert decided(made) == ["PARTITIONED"]


def test_without_any_word_of_it_silence_is_all_that_is_known() -> None:
    made = silent(world())
    lost_at = made.now
    while not decided(made):
        made.pass_time(0.25, beating=["worker:0"])
    assert decided(made) == ["EXECUTOR_UNRESPONSIVE"] and made.now - lost_at <= 4.0


def test_a_container_that_the_cluster_has_ended_ends_the_doubt_at_once() -> None:
    made = silent(world())
    ended = HandleState("worker:1#1", Phase.ENDED, "c", "n1", EndCause.KILLED_BY_US)
    made.feed(on.ContainerSeen(made.who("worker:1"), ended))
    assert made.machine.incident is None or made.machine.incident.unsure_until is None


def test_a_late_hello_is_told_in_the_history_even_when_the_gang_has_gone_on() -> None:
    made = silent(world())
    who = made.who("worker:1")
    made.pass_time(4.0, beating=["worker:0"])
    assert decided(made) == ["EXECUTOR_UNRESPONSIVE"] and made.who("worker:1").incarnation == 2
    made.feed(on.Greeted(who, host="n1"))
    told = [one for one in made.all(do.RecordEvent) if one.fields.get("reason") == "PARTITIONED"]
    assert [one.task for one in told] == ["worker:1"]
    assert not made.machine.may_greet(who)


def test_a_verdict_that_is_not_yet_told_gets_the_better_reason() -> None:
    made = World(job(2, restart=RestartSpec(max_infrastructure=0)))
    made.bring_up("worker:0", "worker:1")
    silent(made)
    who = made.who("worker:1")
    made.pass_time(4.0, beating=["worker:0"])
    verdict = made.machine.verdict
    assert verdict is not None and verdict.reason is Reason.EXECUTOR_UNRESPONSIVE
    made.feed(on.Greeted(who, host="n1"))
    verdict = made.machine.verdict
    assert verdict is not None and verdict.first_failure is not None
    assert (verdict.reason, verdict.first_failure.reason) == (Reason.PARTITIONED, Reason.PARTITIONED)


# Files and peers ----------------------------------------------------------------------------------------------


def test_a_file_that_was_removed_ends_the_job_without_further_tries() -> None:
    made = World(job(2))
    made.hold("worker:0", "worker:1")
    made.end_container("worker:1", EndCause.ARTIFACT_CHANGED, "hdfs://h/user/a/.tony/cache/1.zip was removed")
    made.pass_time(4.0)
    verdict = made.machine.verdict
    assert verdict is not None and verdict.reason is Reason.ARTIFACT_CHANGED and verdict.reason.exit_code == 104
    assert "cache/1.zip" in verdict.message


def test_a_peer_that_cannot_be_reached_outranks_the_exits_of_those_who_waited_for_it() -> None:
    made = world()
    made.exit("worker:1", code=1)
    made.exit("worker:0", code=0, reason="UNREACHABLE_PEER", message="n0 cannot reach worker:1 at n1:7 (no answer)")
    made.pass_time(4.0, beating=["worker:0", "worker:1"])
    verdict = made.machine.verdict
    assert verdict is not None and verdict.reason is Reason.UNREACHABLE_PEER
    assert verdict.first_failure is not None and verdict.first_failure.task == "worker:0"
