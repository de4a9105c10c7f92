"""Commands that need no cluster, the ending of a job, and the choice of tasks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tony.cli import jobs
from tony.cli.invocation import Invocation
from tony.cli.jobs import fits
from tony.cli.logs import chosen_tasks, ranks_of
from tony.cli.main import COMMANDS, cli, main
from tony.cli.output import Output
from tony.cli.status import status_lines
from tony.client import SubmitRecord
from tony.containers import AppState
from tony.ending import ending_document, ending_lines
from tony.errors import NoSuchJob, UsageError
from tony.outcome import outcome_of
from tony.snapshot import Failure, JobSnapshot, TaskSnapshot, Timeline, Verdict
from tony.state import JobState, Reason, TaskState

ID = "application_1700000000000_0042"
TASKS = ("worker:0", "worker:1", "ps:0", "chief:0")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("TONY_STATE_DIR", "TONY_CACHE_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("HADOOP_CONF_DIR", "TONY_SITE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def snapshot(**more: object) -> JobSnapshot:
    tasks = tuple(
        TaskSnapshot(
            name, TaskState.RUNNING, 1, host="n1", age_s=5, last_beat_s=0.4, tracked=not name.startswith("ps")
        )
        for name in TASKS
    )
    return JobSnapshot(ID, "mnist", "ann", JobState.RUNNING, 1, 1, tasks=tasks, **more)  # type: ignore[arg-type]


def failed() -> Verdict:
    failure = Failure(
        "worker:1",
        Reason.WORKER_EXIT,
        "ValueError: batch size 7 is not divisible by 2",
        host="n3",
        generation=2,
        exit_code=1,
        tail=("Traceback", "ValueError"),
    )
    return Verdict(
        ID,
        "mnist",
        JobState.FAILED,
        Reason.WORKER_EXIT,
        failure.message,
        generations=2,
        first_failure=failure,
        collateral=("worker:2",),
        tasks=(TaskSnapshot("worker:0", TaskState.STOPPED, 2, host="n1", container="c", exit_code=None),),
        timeline=Timeline(am_started=101.0, finished=292.0),
        started_at=100.0,
    )


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_exists_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: tony {name}")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_help_lists_every_command_without_loading_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert [*cli.list_commands(None)] == list(COMMANDS)  # type: ignore[arg-type]


def test_commands_of_later_features_are_absent() -> None:
    assert not {"why", "exec", "doctor", "ui", "history", "queue", "convert"} & set(COMMANDS)


def test_init_writes_a_job_file_that_works_and_never_overwrites(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "my train.py").write_text("")
    assert main(["init", "--framework", "tensorflow"]) == 0
    assert main(["plan", "-f", "job.yaml", "--cluster", "local", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [role["name"] for role in document["job"]["roles"]] == ["worker", "ps"]
    assert document["job"]["roles"][0]["command"] == ["my train.py"]
    assert main(["init"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_plan_sends_nothing_away(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train.py").write_text("")
    for command in (["plan"], ["submit", "--dry-run"]):
        assert main([*command, "--cluster", "local", "--workers", "2", "train.py", "--", "a b"]) == 0
        captured = capsys.readouterr()
        assert "2 x worker: 2g, 1 vcore" in captured.out
        assert "train.py 'a b'" in captured.out
        assert captured.err.endswith("Nothing was uploaded or submitted.\n")
    assert not (place / "TONY_STATE_DIR").exists()


def test_config_show_tells_origins(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "job.yaml").write_text("queue: research\nroles:\n  worker: {memory: 3g}\n")
    assert main(["config", "show", "--origin", "-f", "job.yaml", "-c", "name=x y"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line.partition(":")[0]: line.rpartition("# ")[2] for line in lines}
    assert found["queue"] == "job.yaml:1"
    assert found["roles.worker.memory"] == "job.yaml:3"
    assert found["name"] == "-c on the command line"
    assert found["framework"] == "default"


def test_version_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    import tony

    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"tony {tony.__version__}\n"
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tony"] == tony.__version__
    assert main(["completion", "zsh"]) == 0
    assert "_TONY_COMPLETE" in capsys.readouterr().out


def test_global_flags_stand_before_or_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--json", "version"], ["version", "--json"]):
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["schema"] == "tony.version/1"


def test_an_empty_list_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": "tony.list/1", "jobs": []}


# How a job ended ----------------------------------------------------------------------------------------------


def test_the_ending_of_a_failed_job() -> None:
    outcome = outcome_of(AppState.FAILED, "", failed())
    assert list(ending_lines(ID, outcome, 192.0)) == [
        f"job {ID} FAILED after 3m12s  (WORKER_EXIT)",
        "",
        "  root cause   worker:1 on n3, generation 2, exit code 1",
        "      ValueError: batch size 7 is not divisible by 2",
        "  then         worker:2 failed too; worker:0 stopped by tony",
        f"  logs         tony logs {ID} --role worker --rank 1",
    ]


def test_the_ending_without_a_verdict_shows_the_clusters_words() -> None:
    lines = list(ending_lines(ID, outcome_of(AppState.FAILED, "a\nb\nc\nd \x1b[1m", None), None))
    assert lines[0] == f"job {ID} FAILED  (AM_LOST)"
    assert lines[2:] == ["  b", "  c", "  d ", f"  logs         tony logs {ID}"]
    assert len(lines) <= 8


def test_the_final_document_has_exactly_the_promised_fields() -> None:
    record = SubmitRecord(ID, "mnist", "yarn", command_at=98.0, uploaded_at=99.0, accepted_at=99.5, uploaded_bytes=7)
    document = ending_document(ID, outcome_of(AppState.FAILED, "", failed()), record, "http://rm")
    promised = {"schema", "application_id", "name", "state", "reason", "exit_code", "first_failure", "generations"}
    promised |= {"tasks", "timeline", "uploaded_bytes", "tracking_url"}
    assert promised <= set(document)
    assert (document["schema"], document["exit_code"], document["uploaded_bytes"]) == ("tony.job/1", 100, 7)
    assert document["timeline"] == {
        "command": 0.0,
        "uploaded": 1.0,
        "accepted": 1.5,
        "am_started": 3.0,
        "allocated": None,
        "released": None,
        "first_output": None,
        "last_exit": None,
        "finished": 194.0,
    }
    assert document["first_failure"]["tail"] == ["Traceback", "ValueError"]
    assert document["tasks"] == [
        {
            "task": "worker:0",
            "state": "STOPPED",
            "host": "n1",
            "container": "c",
            "incarnations": 2,
            "exit_code": None,
            "gpus": [],
        }
    ]
    json.dumps(document)


def test_status_says_what_the_job_waits_for_in_words() -> None:
    output = Output(io.StringIO(), io.StringIO())
    lines = status_lines(output, snapshot(waiting_for="2 of 8 workers: queue full", started_at=10.0, now=75.0))
    assert lines[0] == f"mnist  {ID}  RUNNING  1m05s"
    assert lines[1] == "waiting for 2 of 8 workers: queue full"
    asked = "0 of 1 executors registered, waiting for worker:0 to start"
    assert status_lines(output, snapshot(waiting_for=asked))[1] == asked
    assert lines[3].split() == ["TASK", "STATE", "HOST", "AGE", "BEAT"]


def test_status_names_the_devices_of_tasks_that_have_some() -> None:
    gpus = ("GPU 2: Tesla T4 (UUID: GPU-a)", "GPU 3: Tesla T4 (UUID: GPU-b)", "MIG-c")
    tasks = (TaskSnapshot("worker:0", TaskState.RUNNING, 1, gpus=gpus), TaskSnapshot("ps:0", TaskState.RUNNING, 1))
    shown = JobSnapshot(ID, "mnist", "ann", JobState.RUNNING, 1, 1, tasks=tasks)
    heads, worker, server = status_lines(Output(io.StringIO(), io.StringIO()), shown)[-3:]
    assert heads.split()[-1] == "GPUS"
    assert (worker.split()[-1], server.split()[-1]) == ("2,3,MIG-c", "0s")


# Which job, which tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "yes"),
    [("42", True), ("0042", True), ("4", False), ("application_1700", True), ("appl", False), (ID[-9:], True)],
)
def test_a_part_of_an_id_is_enough(text: str, yes: bool) -> None:
    assert fits(ID, text) is yes


def test_a_number_that_two_clusters_have_is_that_of_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    latest_first = [
        ID,
        "application_1700000000000_0001",
        "application_1600000000000_0042",
        "local_1500000000000_0001",
    ]
    monkeypatch.setattr(jobs, "records_kept", lambda: [SimpleNamespace(application_id=one) for one in latest_first])
    invocation = cast(Invocation, None)
    assert jobs.job_id(invocation, "42") == ID
    assert jobs.job_id(invocation, "1") == latest_first[1]
    with pytest.raises(NoSuchJob, match="2 jobs fit '00000_0042'"):
        jobs.job_id(invocation, "00000_0042")


@pytest.mark.parametrize(
    ("role", "ranks", "names"),
    [
        (None, None, ()),
        ("worker", None, ("worker:0", "worker:1")),
        ("worker", "1", ("worker:1",)),
        (None, "0", ("chief:0",)),
        (None, "1-2", ("worker:0", "worker:1")),
        ("ps", "0", ("ps:0",)),
    ],
)
def test_roles_and_ranks_choose_tasks(role: str | None, ranks: str | None, names: tuple[str, ...]) -> None:
    assert chosen_tasks(snapshot(), role, ranks_of(ranks)) == names


@pytest.mark.parametrize(("role", "ranks"), [("wroker", None), ("worker", "7"), (None, "3")])
def test_a_choice_that_fits_nothing_is_an_error(role: str | None, ranks: str | None) -> None:
    with pytest.raises(UsageError):
        chosen_tasks(snapshot(), role, ranks_of(ranks))


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "0-999999", "٣"])
def test_bad_rank_lists_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ranks_of(text)


def test_tasks_that_stand_at_the_same_place_are_shown_together() -> None:
    from tony.cli.stack import grouped

    def stack(process: int, line: int) -> str:
        return f"process {process} python\nThread 0x7f{process:08x} (most recent call first):\n  line {line} in step"

    found = [("worker:0", "n1", stack(11, 7)), ("worker:1", "n2", stack(12, 8)), ("worker:2", "n1", stack(13, 7))]
    assert [tasks for tasks, _ in grouped(found)] == [["worker:0 on n1", "worker:2 on n1"], ["worker:1 on n2"]]
