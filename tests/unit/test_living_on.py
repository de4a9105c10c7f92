"""User processes that can live on are kept when the others of the gang change."""

from __future__ import annotations

import base64
import hashlib
import hmac
import pickle
import struct

import pytest
from machine_driver import World, job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.notice import notice, read_door
from appmaster.resume import KeptState, keep, same_attempt
from tony.containers import EndCause
from tony.frameworks import task_environment
from tony.records import decode, encode
from tony.spec import HangSpec, OnHang, RoleSpec, Times
from tony.state import JobState, TaskState

TIMES = Times(gang_s=60.0, replacement_s=5.0, growth_s=100.0, lease_s=20.0, stop_grace_s=2.0)


def names(*indexes: int) -> list[str]:
    return [f"worker:{index}" for index in indexes]


def running(processes: int = 1, **changes: object) -> World:
    """Three workers over Horovod, between two and four, that have all said that they can live on."""
    role = RoleSpec("worker", ("t.py",), 3, min_instances=2, max_instances=4, procs_per_task=processes)
    world = World(job(roles=(role,), **{"times": TIMES, "framework": "horovod", **changes}))
    world.bring_up(*names(0, 1, 2))
    can_live_on(world, 0, 1, 2, processes=processes)
    return world


def can_live_on(world: World, *indexes: int, processes: int = 1) -> None:
    for name in names(*indexes):
        for number in range(processes):
            world.feed(on.CanLiveOn(world.who(name), number, 5000 + number, "ab"))


def kept(world: World, *indexes: int) -> None:
    """Their executors have the process of before for the next generation."""
    for name in names(*indexes):
        world.feed(on.Prepared(world.who(name), on.Ports(world.machine.generation, 7000, kept=True)))


def kill(world: World, index: int) -> None:
    others = [name for name in names(0, 1, 2) if name != names(index)[0]]
    world.exit(*names(index), signal="SIGKILL")
    world.pass_time(1.0, beating=others)


def ranks(world: World) -> dict[str, int]:
    """By task, of the newest generation."""
    releases = [r for r in world.all(do.SayRelease) if r.cluster.generation == world.machine.generation]
    extra = {"application_id": "application_1_0001"}
    found = {}
    for release in releases:
        variables = task_environment(release.identity.task, release.cluster, world.machine.job, extra)
        found[str(release.identity.task)] = int(variables["TONY_RANK"])
    return found


def test_the_killed_one_is_started_again_and_the_others_live_on_with_the_oldest_as_rank_0() -> None:
    world = running()
    kill(world, 0)
    assert world.told(do.SayStopUser) == names(0)
    assert world.told(do.SayLiveOn) == names(1, 2)
    kept(world, 1, 2)
    world.prepare("worker:0")
    assert world.machine.state is JobState.RUNNING
    assert ranks(world) == {"worker:1": 0, "worker:2": 1, "worker:0": 2}
    can_live_on(world, 0)
    kill(world, 2)
    assert world.told(do.SayLiveOn)[2:] == names(0, 1)
    kept(world, 0, 1)
    world.prepare("worker:2")
    assert ranks(world) == {"worker:1": 0, "worker:0": 1, "worker:2": 2}, "the oldest process has the state"


def test_without_a_container_for_the_lost_one_the_others_go_on_as_they_are() -> None:
    world = running()
    world.end_container("worker:1", EndCause.NODE_LOST)
    world.pass_time(5.0, beating=names(0, 2))
    kept(world, 0, 2)
    world.pass_time(25.0, beating=names(0, 2))
    assert ranks(world) == {"worker:0": 0, "worker:2": 1}
    assert world.told(do.SayStopUser) == []


def test_a_resize_keeps_who_stays() -> None:
    world = running()
    world.feed(on.ResizeAsked("a", 4))
    world.bring_up("worker:3")
    world.pass_time(1.0, beating=names(0, 1, 2, 3))
    kept(world, 0, 1, 2)
    world.prepare("worker:3")
    assert ranks(world) == {"worker:0": 0, "worker:1": 1, "worker:2": 2, "worker:3": 3}
    world.feed(on.ResizeAsked("a", 2))
    assert world.told(do.SayStopUser) == ["worker:3"], (
        "it was no candidate's process, and was not stopped for another"
    )
    world.leave("worker:2", "worker:3")
    kept(world, 0, 1)
    assert ranks(world) == {"worker:0": 0, "worker:1": 1}


def test_who_has_not_said_so_is_started_again() -> None:
    role = RoleSpec("worker", ("t.py",), 3)
    world = World(job(roles=(role,), framework="horovod", times=TIMES))
    world.bring_up(*names(0, 1, 2))
    can_live_on(world, 1)
    kill(world, 0)
    assert sorted(world.told(do.SayStopUser)) == names(0, 2)
    assert world.told(do.SayLiveOn) == names(1)


def test_a_task_lives_on_only_when_all_its_processes_can() -> None:
    world = running(processes=2)
    world.machine.tasks[world.who("worker:1").task].doors.pop(1)
    kill(world, 0)
    assert sorted(world.told(do.SayStopUser)) == names(0, 1)
    assert world.told(do.SayLiveOn) == names(2)


def test_a_failure_of_ones_own_is_no_living_on() -> None:
    world = running()
    world.exit("worker:0", signal="SIGKILL")
    world.exit("worker:1", code=1)
    world.pass_time(4.0, beating=names(2))
    assert sorted(world.told(do.SayStopUser)) == names(0, 1)
    assert world.told(do.SayLiveOn) == names(2)


def test_one_that_ends_while_the_others_are_gathered_begins_anew_with_them() -> None:
    world = running()
    kill(world, 0)
    kept(world, 1, 2)
    world.exit("worker:1")
    assert sorted(world.told(do.SayStopUser)) == names(0, 1)
    world.prepare("worker:0", "worker:1")
    assert world.machine.generation == 2 and world.machine.state is JobState.RUNNING
    assert ranks(world) == {"worker:2": 0, "worker:0": 1, "worker:1": 2}
    can_live_on(world, 0, 1)
    for name in names(0, 1, 2):
        world.exit(name)
    assert world.machine.verdict is not None and world.machine.verdict.state is JobState.SUCCEEDED


def test_one_that_could_not_be_kept_after_all_is_a_new_one() -> None:
    world = running()
    kill(world, 0)
    kept(world, 2)
    world.prepare("worker:0", "worker:1")
    assert ranks(world) == {"worker:2": 0, "worker:0": 1, "worker:1": 2}


def test_another_loss_while_the_gang_gathers_keeps_the_rest_again() -> None:
    world = running()
    kill(world, 0)
    kept(world, 1, 2)
    world.end_container("worker:2", EndCause.NODE_LOST)
    world.pass_time(5.0, beating=names(0, 1))
    assert world.machine.generation == 3
    assert world.told(do.SayLiveOn) == [*names(1, 2), "worker:1"]


def test_nobody_lives_on_in_a_job_that_hangs() -> None:
    world = running(hang=HangSpec(60.0, action=OnHang.RESTART))
    idle = {"cpu_percent": 0.4, "io_mb_per_s": 0.0, "output_bytes": 100.0}
    for second in range(70):
        world.now += 1.0
        for name in names(0, 1, 2):
            world.feed(on.Beaten(world.who(name), idle))
            if second == 65:
                world.feed(on.StacksTaken(world.who(name), "in allreduce"))
        world.feed(on.Tick())
    assert sorted(world.told(do.SayStopUser)) == names(0, 1, 2)
    assert world.told(do.SayLiveOn) == []


def test_a_restarted_master_knows_who_can_live_on_and_since_when() -> None:
    world = running()
    kill(world, 0)
    kept(world, 1, 2)
    world.prepare("worker:0")
    state = decode(encode(keep(world.machine, 0)), KeptState)
    again = same_attempt(state, world.machine.job, "application_1_0001", "alice", world.now)
    release = again.last_release()
    assert {str(task): since for task, since in release.started.items()} == {
        "worker:0": 2,
        "worker:1": 1,
        "worker:2": 1,
    }
    record = again.tasks[world.who("worker:1").task]
    assert record.state is TaskState.RUNNING and record.doors == {0: (5000, "ab")}


# What Horovod says, and is told ----------------------------------------------------------------------------------


KEY = bytes(range(32))


def test_port_and_key_are_read_without_unpickling() -> None:
    said = base64.b64encode(pickle.dumps(({"eth0": [("10.0.0.1", 40123)]}, KEY), protocol=5))
    assert read_door(said) == (40123, KEY.hex())


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    "said",
    [b"", b"abc", b"\xff", base64.b64encode(b"\x80\x05."), base64.b64encode(pickle.dumps(({}, b"short")))],
)
def test_anything_else_is_no_door(said: bytes) -> None:
    assert read_door(said) is None


def test_a_hostile_pickle_is_not_run() -> None:
    said = base64.b64encode(pickle.dumps(({"lo": [("h", 40123)]}, KEY, Trap())))
    assert read_door(said) == (40123, KEY.hex())


def test_the_notice_is_what_horovod_reads() -> None:
    message = notice(KEY.hex(), 1234.5)
    digest, length, body = message[:32], struct.unpack("i", message[32:36])[0], message[36:]
    assert digest == hmac.new(KEY, body, hashlib.sha256).digest() and length == len(body)
    assert b"horovod.runner.elastic.worker\nHostsUpdatedRequest\n" in body and struct.pack(">d", 1234.5) in body
