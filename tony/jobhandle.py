"""A submitted job as its owner's program sees it: look, follow, wait, stop. Survives a restart of its master."""

from __future__ import annotations

import getpass
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tony.containers import AppReport, AppState, Cluster, LogLine
from tony.errors import (
    AppMasterUnreachable,
    NoSuchJob,
    NotFinished,
    NotPermitted,
    ProtocolError,
    TonyError,
    Unreachable,
    UsageError,
)
from tony.events import Event, EventKind
from tony.outcome import Outcome, outcome_of, outcome_of_report
from tony.plan import JobSecrets
from tony.records import decode
from tony.snapshot import JobSnapshot, Verdict
from tony.state import JobState
from tony.storage import Storage

if TYPE_CHECKING:
    from tony.protocol.job_client import JobConnection
    from tony.protocol.messages import OutputChunk, TaskStacks

T = TypeVar("T")

_YARN_TIME = re.compile(r"^\[[^\]]*\d{4}\]\s*")

_FIRST_PAUSE_S = 0.1
_YOUNG_PAUSE_S = 0.25
_LAST_PAUSE_S = 1.0
_YOUNG_S = 60.0
_REPORT_EVERY_S = 2.0
_CONFIRM_S = 10.0
_STOP_EXTRA_S = 15.0
_GONE_AFTER_S = 20.0

_JOB_STATES = {
    AppState.SUBMITTED: JobState.NEW,
    AppState.ACCEPTED: JobState.NEW,
    AppState.RUNNING: JobState.RUNNING,
    AppState.SUCCEEDED: JobState.SUCCEEDED,
    AppState.FAILED: JobState.FAILED,
    AppState.KILLED: JobState.KILLED,
}


@dataclass(frozen=True)
class _Address:
    host: str
    port: int
    attempt: int = 1


class JobHandle:
    """One job. Thread-safe: events and output may be followed from two threads while a third asks for the end.

    `secrets`: what the submit knows; without it, it is read from the job's folder on the storage when needed.
    `attached`: whether a submit found this job instead of making it.
    """

    def __init__(
        self,
        application_id: str,
        cluster: Cluster,
        secrets: JobSecrets | None = None,
        storage: Storage | None = None,
        attached: bool = False,
    ) -> None:
        self.application_id = application_id
        self.cluster = cluster
        self.attached = attached
        self._secrets = secrets
        self._storage = storage or Storage(cluster.storage)
        self._folder = f"jobs/{application_id}"
        self._connections: list[JobConnection] = []
        self._closed = threading.Event()
        self._verdict: Verdict | None = None

    # Looking --------------------------------------------------------------------------------------------------

    def report(self) -> AppReport:
        """What the cluster says. Raises NoSuchJob, Unreachable."""
        return self.cluster.report(self.application_id)

    def verdict(self) -> Verdict | None:
        """How the job's own master says that it ended; None while it has not, or where that was never written."""
        if self._verdict is None:
            raw = self._read("verdict.json")
            self._verdict = _decoded(raw, Verdict) if raw else None
        return self._verdict

    def outcome(self) -> Outcome:
        """How the job ended. Raises NotFinished while it has not."""
        verdict = self.verdict()
        if verdict is not None:
            return outcome_of(AppState.FAILED, "", verdict)
        return outcome_of_report(self.report(), None)

    def snapshot(self) -> JobSnapshot:
        """The job now: from its verdict, else from its master while that answers, else from the cluster."""
        if self.verdict() is None:
            try:
                return self._ask(lambda connection: connection.snapshot())
            except AppMasterUnreachable:
                pass
        return self._snapshot_without_master()

    def _snapshot_without_master(self) -> JobSnapshot:
        verdict = self.verdict()
        if verdict is not None:
            return JobSnapshot(
                self.application_id,
                verdict.name,
                getpass.getuser(),
                verdict.state,
                verdict.generations,
                1,
                started_at=verdict.started_at,
                now=time.time(),
                tasks=verdict.tasks,
                timeline=verdict.timeline,
                urls=verdict.urls,
                verdict=verdict,
            )
        report = self.report()
        return JobSnapshot(
            self.application_id,
            report.name,
            report.user,
            _JOB_STATES[report.state],
            0,
            report.am_attempts,
            queue=report.queue,
            waiting_for=_waiting_words(report),
            started_at=report.started_at,
            now=time.time(),
        )

    # Following ------------------------------------------------------------------------------------------------

    def events(self, since: int = 0) -> Iterator[Event]:
        """Events with a number above `since`, then new ones; ends when the job has ended or this is closed.

        Goes on after a restart of the master. Of a job that is over, the kept history. Blocks while nothing happens.
        """
        pauses = _Pauses()
        while not self._closed.is_set():
            try:
                connection = self._connect()
            except AppMasterUnreachable:
                connection = None
            if connection is not None:
                try:
                    for event in connection.events(since):
                        since = max(since, event.number)
                        pauses.reset()
                        yield event
                    return
                except AppMasterUnreachable:
                    pass
                finally:
                    self._drop(connection)
            if self._closed.is_set():
                return
            if self._over(pauses):
                yield from self._kept_events(since)
                return
            pauses.wait(self._closed)

    def output(
        self, tasks: Sequence[str] = (), stream: str = "", tail_lines: int = -1, follow: bool = True
    ) -> Iterator[OutputChunk]:
        """Output of running tasks as it is written; after a restart of the master it goes on where it was.

        Ends when every task has left, when the job is over, or when this is closed. Of a job that is over: nothing,
        see `logs`. Blocks while nothing is written.
        """
        seen: dict[tuple[str, int, str], int] = {}
        pauses = _Pauses()
        tail = tail_lines
        while not self._closed.is_set():
            try:
                connection = self._connect()
            except AppMasterUnreachable:
                connection = None
            if connection is not None:
                skip = dict(seen) if tail < 0 else {}
                try:
                    for chunk in connection.output(tasks, stream, tail, follow):
                        pauses.reset()
                        key = (chunk.task, chunk.incarnation, chunk.stream)
                        if key in skip:
                            skip[key] = _cut(chunk, skip[key])
                            if not chunk.data and not chunk.dropped:
                                continue
                        seen[key] = seen.get(key, 0) + len(chunk.data) + chunk.dropped
                        yield chunk
                    return
                except AppMasterUnreachable:
                    tail = 0 if tail >= 0 and seen else tail
                finally:
                    self._drop(connection)
            if self._closed.is_set() or not follow or self._over(pauses):
                return
            pauses.wait(self._closed)

    def stacks(self, tasks: Sequence[str] = ()) -> Iterator[TaskStacks]:
        """Where the user's processes are now, one answer for each task that is there. Raises AppMasterUnreachable."""
        connection = self._connect()
        try:
            yield from connection.stacks(tasks)
        finally:
            self._drop(connection)

    def logs(self) -> Iterator[LogLine]:
        """The kept log lines of a finished job. Raises NoSuchJob, Unreachable, NotFinished."""
        return self.cluster.logs(self.application_id)

    def containers(self) -> dict[str, str]:
        """Which task each container carried, from the history and the newest snapshot; container id → task."""
        found: dict[str, str] = {}
        for event in self._kept_events(0):
            container = event.fields.get("container")
            if event.kind is EventKind.TASK and event.task and container:
                found[container] = event.task
        verdict = self.verdict()
        for task in verdict.tasks if verdict else ():
            if task.container:
                found[task.container] = task.task
        return found

    # Ending ---------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float | None = None, confirm_s: float = _CONFIRM_S) -> Outcome:
        """Block until the job has ended. Raises NotFinished after `timeout_s`, Unreachable when the cluster is gone.

        With a verdict, the cluster's own confirmation is waited for, `confirm_s` at most.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pauses = _Pauses()
        while True:
            outcome = self._end(pauses)
            if outcome is not None:
                self._confirm(confirm_s)
                if outcome.verdict is None:
                    self._sweep()
                return outcome
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise NotFinished(f"{self.application_id} has not ended")
            pauses.wait(self._closed, left_s)
            if self._closed.is_set():
                raise NotFinished(f"{self.application_id} was not waited for any longer")

    def _sweep(self) -> None:
        """Its master was killed: whoever looks first removes what that could not."""
        sweep = getattr(self.cluster, "sweep", None)
        if sweep is not None:
            with suppress(OSError, TonyError):
                sweep(self.application_id)

    def stop(self, reason: str = "", grace_s: float = 30.0) -> Outcome:
        """End the job: ask its master, then the cluster. Returns when the end is confirmed.

        A job that has ended is left as it is. Raises NotPermitted, Unreachable, or NotFinished when the cluster does
        not confirm within a minute.
        """
        try:
            self._ask(lambda connection: connection.stop(reason, grace_s, getpass.getuser()))
            return self.wait(grace_s + _STOP_EXTRA_S)
        except (AppMasterUnreachable, NotFinished):
            return self.kill()

    def resize(self, size: int) -> None:
        """Ask for another number of tasks of the elastic role; `snapshot` tells how far it is.

        Raises UsageError when the job cannot have that size, AppMasterUnreachable, NotPermitted.
        """
        problem = self._ask(lambda connection: connection.resize(size, getpass.getuser()))
        if problem:
            raise UsageError(f"{self.application_id}: {problem}")

    def kill(self) -> Outcome:
        """End the job through the cluster, at once. Returns when the cluster confirms it."""
        report = self.cluster.kill(self.application_id)
        return outcome_of_report(report, self.verdict())

    def close(self) -> None:
        """End whatever other threads wait for here. The job goes on. May be called twice."""
        self._closed.set()
        for connection in list(self._connections):
            self._drop(connection)

    # Connections ----------------------------------------------------------------------------------------------

    def _connect(self) -> JobConnection:
        from tony.protocol.credentials import Credentials
        from tony.protocol.job_client import JobConnection

        raw = self._read("address.json")
        address = _decoded(raw, _Address) if raw else None
        if address is None:
            raise AppMasterUnreachable(f"the application master of {self.application_id} has no address yet")
        secrets = self._owner()
        credentials = Credentials(secrets.certificate, secrets.private_key)
        connection = JobConnection(f"{address.host}:{address.port}", credentials, secrets.owner_key)
        self._connections.append(connection)
        return connection

    def _drop(self, connection: JobConnection) -> None:
        connection.close()
        if connection in self._connections:
            self._connections.remove(connection)

    def _ask(self, question: Callable[[JobConnection], T]) -> T:
        connection = self._connect()
        try:
            return question(connection)
        finally:
            self._drop(connection)

    def _owner(self) -> JobSecrets:
        if self._secrets is None:
            raw = self._read("owner.key")
            if raw is None:
                raise NotPermitted(
                    f"the owner key of {self.application_id} is neither here nor readable on the storage",
                    hint="Only the job's owner may follow or stop it.",
                )
            self._secrets = decode(raw, JobSecrets)
        return self._secrets

    # What is kept ---------------------------------------------------------------------------------------------

    def _read(self, name: str) -> bytes | None:
        try:
            return self._storage.read(f"{self._folder}/{name}")
        except (FileNotFoundError, NotPermitted, Unreachable):
            return None

    def _kept_events(self, since: int) -> Iterator[Event]:
        """The history on the storage, in order, without repetitions; damaged lines are left out."""
        try:
            files = [name for name in self._storage.list(self._folder) if name.startswith("events-")]
        except (OSError, TonyError):
            return
        for name in sorted(files):
            for line in (self._read(name) or b"").splitlines():
                event = _decoded(line, Event)
                if event is not None and event.number > since:
                    since = event.number
                    yield event

    # The end --------------------------------------------------------------------------------------------------

    def _end(self, pauses: _Pauses) -> Outcome | None:
        verdict = self.verdict()
        if verdict is not None:
            return self.outcome()
        if pauses.time_to_report():
            report = pauses.bearing(self.report)
            if report is not None and report.state.ended:
                return outcome_of_report(report, self.verdict())
        return None

    def _over(self, pauses: _Pauses) -> bool:
        """Whether nothing more can come. A job that the cluster does not know (any more) is over, too."""
        try:
            return self._end(pauses) is not None
        except NoSuchJob:
            return True

    def _confirm(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            try:
                if self.report().state.ended:
                    return
            except (NoSuchJob, Unreachable):
                return
            time.sleep(0.05)


class _Pauses:
    """Back-off between tries, and when the cluster is asked; tolerates a cluster that is away for a short while."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._since = time.monotonic()
        self._asked_at: float | None = None
        self._answered_at = time.monotonic()

    def reset(self) -> None:
        self._pause_s, self._since = _FIRST_PAUSE_S, time.monotonic()

    def wait(self, ended: threading.Event, at_most_s: float | None = None) -> None:
        ended.wait(self._pause_s if at_most_s is None else min(self._pause_s, at_most_s))
        # Somebody who has just submitted watches; a job that queues for hours is asked less often.
        longest_s = _YOUNG_PAUSE_S if time.monotonic() - self._since < _YOUNG_S else _LAST_PAUSE_S
        self._pause_s = min(longest_s, self._pause_s * 1.3)

    def time_to_report(self) -> bool:
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < min(_REPORT_EVERY_S, 4 * self._pause_s):
            return False
        self._asked_at = now
        return True

    def bearing(self, report: Callable[[], AppReport]) -> AppReport | None:
        """The report, or None while the cluster has been silent for a bearable time; then raises Unreachable."""
        try:
            answer = report()
        except Unreachable:
            if time.monotonic() - self._answered_at > _GONE_AFTER_S:
                raise
            return None
        self._answered_at = time.monotonic()
        return answer


def _cut(chunk: OutputChunk, skip: int) -> int:
    """Take what was seen before off the front of the chunk; returns how much is still to skip."""
    from_dropped = min(skip, chunk.dropped)
    chunk.dropped -= from_dropped
    skip -= from_dropped
    from_data = min(skip, len(chunk.data))
    chunk.data = chunk.data[from_data:]
    return skip - from_data


def _decoded(raw: bytes, kind: type[T]) -> T | None:
    try:
        return decode(raw, kind)
    except ProtocolError:
        return None


def _waiting_words(report: AppReport) -> str:
    if report.state.ended:
        return ""
    if report.state is AppState.RUNNING:
        return "the application master to answer"
    if "Register with RM" in report.diagnostics:
        return "the application master to start"
    why = _YARN_TIME.sub("", report.diagnostics).strip().splitlines()
    said = f": {why[-1]}" if why else ""
    return f"the application master's container in queue {report.queue.removeprefix('root.')}{said}"
