"""The key-value store in which the ranks of one release leave their addresses for each other. Pure.

What Horovod's gloo writes: its own number in each of three *scopes* (``global``, ``local_<host>``,
``cross_<local rank>``) as ``<n>`` and ``rank_<n>``, and the same again for every set of processes, whose scope has
a suffix. Nobody else is asked for anything: other scopes are refused, a key belongs to the task that wrote it first,
and when the next generation is released nothing of the one before is left, nor welcome. The processes of one
task share its invitation, which is good for as long as its user process lives.

Processes that live on come to each release through the `appmaster.gathering`, and have no part in it before.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from asyncio import Future
from collections import Counter
from dataclasses import dataclass

from appmaster.gathering import Gathering
from tony.frameworks.horovod import Place, place
from tony.spec import ClusterSpec, JobSpec, TaskId

_INVITATION = re.compile(r"([0-9a-f]{1,8})\.([0-9]{1,6})\.([0-9a-f]{32})(?::[0-9]{1,5})?", re.ASCII)
_KEY = re.compile(r"(rank_)?(0|[1-9][0-9]{0,5})", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
_SUFFIX = re.compile(r"[0-9a-f]{1,16}", re.ASCII)
_SET = "_process_set_hash_"

PLACES, DOORS = "rank_and_size", "worker_addresses"
"""Scopes of Horovod's elastic mode: where a process that lives on asks for its new place, and where it tells how it
is to be told that there is one. Their keys are ``<host>:<local rank>``."""

_KEYS_OF_ONE = 600
"""Of each process: six for each set of processes; Horovod makes one of its own."""
_LEAST_VALUE_BYTES = 4096
_BYTES_FOR_A_RANK = 256
"""A value holds an address of 136 bytes for each of the other ranks."""
_BYTES_OF_ALL = 256 << 20


class Denied(Exception):
    """The request is not carried out; `status` is what HTTP says to it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Guest:
    """Who asks, by its invitation, and for which key of its release; whether that is one of its own.

    In a set of processes, whose numbers only its members know, that is everyone's who comes first. `local_rank` is
    that of the process in the scopes of the elastic mode, else None; `since` the generation of its start.
    """

    task: TaskId
    place: Place
    path: tuple[str, str]
    may_write: bool
    since: int
    local_rank: int | None = None


class Rendezvous:
    """The store of the newest release. Lives in the loop's thread; one asyncio future for each waiting guest."""

    def __init__(self, job: JobSpec, secret: str) -> None:
        self._job = job
        self._secret = secret.encode()
        self._numbers = {task: number for number, task in enumerate(job.possible_tasks())}
        self._tasks = job.possible_tasks()
        self._cluster: ClusterSpec | None = None
        self._places: dict[TaskId, Place] = {}
        self.gathering = Gathering()
        self._size = 0
        self._values: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._waiting: dict[tuple[str, str], list[Future[None]]] = {}
        self._count: Counter[int] = Counter()
        self._bytes = 0

    @property
    def size(self) -> int:
        """How many ranks are invited."""
        return self._size

    @property
    def largest_value(self) -> int:
        """Bytes that one value may have."""
        return max(_LEAST_VALUE_BYTES, _BYTES_FOR_A_RANK * self._size)

    def invite(self, task: TaskId, cluster: ClusterSpec) -> str:
        """What that task must show, for its part of the address; empty for a task without rank.

        The first invitation to a new release forgets everything about the one before.
        """
        if place(task, cluster, self._job) is None:
            return ""
        self.open(cluster)
        since, number = cluster.since(task), self._numbers[task]
        return f"{since:x}.{number}.{self._mac(since, number)}"

    def open(self, cluster: ClusterSpec) -> None:
        """That is the newest release. Said again, it changes nothing."""
        if cluster is self._cluster:
            return
        places = {task: own for task in cluster.tasks if (own := place(task, cluster, self._job))}
        before, self._cluster = self._cluster, cluster
        if before is not None and before.generation == cluster.generation and places.keys() == self._places.keys():
            return
        self._places = places
        self._size = next((own.size for own in places.values()), 0)
        self.forget_all()
        lives_on = frozenset(task for task in places if cluster.since(task) < cluster.generation)
        self.gathering.open(places, lives_on, self.forget_all)

    def reopen(self, cluster: ClusterSpec) -> None:
        """After a restart of this process: that was the newest release. What its ranks had left here is lost."""
        self._cluster = ClusterSpec(0, cluster.endpoints, {task: cluster.since(task) for task in cluster.tasks})
        self._places = {task: own for task in cluster.tasks if (own := place(task, self._cluster, self._job))}
        self._size = next((own.size for own in self._places.values()), 0)
        self.gathering.reopen(self._places, self.forget_all)

    def forget_all(self) -> None:
        """Whoever meets now has not met before."""
        self._values.clear()
        self._count.clear()
        self._bytes = 0
        for waiting in self._waiting.values():
            for future in waiting:
                future.cancel()
        self._waiting.clear()

    @staticmethod
    def coming(guest: Guest) -> int | None:
        """The number in its task of the process that comes to the others with that key; None for any other key."""
        scope, key = guest.path
        return int(key) - guest.place.rank if scope == "global" and key.isdigit() else None

    def guest(self, path: str) -> Guest:
        """Who asks for this path, ``/<invitation>[:port]/<scope>/<key>``. Raises Denied."""
        parts = path.split("/")
        match = _INVITATION.fullmatch(parts[1]) if len(parts) == 4 and not parts[0] else None
        if match is None:
            raise Denied(403, "no invitation")
        since, number = int(match[1], 16), int(match[2])
        if not hmac.compare_digest(match[3], self._mac(since, number)) or number >= len(self._tasks):
            raise Denied(403, "a forged invitation")
        task = self._tasks[number]
        own = self._places.get(task)
        if own is None or self._cluster is None or self._cluster.since(task) != since:
            raise Denied(410, "an invitation of another generation")
        scope, key = parts[2], parts[3]
        if scope in (PLACES, DOORS):
            host, _, local_rank = key.rpartition(":")
            if host != own.host or not _NUMBER.fullmatch(local_rank) or int(local_rank) >= own.processes:
                raise Denied(403, "the place of another")
            return Guest(task, own, (scope, key), scope == DOORS, since, int(local_rank))
        if self.gathering.is_outside(task):
            raise Denied(410, "it has not asked for its place in this generation")
        base, suffixed, suffix = scope.partition(_SET)
        found = _KEY.fullmatch(key)
        room = _room(base, own)
        if room is None or (suffixed and not _SUFFIX.fullmatch(suffix)) or found is None:
            raise Denied(403, "not a key that gloo asks for")
        if int(found[2]) >= room[1]:
            raise Denied(403, "a rank that does not exist")
        return Guest(task, own, (scope, key), bool(suffixed) or int(found[2]) in room[0], since)

    def get(self, guest: Guest) -> bytes | None:
        """The value, or None while there is none."""
        found = self._values.get(guest.path)
        return None if found is None else found[1]

    def arrival(self, guest: Guest, future: Future[None]) -> Future[None] | None:
        """The same future, done when the value may be there; None if waiting for this key serves nobody.

        Only addresses are waited for: ``rank_<n>`` is asked for once, and its absence is an answer.
        """
        if not guest.path[1].isdigit():
            return None
        self._waiting.setdefault(guest.path, []).append(future)
        return future

    def forget(self, guest: Guest, future: Future[None]) -> None:
        """Nobody waits for that future any more."""
        waiting = self._waiting.get(guest.path, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(guest.path, None)

    def put(self, guest: Guest, value: bytes) -> None:
        """Keep the value. Raises Denied for the key of another rank, and where a bound is reached."""
        writer, before = self._values.get(guest.path, (guest.place.rank, None))
        if writer != guest.place.rank or not guest.may_write:
            raise Denied(409, "the key of another rank")
        if len(value) > self.largest_value:
            raise Denied(413, "too long")
        growth = len(value) - len(before or b"")
        many = before is None and self._count[writer] >= _KEYS_OF_ONE * guest.place.processes
        if many or self._bytes + growth > _BYTES_OF_ALL:
            raise Denied(507, "too much")
        self._count[writer] += before is None
        self._bytes += growth
        self._values[guest.path] = (writer, value)
        for future in self._waiting.pop(guest.path, []):
            if not future.done():
                future.set_result(None)

    def delete(self, guest: Guest) -> None:
        """Take back a value of one's own; that of another stays, without a word. Gloo does so when all have it."""
        found = self._values.get(guest.path)
        if found is not None and found[0] == guest.place.rank:
            del self._values[guest.path]
            self._count[guest.place.rank] -= 1
            self._bytes -= len(found[1])

    def _mac(self, since: int, number: int) -> str:
        text = f"rendezvous {since} {number}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]


def _room(scope: str, own: Place) -> tuple[range, int] | None:
    """The numbers of the task's processes in a scope, and how many there are in all; None where it is not one."""
    if scope == "global":
        return range(own.rank, own.rank + own.processes), own.size
    if scope == f"local_{own.host}":
        return range(own.processes), own.processes
    local_rank = scope.removeprefix("cross_")
    if scope.startswith("cross_") and _NUMBER.fullmatch(local_rank) and int(local_rank) < own.processes:
        return range(own.cross_rank, own.cross_rank + 1), own.cross_size
    return None
