"""One application for one key: what is found, who waits for whom, and what a dead submitter leaves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tony import idempotency
from tony.containers import AppReport, AppState, LogLine
from tony.errors import NoSuchJob, Problem, Unreachable
from tony.idempotency import find, submit_once, tag_of
from tony.plan import JobSecrets, Plan
from tony.records import encode
from tony.snapshot import Verdict
from tony.spec import JobSpec
from tony.state import JobState, Reason
from tony.storage import Storage

KEY = "dag/train/2026-11-22"


class Cluster:
    """Applications in a list; the test adds them."""

    name = "yarn"
    user = "ann"

    def __init__(self, folder: Path) -> None:
        self.storage = f"file://{folder}/storage"
        self.reports: list[AppReport] = []
        self.killed: list[str] = []

    def add(self, state: AppState = AppState.RUNNING, key: str = KEY, user: str = "ann") -> str:
        number = len(self.reports) + 1
        application_id = f"application_1_{number:04d}"
        tags = ("tony", tag_of(key))
        self.reports.append(
            AppReport(application_id, "x", user, "default", state, started_at=float(number), tags=tags)
        )
        return application_id

    def list(
        self, states: Sequence[AppState] = (), user: str | None = None, tag: str | None = None
    ) -> list[AppReport]:
        return [one for one in self.reports if one.user == user and tag in one.tags]

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        self.killed.append(application_id)
        return next(one for one in self.reports if one.application_id == application_id)

    def report(self, application_id: str) -> AppReport:
        raise NoSuchJob(application_id)

    def check(self, job: JobSpec) -> list[Problem]:
        return []

    def node_count(self) -> int:
        return 1

    def submit(self, plan: Plan, secrets: JobSecrets) -> str:
        raise AssertionError

    def logs(self, application_id: str) -> Iterator[LogLine]:
        yield from ()

    def close(self) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture
def storage(cluster: Cluster) -> Storage:
    return Storage(cluster.storage)


def claim(storage: Storage, host: str = "elsewhere", pid: int = 1, started: str = "") -> None:
    """A claim as another submitter leaves it."""
    storage.write(f"keys/{tag_of(KEY)}", encode(idempotency._Claim(host, pid, started, "x")))


def never() -> str:
    raise AssertionError("nothing may be submitted")


@pytest.mark.parametrize("state", [AppState.SUBMITTED, AppState.ACCEPTED, AppState.RUNNING, AppState.SUCCEEDED])
def test_a_job_that_lives_or_has_succeeded_is_found(cluster: Cluster, storage: Storage, state: AppState) -> None:
    cluster.add(key="another")
    there = cluster.add(state)
    assert submit_once(KEY, cluster, storage, never) == (there, False)


@pytest.mark.parametrize("state", [AppState.FAILED, AppState.KILLED])
def test_a_job_that_failed_is_tried_again(cluster: Cluster, storage: Storage, state: AppState) -> None:
    cluster.add(state)
    assert submit_once(KEY, cluster, storage, cluster.add) == ("application_1_0002", True)


def test_a_job_that_has_failed_but_not_left_yet_is_tried_again(cluster: Cluster, storage: Storage) -> None:
    dying = cluster.add()
    verdict = Verdict(dying, "x", JobState.FAILED, Reason.WORKER_EXIT, "exit code 1")
    storage.write(f"jobs/{dying}/verdict.json", encode(verdict))
    assert find(KEY, cluster) is None


def test_another_users_job_with_the_same_tag_is_not_believed(cluster: Cluster) -> None:
    cluster.add(AppState.SUCCEEDED, user="mallory")
    assert find(KEY, cluster) is None


def test_the_claim_is_held_while_submitting_and_gone_afterwards(cluster: Cluster, storage: Storage) -> None:
    held: list[list[str]] = []

    def submit() -> str:
        held.append(storage.list("keys"))
        return cluster.add()

    assert submit_once(KEY, cluster, storage, submit) == ("application_1_0001", True)
    assert held == [[tag_of(KEY)]] and storage.list("keys") == []


def test_a_submit_that_fails_gives_the_claim_back(cluster: Cluster, storage: Storage) -> None:
    def submit() -> str:
        raise Unreachable("the driver is gone")

    with pytest.raises(Unreachable):
        submit_once(KEY, cluster, storage, submit)
    assert storage.list("keys") == []


def test_ten_submitters_at_once_make_one_application(cluster: Cluster, storage: Storage) -> None:
    got: list[tuple[str, bool]] = []

    def race() -> None:
        got.append(submit_once(KEY, cluster, Storage(cluster.storage), cluster.add))

    threads = [threading.Thread(target=race) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(cluster.reports) == 1 and len(got) == 10
    assert {one for one, _ in got} == {"application_1_0001"} and sum(ours for _, ours in got) == 1


def test_the_later_of_two_applications_is_killed_by_its_own_submitter(cluster: Cluster, storage: Storage) -> None:
    def submit() -> str:
        cluster.add()  # somebody whose claim was taken for dead
        return cluster.add()

    assert submit_once(KEY, cluster, storage, submit) == ("application_1_0001", False)
    assert cluster.killed == ["application_1_0002"]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_times(**seconds: float) -> None:
        monkeypatch.setattr(idempotency, "_POLL_S", 0.001)
        for name, value in seconds.items():
            monkeypatch.setattr(idempotency, name, value)

    return set_times


def test_a_claim_of_a_dead_process_is_broken(
    cluster: Cluster, storage: Storage, patience: Callable[..., None]
) -> None:
    patience(_LEFTOVER_S=0.01)
    claim(storage, host=os.uname().nodename, pid=os.getpid(), started="another process's time")
    assert submit_once(KEY, cluster, storage, cluster.add) == ("application_1_0001", True)
    assert storage.list("keys") == []


def test_what_a_dead_process_has_still_submitted_is_waited_for(
    cluster: Cluster, storage: Storage, patience: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience()
    claim(storage, host=os.uname().nodename, pid=os.getpid(), started="another process's time")
    monkeypatch.setattr("tony.idempotency.time.sleep", lambda seconds: cluster.reports or cluster.add())
    assert submit_once(KEY, cluster, storage, never) == ("application_1_0001", False)
    assert storage.list("keys") == []


def test_a_claim_of_another_host_is_broken_after_a_while(
    cluster: Cluster, storage: Storage, patience: Callable[..., None]
) -> None:
    patience(_CLAIM_S=0.01)
    claim(storage)
    assert submit_once(KEY, cluster, storage, cluster.add) == ("application_1_0001", True)


def test_waiting_for_others_is_bounded(cluster: Cluster, storage: Storage, patience: Callable[..., None]) -> None:
    patience(_GIVE_UP_S=0.01)
    claim(storage)
    with pytest.raises(Unreachable, match="idempotency key"):
        submit_once(KEY, cluster, storage, never)
