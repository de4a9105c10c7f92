"""What the rendezvous keeps, for whom, and what it refuses."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from appmaster.rendezvous import Denied, Rendezvous
from tony.spec import ClusterSpec, Endpoint, JobSpec, RoleSpec, TaskId

JOB = JobSpec(
    "a job", (RoleSpec("worker", ("train.py",), 3), RoleSpec("board", ("b.py",), 1, sidecar=True)), "horovod"
)


def cluster(generation: int = 1) -> ClusterSpec:
    return ClusterSpec(generation, {task: Endpoint("n1", 4000) for task in JOB.tasks() if task.role == "worker"})


class Room:
    """A rendezvous with its three ranks; `put(1, "global/1")` is rank 1 writing."""

    def __init__(self, job: JobSpec = JOB) -> None:
        self.store = Rendezvous(job, "secret")
        self.invite(cluster())

    def invite(self, spec: ClusterSpec) -> None:
        self.invitations = [self.store.invite(task, spec) for task in spec.tasks]

    def put(self, rank: int, key: str, value: bytes = b"value") -> None:
        self.store.put(self.store.guest(self.path(rank, key)), value)

    def get(self, rank: int, key: str) -> bytes | None:
        return self.store.get(self.store.guest(self.path(rank, key)))

    def delete(self, rank: int, key: str) -> None:
        self.store.delete(self.store.guest(self.path(rank, key)))

    def path(self, rank: int, key: str) -> str:
        return f"/{self.invitations[rank]}:5000/{key}"


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.mark.parametrize(
    "key",
    [
        "global/1",
        "global/rank_1",
        "local_worker-1/0",
        "cross_0/1",
        "global_process_set_hash_ab12/0",
        "cross_0/rank_1",
    ],
)
def test_a_rank_leaves_its_address_and_takes_it_back(room: Room, key: str) -> None:
    assert room.get(1, key) is None
    room.put(1, key, b"\x00\xff")
    room.put(1, key, b"once more")
    assert room.get(1, key) == b"once more"
    room.delete(1, key)
    assert room.get(1, key) is None


def test_the_others_read_it(room: Room) -> None:
    room.put(1, "global/1", b"here")
    assert room.get(0, "global/1") == room.get(2, "global/1") == b"here"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 403),
        ("/global/0", 403),
        ("//global/0", 403),
        ("/{own}/global/0/0", 403),
        ("/{own}/global", 403),
        ("/{own}/other/0", 403),
        ("/{own}/../global/0", 403),
        ("/{own}/worker_addresses/worker-1:0", 403),
        ("/{own}/worker_addresses/worker-0:1", 403),
        ("/{own}/worker_addresses/worker-0", 403),
        ("/{own}/rank_and_size/worker-1:0", 403),
        ("/{own}/rank_and_size/0", 403),
        ("/{own}/local_worker-1/0", 403),
        ("/{own}/cross_1/0", 403),
        ("/{own}/global_process_set_hash_/0", 403),
        ("/{own}/global_process_set_hash_xyz/0", 403),
        ("/{own}/global/3", 403),
        ("/{own}/global/-1", 403),
        ("/{own}/global/00", 403),
        ("/{own}/global/²", 403),
        ("/{own}/global/rank_", 403),
        ("/{forged}/global/0", 403),
        ("/{other rank}/global/1", 403),
        ("/{other generation}/global/0", 403),
    ],
)
def test_everything_that_gloo_does_not_ask_for_is_refused(room: Room, path: str, status: int) -> None:
    own = room.invitations[0]
    forged = own[:-1] + ("0" if own[-1] != "0" else "1")
    words = {"own": own, "forged": forged, "other rank": own.replace(".0.", ".1.")}
    words["other generation"] = "2" + own[1:]
    wanted = re.sub(r"\{([a-z ]+)\}", lambda match: words[match[1]], path)
    with pytest.raises(Denied) as denied:
        room.store.guest(wanted)
    assert denied.value.status == status


@pytest.mark.parametrize("key", ["global/1", "global/rank_1", "cross_0/2"])
def test_no_rank_writes_where_another_will(room: Room, key: str) -> None:
    with pytest.raises(Denied) as denied:
        room.put(0, key)
    assert denied.value.status == 409 and room.get(1, key) is None


def test_in_a_set_of_processes_the_first_writer_owns_the_key(room: Room) -> None:
    key = "global_process_set_hash_ab12/0"
    room.put(2, key, b"mine")
    with pytest.raises(Denied):
        room.put(0, key, b"no, mine")
    room.delete(0, key)
    assert room.get(0, key) == b"mine"


def test_values_and_keys_are_bounded(room: Room) -> None:
    with pytest.raises(Denied) as denied:
        room.put(0, "global/0", bytes(room.store.largest_value + 1))
    assert denied.value.status == 413
    with pytest.raises(Denied) as denied:
        for number in range(10_000):
            room.put(0, f"global_process_set_hash_{number:x}/0")
    assert denied.value.status == 507
    room.put(1, "global/1")


def test_nothing_of_a_generation_reaches_the_next(room: Room) -> None:
    room.put(0, "global/0", b"old")
    old = room.path(0, "global/0")
    room.invite(cluster(2))
    assert room.get(1, "global/0") is None
    with pytest.raises(Denied) as denied:
        room.store.guest(old)
    assert denied.value.status == 410


def test_a_release_that_is_repeated_changes_nothing(room: Room) -> None:
    room.put(0, "global/0", b"here")
    before = list(room.invitations)
    spec = cluster()
    room.invite(replace(spec, endpoints={**spec.endpoints, TaskId("board", 0): Endpoint("n1", 4000)}))
    assert room.invitations[:3] == before and room.get(2, "global/0") == b"here"


def test_a_task_without_rank_is_not_invited(room: Room) -> None:
    spec = ClusterSpec(1, {**cluster().endpoints, TaskId("board", 0): Endpoint("n1", 4000)})
    assert room.store.invite(TaskId("board", 0), spec) == ""


def test_who_waits_is_told_when_the_address_is_there_or_never_will_be(room: Room) -> None:
    async def wait() -> None:
        guest, loop = room.store.guest(room.path(0, "global/1")), asyncio.get_running_loop()
        first = room.store.arrival(guest, loop.create_future())
        assert first is not None and not first.done()
        room.put(1, "global/1")
        assert first.done() and not first.cancelled()
        second = room.store.arrival(room.store.guest(room.path(0, "global/2")), loop.create_future())
        room.invite(cluster(2))
        assert second is not None and second.cancelled()

    asyncio.run(wait())


def test_nobody_waits_for_what_gloo_asks_only_once(room: Room) -> None:
    async def ask() -> None:
        guest = room.store.guest(room.path(1, "global/rank_0"))
        assert room.store.arrival(guest, asyncio.get_running_loop().create_future()) is None

    asyncio.run(ask())


def test_the_processes_of_a_task_share_its_invitation() -> None:
    room = Room(JobSpec("a job", (replace(JOB.role("worker"), procs_per_task=2),), "horovod"))
    for key in ("global/2", "global/3", "local_worker-1/0", "local_worker-1/1", "cross_0/1", "cross_1/1"):
        room.put(1, key)
    for key in ("global/1", "global/4", "cross_1/0"):
        with pytest.raises(Denied) as denied:
            room.put(1, key)
        assert denied.value.status == 409
    for key in ("global/6", "local_worker-1/2", "cross_2/0", "cross_1/3"):
        with pytest.raises(Denied) as denied:
            room.put(1, key)
        assert denied.value.status == 403
