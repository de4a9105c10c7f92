"""Jobs of this machine: what can never run, and what became of a job, told from files alone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tony.containers import AppState
from tony.errors import NoSuchJob
from tony.localjobs import LocalApp, LocalJobs, machine_memory_mb
from tony.processes import start_time
from tony.records import encode
from tony.snapshot import Timeline, Verdict
from tony.spec import JobSpec, Resources, RoleSpec
from tony.state import JobState, Reason

ALIVE = (os.getpid(), start_time(os.getpid()) or "")
DEAD = (os.getpid(), "1")


def add(state: Path, number: int, process: tuple[int, str] | tuple[int, str, int, str], **more: object) -> str:
    application_id = f"local_17000000000{number:02d}_0001"
    folder = state / "local" / "jobs" / application_id
    folder.mkdir(parents=True)
    app = LocalApp(application_id, "x", "ann", "default", ("night",), 1_700_000_000.0 + number, *process)
    (folder / "app.json").write_bytes(encode(app))
    job_folder = state / "local" / "storage" / "jobs" / application_id
    job_folder.mkdir(parents=True)
    if more.get("address"):
        (job_folder / "address.json").write_text("{}")
    if more.get("killed"):
        (folder / "killed").touch()
    reason = more.get("reason")
    if isinstance(reason, Reason):
        job_state = JobState.SUCCEEDED if reason is Reason.SUCCEEDED else JobState.FAILED
        verdict = Verdict(application_id, "x", job_state, reason, "why", timeline=Timeline(finished=5.0))
        (job_folder / "verdict.json").write_bytes(encode(verdict))
    if isinstance(said := more.get("said"), str):
        logs = folder / "containers" / "container_000000" / "logs"
        logs.mkdir(parents=True)
        (logs / "appmaster.err").write_text(said)
    return application_id


def test_a_job_larger_than_this_machine_is_refused_and_a_crowd_is_only_remarked(tmp_path: Path) -> None:
    jobs = LocalJobs(tmp_path)
    memory_mb = machine_memory_mb()
    big = JobSpec("x", (RoleSpec("worker", ("a",), resources=Resources(memory_mb + 1, 1, 999, {"fpga": 1})),))
    assert [problem.key for problem in jobs.check(big)] == [
        "roles.worker.memory",
        "roles.worker.gpus",
        "roles.worker.resources",
    ]
    crowd = JobSpec("x", (RoleSpec("worker", ("a",), 100, Resources(memory_mb // 50)),), queue="q")
    assert jobs.check(crowd) == []
    assert len(jobs.advice(crowd)) == 2
    assert jobs.check(JobSpec("x", (RoleSpec("worker", ("a",)),))) == []


@pytest.mark.parametrize(
    ("process", "more", "state", "words"),
    [
        (ALIVE, {}, AppState.ACCEPTED, ""),
        (ALIVE, {"address": True}, AppState.RUNNING, ""),
        (ALIVE, {"address": True, "reason": Reason.SUCCEEDED}, AppState.RUNNING, ""),
        (DEAD, {"reason": Reason.SUCCEEDED}, AppState.SUCCEEDED, "why (SUCCEEDED)"),
        (DEAD, {"reason": Reason.WORKER_EXIT, "killed": True}, AppState.FAILED, "why (WORKER_EXIT)"),
        (DEAD, {"killed": True}, AppState.KILLED, "killed by its user"),
        (DEAD, {}, AppState.FAILED, "without a verdict (AM_LOST)"),
        (DEAD, {"said": "Traceback\nKeyError: 'x'\n"}, AppState.FAILED, "(AM_LOST): KeyError: 'x'"),
        ((0, ""), {}, AppState.FAILED, "(AM_LOST)"),
        ((0, "", *ALIVE), {}, AppState.ACCEPTED, ""),
        ((0, "", *DEAD), {}, AppState.FAILED, "(AM_LOST)"),
    ],
)
def test_the_state_of_a_job_is_read_from_its_process_and_its_verdict(
    tmp_path: Path, process: tuple[int, str, int, str], more: dict[str, object], state: AppState, words: str
) -> None:
    report = LocalJobs(tmp_path).report(add(tmp_path, 1, process, **more))
    assert report.state is state
    assert words in report.diagnostics


def test_the_list_is_newest_first_and_survives_damage(tmp_path: Path) -> None:
    first, second = add(tmp_path, 1, DEAD, reason=Reason.SUCCEEDED), add(tmp_path, 2, ALIVE)
    broken = tmp_path / "local" / "jobs" / "local_1_0001"
    broken.mkdir()
    (broken / "app.json").write_text("{")
    jobs = LocalJobs(tmp_path)
    assert [report.application_id for report in jobs.list()] == [second, first]
    assert [report.application_id for report in jobs.list([AppState.SUCCEEDED])] == [first]
    assert jobs.list(tag="day") == [] and jobs.list(user="bob") == []
    assert len(jobs.list(tag="night", user="ann")) == 2


def test_a_job_that_is_about_to_start_is_killed_when_it_has(tmp_path: Path) -> None:
    application_id = add(tmp_path, 1, (0, "", *ALIVE))
    with subprocess.Popen(["sleep", "60"]) as master:
        started = (master.pid, start_time(master.pid) or "")

        def start() -> None:
            app = LocalApp(application_id, "x", "ann", "default", (), 1.0, *started)
            path = tmp_path / "local" / "jobs" / application_id / "app.json"
            path.with_suffix(".new").write_bytes(encode(app))
            path.with_suffix(".new").replace(path)

        threading.Timer(0.2, start).start()
        # The master is a child of this process here; nobody else reaps it.
        threading.Thread(target=master.wait, daemon=True).start()
        assert LocalJobs(tmp_path).kill(application_id, timeout_s=20.0).state is AppState.KILLED
        assert master.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("name", ["local_1_0001", "../x", ""])
def test_unknown_jobs_are_unknown(tmp_path: Path, name: str) -> None:
    for ask in (LocalJobs(tmp_path).report, LocalJobs(tmp_path).kill):
        with pytest.raises(NoSuchJob):
            ask(name)


def test_logs_come_oldest_file_first(tmp_path: Path) -> None:
    application_id = add(tmp_path, 1, DEAD)
    logs = tmp_path / "local" / "jobs" / application_id / "containers" / "container_000001" / "logs"
    logs.mkdir(parents=True)
    for name, text in (
        ("stdout.log.2", "a\n"),
        ("stdout.log.1", "b\n"),
        ("stdout.log", "c\nd"),
        ("stderr.log", "e\n"),
    ):
        (logs / name).write_text(text)
    lines = list(LocalJobs(tmp_path).logs(application_id))
    assert [line.text for line in lines if line.stream.startswith("stdout")] == ["a", "b", "c", "d"]
    assert {line.container_id for line in lines} == {"container_000001"}


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    application_id = add(tmp_path, 1, DEAD)
    LocalJobs(tmp_path).forget(application_id)
    assert list((tmp_path / "local" / "jobs").iterdir()) == []
    assert list((tmp_path / "local" / "storage" / "jobs").iterdir()) == []


def test_start_times_know_the_living() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(2**22 + 1) is None


def test_a_job_whose_master_is_just_being_started_has_not_ended(tmp_path: Path) -> None:
    application_id = add(tmp_path, 1, (0, ""))
    kept = tmp_path / "local" / "jobs" / application_id / "app.json"
    jobs = LocalJobs(tmp_path)
    for age_s, state in ((0.0, AppState.ACCEPTED), (60.0, AppState.FAILED)):
        at = time.time() - age_s
        kept.write_bytes(encode(LocalApp(application_id, "x", "ann", "default", (), at)))
        assert jobs.report(application_id).state is state
