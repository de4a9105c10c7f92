"""YARN's edge on a real YARN: what is submitted, what containers do, how applications end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

import tony
from tony.containers import AppReport, AppState, EndCause, Phase
from tony.errors import NoSuchJob, Refused, Unreachable
from tony.localcluster.cluster import LocalCluster
from tony.plan import JobSecrets, Plan
from tony.protocol.credentials import new_credentials
from tony.spec import JobRecord, JobSpec, Resources, RoleSpec
from tony.yarn import YarnCluster, running_driver, start_driver, stop_driver

pytestmark = pytest.mark.timeout(180)

ROOT = Path(tony.__file__).parent.parent
EDGE = Path(__file__).parent / "edge"
SMALL = Resources(memory_mb=128, vcores=1)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of this module's own, with a submit driver that lives as long as the module."""
    folder = tmp_path_factory.mktemp("state")
    before = os.environ.get("TONY_STATE_DIR")
    os.environ["TONY_STATE_DIR"] = str(folder)
    try:
        yield folder
    finally:
        stop_driver()
        if before is None:
            del os.environ["TONY_STATE_DIR"]
        else:
            os.environ["TONY_STATE_DIR"] = before


@pytest.fixture(scope="module")
def cluster(yarn_cluster: LocalCluster, state: Path) -> Iterator[YarnCluster]:
    start_driver(yarn_cluster.conf_dir, yarn_cluster.bin_dir, state / "driver")
    yarn = edge(yarn_cluster)
    yield yarn
    yarn.close()


def edge(yarn_cluster: LocalCluster) -> YarnCluster:
    runtime = (str(EDGE), str(ROOT), sysconfig.get_path("purelib"))
    return YarnCluster(yarn_cluster.conf_dir, yarn_cluster.bin_dir, runtime_path=runtime)


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """Where the containers of a test write down what they see."""
    folder = tmp_path / "seen"
    folder.mkdir()
    return folder


def job(behaviour: str, seen: Path, instances: int = 1, size: Resources = SMALL, **more: Any) -> JobSpec:
    role = RoleSpec("worker", ("x.py",), instances=instances, resources=size)
    am = Resources(memory_mb=1024, vcores=1)
    return JobSpec(behaviour, (role,), checkpoint_dir=str(seen), am_resources=am, **more)


def plan(cluster: YarnCluster, spec: JobSpec) -> Plan:
    record = JobRecord(
        spec=spec, user=cluster.user, storage=cluster.storage, python=sys.executable, user_python=sys.executable
    )
    return Plan(spec, "yarn", record)


def new_secrets() -> JobSecrets:
    credentials = new_credentials()
    return JobSecrets(credentials.certificate, credentials.private_key, "the owner's key", {"TOKEN": "sëcret $(id)"})


def submit(cluster: YarnCluster, spec: JobSpec) -> str:
    return cluster.submit(plan(cluster, spec), new_secrets())


def eventually(condition: Callable[[], Any], within_s: float = 60.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
    return value


def end_of(cluster: YarnCluster, application_id: str, within_s: float = 90.0) -> AppReport:
    def report() -> AppReport | None:
        found = cluster.report(application_id)
        return found if found.state.ended else None

    try:
        return eventually(report, within_s)
    except BaseException:
        cluster.kill(application_id)
        print("".join(f"{line.stream}: {line.text}\n" for line in cluster.logs(application_id)))
        raise


def told(seen: Path, name: str) -> Any:
    return json.loads((seen / name).read_text())


def staging_left(cluster: YarnCluster, application_id: str) -> bool:
    address = cluster.conf.webhdfs_addresses()[0]
    path = f"{cluster.conf.home(cluster.user)}/.skein/{application_id}"
    url = f"http://{address}/webhdfs/v1{path}?op=GETFILESTATUS&user.name={cluster.user}"
    return requests.get(url, timeout=10).status_code == 200


def test_containers_of_yarn_obey_the_contract(cluster: YarnCluster, seen: Path) -> None:
    report = end_of(cluster, submit(cluster, job("obeys-the-contract", seen, instances=2)))
    assert report.state is AppState.SUCCEEDED, report.diagnostics


def test_eight_tasks_start_within_seconds_and_end_as_told(cluster: YarnCluster, seen: Path) -> None:
    submitted = time.time()
    application_id = submit(cluster, job("runs-all-tasks", seen, instances=8, tags=("Edge",)))
    report = end_of(cluster, application_id)
    assert (report.state, report.diagnostics) == (AppState.SUCCEEDED, "every task ended")
    assert report.name == "runs-all-tasks" and "edge" in report.tags
    assert [state["phase"] for state in told(seen, "requested")] == ["REQUESTED"] * 8
    states = told(seen, "states")
    assert {(state["phase"], state["cause"], state["exit_code"]) for state in states} == {("ENDED", "EXITED", 0)}
    assert {state["handle"] for state in states} == {f"worker_{index}" for index in range(8)}
    assert len({state["container_id"] for state in states}) == 8 and {state["node"] for state in states} == {
        "localhost"
    }
    times, first = told(seen, "times"), [told(seen, f"task-worker:{index}")["at"] for index in range(8)]
    print(f"submit to the master's first line {told(seen, 'start-1')['at'] - submitted:.2f} s")
    print(f"ask to all held {times['held'] - times['asked']:.2f} s")
    print(f"ask to first lines {min(first) - times['asked']:.2f} to {max(first) - times['asked']:.2f} s")
    # Without the beat jar the ask alone would wait for up to 5 s.
    assert times["held"] - times["asked"] < 4.0
    eventually(lambda: not staging_left(cluster, application_id), 10)


def test_containers_get_plain_environments_their_files_and_no_secret(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("runs-all-tasks", seen))
    assert end_of(cluster, application_id).state is AppState.SUCCEEDED
    master, task = told(seen, "start-1")["environment"], told(seen, "task-worker:0")
    assert master["TONY_BACKEND"] == task["environment"]["TONY_BACKEND"] == "yarn"
    assert master["TONY_APPLICATION_ID"] == application_id
    assert master["LANG"] == "C.UTF-8" and "JDK_JAVA_OPTIONS" not in master
    assert (task["environment"]["TONY_TASK"], task["environment"]["TONY_CERTIFICATE"]) == ("worker:0", ".skein.crt")
    assert {".skein.crt", ".skein.pem", "tony-launch.py"} <= set(task["files"])
    assert not {"tony-secrets.json", "tony-job.json", "tony-beat.jar"} & set(task["files"])
    assert told(seen, "secrets")["secrets"] == {"TOKEN": "sëcret $(id)"}
    for environment in (master, task["environment"]):
        assert not [name for name, value in environment.items() if "sëcret" in value or "owner's key" in value]
    lines = list(cluster.logs(application_id))
    assert lines
    assert not [line for line in lines if "sëcret" in line.text or "owner's key" in line.text]


def test_kept_logs_come_line_by_line_with_container_and_file(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("runs-all-tasks", seen, instances=2))
    assert end_of(cluster, application_id).state is AppState.SUCCEEDED
    lines = list(cluster.logs(application_id))
    containers = {state["container_id"] for state in told(seen, "states")}
    for container in containers:
        own = [(line.stream, line.text) for line in lines if line.container_id == container]
        # A line that imitates the end of the file is text like any other.
        assert [text for stream, text in own if stream == "stdout.log"] == ["one", "End of LogType:stdout.log", "two"]
        assert any(stream == "worker.log" and "hello from worker:" in text for stream, text in own)
    assert not {line.stream for line in lines} & {"launch_container.sh", "directory.info"}


def test_stopped_containers_get_term_and_end_as_killed_by_us(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("stops-what-it-started", seen, instances=2))
    assert end_of(cluster, application_id).state is AppState.SUCCEEDED
    states = told(seen, "states")
    assert [(state["phase"], state["cause"]) for state in states] == [("ENDED", "KILLED_BY_US")] * 2
    eventually(lambda: (seen / "term-worker:0").exists() and (seen / "term-worker:1").exists(), 10)


def test_a_task_that_eats_too_much_memory_ends_as_out_of_memory(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("eats-memory", seen))
    assert end_of(cluster, application_id).state is AppState.SUCCEEDED
    [state] = told(seen, "states")
    assert (state["cause"], "memory used" in state["diagnostics"]) == (EndCause.OUT_OF_MEMORY.value, True)


def test_an_exit_code_is_dropped_by_skein_and_so_not_invented_by_us(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("exits-with-3", seen))
    assert end_of(cluster, application_id).state is AppState.SUCCEEDED
    [state] = told(seen, "states")
    assert (state["phase"], state["cause"], state["exit_code"]) == (Phase.ENDED.value, "EXITED", None)


def test_a_crashed_python_master_is_started_again_in_the_same_attempt(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("crashes-twice", seen))
    report = end_of(cluster, application_id)
    assert (report.state, report.diagnostics, report.am_attempts) == (AppState.SUCCEEDED, "third time lucky", 1)
    assert len(list(seen.glob("start-*"))) == 3


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_failed_job_says_why_after_its_last_attempt(cluster: YarnCluster, seen: Path, attempts: int) -> None:
    application_id = submit(cluster, job("fails", seen, am_attempts=attempts))
    report = end_of(cluster, application_id)
    again = "again: " if attempts == 2 else ""
    assert report.state is AppState.FAILED and report.am_attempts == attempts
    assert report.diagnostics == f'{again}worker:1 exited with 1: ValueError: "7"'


def test_a_killed_job_is_confirmed_leaves_no_process_and_no_staging(cluster: YarnCluster, seen: Path) -> None:
    application_id = submit(cluster, job("waits", seen))
    eventually(lambda: (seen / "task-worker:0").exists())
    pid = told(seen, "start-1")["pid"]
    started = time.monotonic()
    assert cluster.kill(application_id).state is AppState.KILLED
    assert time.monotonic() - started < 10
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 20)
    eventually(lambda: not staging_left(cluster, application_id), 10)
    assert cluster.kill(application_id).state is AppState.KILLED


def test_gpus_are_counted_and_impossible_sizes_are_told_before_any_submit(cluster: YarnCluster, seen: Path) -> None:
    fits = job("runs-all-tasks", seen, size=replace(SMALL, gpus=4))
    assert cluster.check(fits) == []
    assert end_of(cluster, submit(cluster, fits)).state is AppState.SUCCEEDED
    problems = cluster.check(job("x", seen, size=Resources(memory_mb=5000, vcores=1, gpus=64), queue="defualt"))
    assert [(problem.key, problem.value) for problem in problems] == [
        ("queue", "defualt"),
        ("roles.worker.memory", "5000m"),
        ("roles.worker.gpus", "64"),
    ]
    assert "4g" in problems[1].message and 'Did you mean "default"?' in (problems[0].hint or "")
    many = cluster.check(job("x", seen, instances=100, size=Resources(memory_mb=1024, vcores=1)))
    assert [problem.key for problem in many] == ["roles.worker.instances"] and "8 of" in many[0].message
    missing = cluster.check(job("x", seen, node_label="gpu", nodes=("nowhere",)))
    assert {problem.key for problem in missing} >= {"roles.worker.node_label", "roles.worker.nodes"}


def test_a_check_takes_less_than_two_seconds_and_no_java(cluster: YarnCluster, seen: Path) -> None:
    started = time.monotonic()
    cluster.check(job("x", seen))
    assert cluster.node_count() == 2
    assert time.monotonic() - started < 2.0


def test_an_unknown_queue_is_refused_in_yarns_words_and_nothing_is_left(cluster: YarnCluster, seen: Path) -> None:
    with pytest.raises(Refused) as refused:
        submit(cluster, job("waits", seen, queue="nope"))
    assert "nope" in str(refused.value) and "Exception" not in str(refused.value)
    assert not [one for one in cluster.list() if one.queue == "nope" and not one.state.ended]


def test_lists_show_our_jobs_newest_first_by_state_and_tag(cluster: YarnCluster, seen: Path) -> None:
    first = submit(cluster, job("fails", seen, tags=("mine",)))
    end_of(cluster, first)
    second = submit(cluster, job("fails", seen, tags=("mine", "other")))
    end_of(cluster, second)
    assert [one.application_id for one in cluster.list(tag="mine")] == [second, first]
    assert [one.application_id for one in cluster.list((AppState.FAILED,), cluster.user, "other")] == [second]
    assert cluster.list((AppState.SUCCEEDED,), tag="mine") == []
    assert cluster.list(user="nobody") == []


def test_the_key_of_a_job_is_kept_for_its_owner_alone(cluster: YarnCluster, seen: Path, state: Path) -> None:
    application_id = submit(cluster, job("fails", seen))
    end_of(cluster, application_id)
    path = state / "jobs" / f"{application_id}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept: Mapping[str, Any] = json.loads(path.read_text())
    assert kept["owner_key"] == "the owner's key" and kept["secrets"] == {}


def test_a_job_that_does_not_exist_is_no_such_job(cluster: YarnCluster) -> None:
    with pytest.raises(NoSuchJob):
        cluster.report("application_1_0001")
    with pytest.raises(NoSuchJob):
        cluster.kill("application_1_0001")
    with pytest.raises(NoSuchJob):
        cluster.report("../../etc/passwd")


def test_a_submit_without_an_answer_in_time_is_taken_back(
    cluster: YarnCluster, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tony.yarn.skeinlink.SUBMIT_TIMEOUT_S", 0.2)
    with pytest.raises(Unreachable, match="in time"):
        submit(cluster, job("waits", seen, tags=("late",)))
    [report] = cluster.list(tag="late")
    assert report.state is AppState.KILLED


def test_a_kept_driver_is_found_used_and_ended(yarn_cluster: LocalCluster, cluster: YarnCluster, seen: Path) -> None:
    kept = running_driver(yarn_cluster.conf_dir)
    assert kept is not None
    folder = Path(kept.folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert start_driver(yarn_cluster.conf_dir, yarn_cluster.bin_dir, folder) == kept
    assert running_driver(folder) is None
    assert stop_driver()
    assert not Path(f"/proc/{kept.pid}/cwd").exists()
    assert running_driver(yarn_cluster.conf_dir) is None and not stop_driver()


def test_a_driver_of_ones_own_ends_with_the_command(
    yarn_cluster: LocalCluster, cluster: YarnCluster, seen: Path
) -> None:
    stop_driver()
    own = edge(yarn_cluster)
    own.warm_up()
    try:
        application_id = submit(own, job("fails", seen))
        process = own.driver_process
        assert process is not None and process.poll() is None
    finally:
        own.close()
        own.close()
    assert process.returncode is not None
    assert end_of(cluster, application_id).state is AppState.FAILED


def test_closing_while_a_driver_starts_ends_it_at_once(
    yarn_cluster: LocalCluster, cluster: YarnCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_driver()
    monkeypatch.setenv("TONY_CACHE_DIR", str(tmp_path / "cache"))
    own = edge(yarn_cluster)
    own.warm_up()
    eventually(lambda: list((tmp_path / "cache").glob("drivers/*/driver.log")))
    own.close()
    assert list((tmp_path / "cache" / "drivers").iterdir()) == []


def test_a_killed_client_leaves_no_driver(yarn_cluster: LocalCluster, tmp_path: Path) -> None:
    text = """
import os, signal, sys, time
from pathlib import Path
from tony.yarn import YarnCluster

own = YarnCluster(Path(sys.argv[1]), Path(sys.argv[2]))
own.warm_up()
while own.driver_process is None:
    time.sleep(0.05)
print(own.driver_process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", text, str(yarn_cluster.conf_dir), str(yarn_cluster.bin_dir)]
    names = {"TONY_STATE_DIR": str(tmp_path), "TONY_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env={**os.environ, **names}, stdout=subprocess.PIPE, timeout=90)
    pid = int(done.stdout)
    eventually(lambda: not is_java(pid), 20)


def is_java(pid: int) -> bool:
    try:
        return b"com.anaconda.skein.Driver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_cluster_that_does_not_answer_is_unreachable_within_seconds(tmp_path: Path, seen: Path) -> None:
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://127.0.0.1:1</value></property></configuration>"
    )
    (tmp_path / "yarn-site.xml").write_text(
        "<configuration><property><name>yarn.resourcemanager.webapp.address</name>"
        "<value>127.0.0.1:1</value></property></configuration>"
    )
    dead = YarnCluster(tmp_path)
    started = time.monotonic()
    with pytest.raises(Unreachable, match="127.0.0.1:1"):
        dead.check(job("x", seen))
    assert time.monotonic() - started < 5
    dead.close()
