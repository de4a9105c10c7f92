"""One application for one key: whoever submits again with a key finds the application that it made before.

The key travels as a tag of the application, so the cluster itself remembers it: nothing that a dying submitter could
fail to write is needed. Between looking and submitting, a claim on the shared storage keeps other submitters with the
same key waiting. A claim whose owner has died is broken after a while; should two submit in spite of that, the
earlier application stays and the later one is killed by its own submitter.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from tony.containers import AppReport, AppState, Cluster
from tony.errors import ProtocolError, TonyError, Unreachable
from tony.jobhandle import JobHandle
from tony.plan import Plan
from tony.processes import start_time
from tony.records import decode, encode
from tony.state import JobState
from tony.storage import Storage

_FOLDER = "keys"
_POLL_S = 0.2
_LEFTOVER_S = 10.0
"""A submit that was under way when its process died is in the cluster's list by then, or never."""
_CLAIM_S = 60.0
"""A submit by a process that cannot be looked at from here has ended by then, as a rule."""
_GIVE_UP_S = 600.0


@dataclass(frozen=True)
class _Claim:
    """Who submits right now. `started` tells the process from a later one with its number."""

    host: str
    pid: int
    started: str
    mark: str

    @classmethod
    def own(cls) -> _Claim:
        return cls(socket.gethostname(), os.getpid(), start_time(os.getpid()) or "", secrets.token_hex(8))

    @property
    def dead(self) -> bool:
        """Whether its process is known to be gone."""
        return self.host == socket.gethostname() and start_time(self.pid) != self.started


def tag_of(key: str) -> str:
    """The tag that stands for the key: short, lower-case, free of what YARN does not take."""
    return "tony-key-" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def tagged(planned: Plan, key: str) -> Plan:
    """The plan with the key's tag on its application."""
    tags = (*planned.job.tags, tag_of(key))
    record = replace(planned.record, spec=replace(planned.record.spec, tags=tags))
    return replace(planned, job=replace(planned.job, tags=tags), record=record)


def find(key: str, cluster: Cluster) -> AppReport | None:
    """The application of this user with that key that lives or has succeeded; the earliest. Raises Unreachable.

    One that has failed, was killed, or is about to end that way does not count: it may be tried again.
    """
    user = getattr(cluster, "user", None) or getpass.getuser()
    reports = [report for report in cluster.list(user=user, tag=tag_of(key)) if _counts(report, cluster)]
    return min(reports, key=lambda one: (one.started_at, one.application_id), default=None)


def submit_once(key: str, cluster: Cluster, storage: Storage, submit: Callable[[], str]) -> tuple[str, bool]:
    """The id of the key's only application, and whether this call has submitted it.

    Blocks while another process submits with the key. Raises what `submit` does, and Unreachable.
    """
    found = find(key, cluster)
    if found is not None:
        return found.application_id, False
    with _claimed(key, cluster, storage) as found:
        if found is not None:
            return found.application_id, False
        own = submit()
        first = find(key, cluster)
        if first is not None and first.application_id != own:
            cluster.kill(own)
            return first.application_id, False
        return own, True


def _counts(report: AppReport, cluster: Cluster) -> bool:
    if report.state is AppState.SUCCEEDED:
        return True
    if report.state.ended:
        return False
    if report.state is not AppState.RUNNING:
        return True
    handle = JobHandle(report.application_id, cluster)
    verdict = handle.verdict()
    handle.close()
    return verdict is None or verdict.state is JobState.SUCCEEDED


@contextmanager
def _claimed(key: str, cluster: Cluster, storage: Storage) -> Iterator[AppReport | None]:
    """Hold the key's claim. Gives the application that somebody else has submitted while this waited."""
    path = f"{_FOLDER}/{tag_of(key)}"
    own = _Claim.own()
    found = _take(path, own, key, cluster, storage)
    try:
        yield found
    finally:
        with suppress(OSError, TonyError):
            # What a dead submitter has left goes, too, once its application was found.
            held = _held(path, storage)
            if held is not None and (held == own or held.dead):
                storage.remove(path)


def _take(path: str, own: _Claim, key: str, cluster: Cluster, storage: Storage) -> AppReport | None:
    seen: _Claim | None = None
    began = since = time.monotonic()
    while True:
        with suppress(FileExistsError):
            storage.write(path, encode(own))
            # Whoever held it before may have submitted since this looked.
            return find(key, cluster)
        held, now = _held(path, storage), time.monotonic()
        if held != seen:
            seen, since = held, now
        if now - began > _GIVE_UP_S:
            raise Unreachable(
                f"others have been submitting with this idempotency key for {_GIVE_UP_S:.0f} s.",
                hint=f"If nobody is, remove {storage.url(path)}",
            )
        if now - since > (_LEFTOVER_S if held is not None and held.dead else _CLAIM_S):
            storage.remove(path)
            continue
        found = find(key, cluster)
        if found is not None:
            return found
        time.sleep(_POLL_S)


def _held(path: str, storage: Storage) -> _Claim | None:
    try:
        return decode(storage.read(path), _Claim)
    except (FileNotFoundError, ProtocolError):
        return None
