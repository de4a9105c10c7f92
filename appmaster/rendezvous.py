"""The key-value store in which the ranks of one release leave their addresses for each other. Pure.

What Horovod's gloo writes: its own number in each of three *scopes* (``global``, ``local_<host>``,
``cross_<local rank>``) as ``<n>`` and ``rank_<n>``, and the same again for every set of processes, whose scope has
a suffix. Nobody else is asked for anything: other scopes are refused, a key belongs to the task that wrote it first,
and when the next generation is released nothing of the one before is left, nor welcome. The processes of one
task share its invitation.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from asyncio import Future
from collections import Counter
from dataclasses import dataclass

from tony.frameworks.horovod import Place, place
from tony.spec import ClusterSpec, JobSpec, TaskId

_INVITATION = re.compile(r"([0-9a-f]{1,8}-[0-9a-f]{8})\.([0-9]{1,6})\.([0-9a-f]{32})(?::[0-9]{1,5})?", re.ASCII)
_KEY = re.compile(r"(rank_)?(0|[1-9][0-9]{0,5})", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
_SUFFIX = re.compile(r"[0-9a-f]{1,16}", re.ASCII)
_SET = "_process_set_hash_"

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

    In a set of processes, whose numbers only its members know, that is everyone's who comes first.
    """

    task: TaskId
    place: Place
    path: tuple[str, str]
    may_write: bool


class Rendezvous:
    """The store of the newest release. Lives in the loop's thread; one asyncio future for each waiting guest."""

    def __init__(self, job: JobSpec, secret: str) -> None:
        self._job = job
        self._secret = secret.encode()
        self._cluster: ClusterSpec | None = None
        self._release = ""
        self._guests: dict[int, tuple[TaskId, Place]] = {}
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
        own = place(task, cluster, self._job)
        if own is None:
            return ""
        if cluster is not self._cluster:
            self._open(cluster)
        return f"{self._release}.{own.rank}.{self._mac(self._release, own.rank)}"

    def _open(self, cluster: ClusterSpec) -> None:
        guests = {own.rank: (task, own) for task in cluster.tasks if (own := place(task, cluster, self._job))}
        names = ",".join(str(task) for task, _ in guests.values())
        release = f"{cluster.generation:x}-{zlib.crc32(names.encode()):08x}"
        self._cluster = cluster
        if release == self._release:
            return
        self._release, self._guests = release, guests
        self._size = next((own.size for _, own in guests.values()), 0)
        self._values.clear()
        self._count.clear()
        self._bytes = 0
        for waiting in self._waiting.values():
            for future in waiting:
                future.cancel()
        self._waiting.clear()

    def guest(self, path: str) -> Guest:
        """Who asks for this path, ``/<invitation>[:port]/<scope>/<key>``. Raises Denied."""
        parts = path.split("/")
        match = _INVITATION.fullmatch(parts[1]) if len(parts) == 4 and not parts[0] else None
        if match is None:
            raise Denied(403, "no invitation")
        release, rank = match[1], int(match[2])
        if not hmac.compare_digest(match[3], self._mac(release, rank)):
            raise Denied(403, "a forged invitation")
        if release != self._release or rank not in self._guests:
            raise Denied(410, "an invitation of another generation")
        task, own = self._guests[rank]
        scope, key = parts[2], parts[3]
        base, suffixed, suffix = scope.partition(_SET)
        number = _KEY.fullmatch(key)
        room = _room(base, own)
        if room is None or (suffixed and not _SUFFIX.fullmatch(suffix)) or number is None:
            raise Denied(403, "not a key that gloo asks for")
        if int(number[2]) >= room[1]:
            raise Denied(403, "a rank that does not exist")
        return Guest(task, own, (scope, key), may_write=bool(suffixed) or int(number[2]) in room[0])

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

    def _mac(self, release: str, rank: int) -> str:
        text = f"rendezvous {release} {rank}".encode()
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
