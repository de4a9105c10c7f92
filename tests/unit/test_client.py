"""Planning changes nothing outside this machine, and a submit that fails takes back what it sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tony import client
from tony.bundle import RUNTIME, own_interpreter
from tony.containers import AppReport, AppState, LogLine, SubmitProgress
from tony.errors import NoSuchJob, Problem, Refused, Unreachable, UsageError
from tony.plan import JobSecrets, Plan
from tony.spec import FileSpec, JobSpec, PythonSpec, RoleSpec

ID = "application_1_0001"


class Cluster:
    """Accepts, or fails as it is told to."""

    name = "yarn"

    def __init__(self, storage: Path, problems: Sequence[Problem] = (), error: BaseException | None = None) -> None:
        self.storage = f"file://{storage}"
        self.problems, self.error = list(problems), error
        self.secrets: JobSecrets | None = None
        self.submitted = 0

    def check(self, job: JobSpec) -> list[Problem]:
        return self.problems

    def node_count(self) -> int:
        return 3

    def submit(self, plan: Plan, secrets: JobSecrets) -> str:
        self.submitted += 1
        self.secrets = secrets
        if self.error is not None:
            raise self.error
        return ID

    def report(self, application_id: str) -> AppReport:
        raise NoSuchJob(application_id)

    def list(
        self, states: Sequence[AppState] = (), user: str | None = None, tag: str | None = None
    ) -> list[AppReport]:
        return []

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        raise NoSuchJob(application_id)

    def logs(self, application_id: str) -> Iterator[LogLine]:
        yield from ()

    def close(self) -> None:
        pass


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setenv("TONY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TONY_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "code"
    source.mkdir()
    (source / "train.py").write_text("print(1)\n")
    (tmp_path / "vocab.txt").write_text("a\n")
    bundled = tmp_path / "runtime.tar.gz"
    bundled.write_bytes(b"runtime")

    def build(python: str | None, into: Path) -> object:
        from tony.packaging.archive import existing_archive

        return existing_archive(bundled)

    monkeypatch.setattr("tony.bundle.build_runtime", build)
    return JobSpec(
        "x",
        (RoleSpec("worker", ("train.py",), files=(FileSpec(str(tmp_path / "vocab.txt"), "words/vocab.txt"),)),),
        source=str(source),
        python=PythonSpec("none"),
    )


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "storage").rglob("*") if path.is_file())


def test_a_plan_names_what_will_be_uploaded_and_uploads_nothing(job: JobSpec, tmp_path: Path) -> None:
    plan = client.plan(job, Cluster(tmp_path / "storage"))
    assert [item.what for item in plan.uploads] == ["source", RUNTIME, "file words/vocab.txt"]
    record = plan.record
    assert record.source is not None and record.source.url.endswith(f"/cache/{record.source.sha256}.tar.gz")
    (file,) = record.role_files["worker"]
    assert (file.target, file.unpack) == ("words/vocab.txt", False)
    assert (record.node_count, record.python, record.user_python) == (3, own_interpreter(), own_interpreter())
    assert stored(tmp_path) == [] and not (tmp_path / "state").exists()


def test_on_this_machine_environments_are_used_where_they_are(job: JobSpec, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "storage")
    cluster.name = "local"
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(own_interpreter())
    plan = client.plan(replace(job, python=PythonSpec(str(venv))), cluster)
    assert (plan.record.user_python, plan.record.environment, plan.record.runtime) == (
        f"{venv}/bin/python",
        None,
        None,
    )
    assert client.plan(job, cluster).record.user_python == own_interpreter()
    assert client.plan(replace(job, python=PythonSpec("none", "/py")), cluster).record.user_python == "/py"
    with pytest.raises(UsageError):
        client.plan(replace(job, python=PythonSpec(str(tmp_path / "code"))), cluster)


def test_refusals_of_the_cluster_and_of_the_framework_are_told_apart(job: JobSpec, tmp_path: Path) -> None:
    problem = Problem("queue", "no such queue.", "x")
    with pytest.raises(Refused) as refused:
        client.plan(job, Cluster(tmp_path / "storage", [problem]))
    assert refused.value.exit_code == 3
    other = JobSpec("x", job.roles, framework="caffe", source=job.source)
    with pytest.raises(UsageError) as wrong:
        client.plan(other, Cluster(tmp_path / "storage", [problem]))
    assert {one.key for one in wrong.value.problems} == {"framework", "queue"}


def test_a_submit_uploads_once_and_the_second_one_nothing(job: JobSpec, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "storage")
    plan = client.plan(job, cluster)
    steps: list[SubmitProgress] = []
    handle = client.submit(plan, cluster, steps.append, {"TOKEN": "t"}, command_at=5.0)
    assert handle.application_id == ID
    assert len(stored(tmp_path)) == 3
    assert cluster.secrets is not None and cluster.secrets.secrets == {"TOKEN": "t"}
    record = client.record_of(ID)
    assert record is not None and record.uploaded_bytes == sum(item.upload.size for item in plan.uploads)
    assert steps[0].total == record.uploaded_bytes and steps[-1].step == "submitting"
    first = cluster.secrets
    client.submit(plan, cluster)
    again = client.record_of(ID)
    assert again is not None and again.uploaded_bytes == 0
    assert cluster.secrets.owner_key != first.owner_key and cluster.secrets.certificate != first.certificate


@pytest.mark.parametrize("error", [Unreachable("the driver is gone"), KeyboardInterrupt(), ValueError("x")])
def test_a_submit_that_fails_takes_back_what_it_uploaded(job: JobSpec, tmp_path: Path, error: BaseException) -> None:
    cluster = Cluster(tmp_path / "storage", error=error)
    plan = client.plan(job, cluster)
    with pytest.raises(type(error)):
        client.submit(plan, cluster)
    assert plan.record.runtime is not None
    # The runtime bundle belongs to all jobs.
    assert stored(tmp_path) == [f"{plan.record.runtime.sha256}.tar.gz"]
    assert not (tmp_path / "state").exists()


def test_what_was_there_before_stays_when_a_submit_fails(job: JobSpec, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "storage")
    plan = client.plan(job, cluster)
    client.submit(plan, cluster)
    cluster.error = Unreachable("gone")
    with pytest.raises(Unreachable):
        client.submit(plan, cluster)
    assert len(stored(tmp_path)) == 3


def test_attaching_to_an_unknown_job_says_so(job: JobSpec, tmp_path: Path) -> None:
    with pytest.raises(NoSuchJob):
        client.attach(ID, Cluster(tmp_path / "storage"))
    assert client.record_of("../../etc/passwd") is None
