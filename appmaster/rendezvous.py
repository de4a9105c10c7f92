"""The key-value store in which the ranks of one release leave their addresses for each other. Pure.

What Horovod's gloo writes: its own number in each of three *scopes* (``global``, ``local_<host>``,
``cross_<local rank>``) as ``<n>`` and ``rank_<n>``, and the same again for every set of processes, whose scope has
a suffix. Nobody else is asked for anything: other scopes are refused, a key belongs to the rank that wrote it first,
and when the next generation is released nothing of the one before is left, nor welcome.
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
_SUFFIX = re.compile(r"[0-9a-f]{1,16}", re.ASCII)
_SET = "_process_set_hash_"

_KEYS_OF_ONE = 600
"""Six for each set of processes; Horovod makes one of its own."""
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
    """Who asks, by its invitation, and for which key of its release."""

    task: TaskId
    place: Place
    path: tuple[str, str]


class Rendezvous:
    """The store of the newest release. Lives in the loop's thread; one asyncio future for each waiting guest."""

    def __init__(self, job: JobSpec, secret: str) -> None:
        self._job = job
        self._secret = secret.encode()
        self._cluster: ClusterSpec | None = None
        self._release = ""
        self._guests: list[tuple[TaskId, Place]] = []
        self._values: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._waiting: dict[tuple[str, str], list[Future[None]]] = {}
        self._count: Counter[int] = Counter()
        self._bytes = 0

    @property
    def size(self) -> int:
        """How many ranks are invited."""
        return len(self._guests)

    @property
    def largest_value(self) -> int:
        """Bytes that one value may have."""
        return max(_LEAST_VALUE_BYTES, _BYTES_FOR_A_RANK * self.size)

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
        places = [(task, place(task, cluster, self._job)) for task in cluster.tasks]
        guests = sorted(((task, own) for task, own in places if own is not None), key=lambda guest: guest[1].rank)
        names = ",".join(str(task) for task, _ in guests)
        release = f"{cluster.generation:x}-{zlib.crc32(names.encode()):08x}"
        self._cluster = cluster
        if release == self._release:
            return
        self._release, self._guests = release, guests
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
        if release != self._release or rank >= len(self._guests):
            raise Denied(410, "an invitation of another generation")
        task, own = self._guests[rank]
        scope, key = parts[2], parts[3]
        bases = {
            "global": (own.rank, own.size),
            f"local_{own.host}": (own.local_rank, own.local_size),
            f"cross_{own.local_rank}": (own.cross_rank, own.cross_size),
        }
        base, suffixed, suffix = scope.partition(_SET)
        number = _KEY.fullmatch(key)
        if base not in bases or (suffixed and not _SUFFIX.fullmatch(suffix)) or number is None:
            raise Denied(403, "not a key that gloo asks for")
        if int(number[2]) >= bases[base][1]:
            raise Denied(403, "a rank that does not exist")
        return Guest(task, own, (scope, key))

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
        scope, key = guest.path
        writer, before = self._values.get(guest.path, (guest.place.rank, None))
        if writer != guest.place.rank or (_SET not in scope and not self._names(guest)):
            raise Denied(409, "the key of another rank")
        if len(value) > self.largest_value:
            raise Denied(413, "too long")
        growth = len(value) - len(before or b"")
        if (before is None and self._count[writer] >= _KEYS_OF_ONE) or self._bytes + growth > _BYTES_OF_ALL:
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

    def _names(self, guest: Guest) -> bool:
        """Whether a key of a scope without suffix is that of the guest's own number in it."""
        own, (scope, key) = guest.place, guest.path
        numbers = {"global": own.rank, f"local_{own.host}": own.local_rank}
        return int(key.removeprefix("rank_")) == numbers.get(scope, own.cross_rank)

    def _mac(self, release: str, rank: int) -> str:
        text = f"rendezvous {release} {rank}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]
