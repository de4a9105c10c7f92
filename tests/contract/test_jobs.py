"""What a user of the command line is promised, on every back-end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from command_line import Tony, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["local", "yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    """Processes of this machine, or containers of a real YARN."""
    return str(request.param)


def final(output: str) -> dict[str, object]:
    """The document that ``tony submit --json`` ends with."""
    return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]


def test_a_job_that_works_ends_with_0(tony: Tony) -> None:
    done = tony.submit("exit_0.py")
    assert done.returncode == 0, done.stderr
    document = final(done.stdout)
    assert (document["schema"], document["state"], document["first_failure"]) == ("tony.job/1", "SUCCEEDED", None)
    assert [task["state"] for task in document["tasks"]] == ["SUCCEEDED", "SUCCEEDED"]  # type: ignore[attr-defined]


def test_a_failing_script_ends_with_100_and_its_own_words(tony: Tony) -> None:
    done = tony.submit("exit_1.py")
    assert done.returncode == 100, done.stderr
    document = final(done.stdout)
    assert (document["state"], document["reason"]) == ("FAILED", "WORKER_EXIT")
    failure = document["first_failure"]
    assert failure["exit_code"] == 1  # type: ignore[index]
    assert failure["message"] == "ValueError: the loss is not a number"  # type: ignore[index]


def test_the_users_own_exit_code_is_told_but_not_squeezed_into_ours(tony: Tony) -> None:
    done = tony.submit("exit_3.py")
    assert done.returncode == 100, done.stderr
    assert final(done.stdout)["first_failure"]["exit_code"] == 3  # type: ignore[index]


def test_a_job_that_hangs_is_found_its_stacks_are_kept_and_it_ends_with_106(tony: Tony) -> None:
    done = tony.submit("hangs.py", flags=("--hang-timeout", "10s", "--on-hang", "kill"))
    assert done.returncode == 106, done.stderr
    document = final(done.stdout)
    assert (document["state"], document["reason"]) == ("FAILED", "HUNG")
    assert any("in waits_for_a_peer" in line for line in document["first_failure"]["tail"])  # type: ignore[index]
    logs = tony.run("logs", "--stream", "err", str(document["application_id"]))
    assert logs.stdout.count("[tony] end of stacks") == 2, logs.stdout
    assert "in waits_for_a_peer" in logs.stdout


def test_a_rank_that_leaves_the_others_waiting_fails_the_job(tony: Tony) -> None:
    done = tony.submit("ends_early.py", flags=("-c", "early_exit=8s"))
    assert done.returncode == 100, done.stderr
    document = final(done.stdout)
    assert document["reason"] == "EARLY_EXIT"
    assert document["first_failure"]["task"] == "worker:1"  # type: ignore[index]
    assert "while 1 run" in document["message"]  # type: ignore[operator]


def test_who_is_not_required_is_stopped_when_the_chief_has_ended(tony: Tony) -> None:
    flags = ("--chief", "--workers", "1", "--ps", "1", "--evaluator", "--success", "chief")
    sizes = ("--chief-memory", "256m", "--ps-memory", "256m", "--evaluator-memory", "256m")
    done = tony.submit("chief_ends.py", flags=(*flags, *sizes))
    assert done.returncode == 0, done.stderr
    document = final(done.stdout)
    states = {task["task"]: task["state"] for task in document["tasks"]}  # type: ignore[attr-defined]
    assert states == {"chief:0": "SUCCEEDED", "worker:0": "STOPPED", "ps:0": "STOPPED", "evaluator:0": "STOPPED"}
    timeline = document["timeline"]
    # One second of work, two for the others' end, and what a busy machine needs to start four processes.
    assert timeline["finished"] - timeline["released"] < 6.0  # type: ignore[index]


def test_the_stacks_of_running_tasks_are_shown_without_disturbing_them(tony: Tony) -> None:
    job = tony.begin("hangs.py")
    application_id = job.application_id()
    job.processes("user")
    wait_for(lambda: "in waits_for_a_peer" in tony.run("stack", application_id).stdout)
    document = json.loads(tony.run("--json", "stack", application_id, "--rank", "1").stdout)
    assert [one["task"] for one in document["tasks"]] == ["worker:1"]
    assert len(job.processes("user")) == 2
    assert tony.run("kill", application_id, "--grace", "1s").returncode == 0
    assert job.result()[0] == 103


HOSTILE = [
    "$(touch pwned)",
    "`id`",
    'double " quote',
    "it's",
    "{{HOME}}",
    "<LOG_DIR>",
    "*",
    "",
    "two  spaces",
    "é✓",
    "a\nb",
]


def test_arguments_and_variables_arrive_as_they_were_typed(tony: Tony) -> None:
    done = tony.submit("prints_env.py", *HOSTILE, flags=("--env", f"HOSTILE={HOSTILE[0]}", "--workers", "1"))
    assert done.returncode == 0, done.stderr
    logs = tony.run("logs", "--raw", "--stream", "out", str(final(done.stdout)["application_id"]))
    assert logs.returncode == 0, logs.stderr
    seen = json.loads(next(line[line.index("{") :] for line in logs.stdout.splitlines() if "{" in line))
    assert seen["argv"][1:] == HOSTILE
    assert seen["environment"]["HOSTILE"] == HOSTILE[0]
    assert not list(tony.folder.rglob("pwned"))
    assert "TONY_CERTIFICATE" not in seen["environment"]


def test_logs_after_the_end_are_those_that_were_followed(tony: Tony) -> None:
    followed = tony.run(
        *["submit", "--workers", "2", "--memory", "256m", "--venv", "none", "--am-memory", "1g"],
        str(Path(__file__).parents[1] / "jobs" / "exit_0.py"),
    )
    assert followed.returncode == 0, followed.stderr
    kept = tony.run("logs")
    lines = {line for line in (followed.stdout + followed.stderr).splitlines() if line.startswith("[worker")}
    assert len(lines) == 4
    assert {line for line in kept.stdout.splitlines() if line.startswith("[worker")} == lines


def test_a_killed_worker_restarts_the_gang_in_its_containers(tony: Tony) -> None:
    job = tony.begin("sleeps_in_generation_1.py")
    victims = job.processes("user")
    os.kill(victims[0], signal.SIGKILL)
    code, document = job.result()
    assert code == 0, document
    assert document["generations"] == 2
    assert [task["incarnations"] for task in document["tasks"]] == [1, 1]


def test_a_killed_executor_is_replaced_and_leaves_no_orphan(tony: Tony) -> None:
    job = tony.begin("sleeps_in_generation_1.py")
    users = job.processes("user")
    os.kill(job.processes("executor")[0], signal.SIGKILL)
    code, document = job.result()
    assert code == 0, document
    assert sorted(task["incarnations"] for task in document["tasks"]) == [1, 2]
    assert not any(Path(f"/proc/{pid}").exists() for pid in users)


def test_a_job_without_restarts_fails_with_the_signal_as_root_cause(tony: Tony) -> None:
    job = tony.begin("sleeps.py", "600", flags=("--restart", "never"))
    os.kill(job.processes("user")[1], signal.SIGKILL)
    code, document = job.result()
    assert (code, document["state"], document["reason"]) == (104, "FAILED", "WORKER_SIGNAL")
    assert document["first_failure"]["signal"] == "SIGKILL"
    assert sorted(task["state"] for task in document["tasks"]) == ["FAILED", "STOPPED"]


def test_ctrl_c_kills_the_job_and_confirms_it(tony: Tony) -> None:
    job = tony.begin("sleeps.py", "600")
    job.processes("user")
    job.process.send_signal(signal.SIGINT)
    code, document = job.result()
    assert (code, document["state"], document["reason"]) == (130, "KILLED", "CANCELLED")
    listed = json.loads(tony.run("--json", "ls", "--all").stdout)
    states = {entry["application_id"]: entry["state"] for entry in listed["jobs"]}
    assert states[document["application_id"]] == "KILLED"


def test_a_kill_gives_the_script_its_grace_and_ends_followers_with_103(tony: Tony) -> None:
    job = tony.begin("checkpoints_on_sigterm.py")
    job.processes("user")
    wait_for(lambda: "RUNNING" in tony.run("status").stdout)
    time.sleep(0.5)
    killed = tony.run("kill", json.loads(tony.run("--json", "ls").stdout)["jobs"][0]["application_id"])
    assert killed.returncode == 0, killed.stderr
    code, document = job.result()
    assert (code, document["state"]) == (103, "KILLED")
    assert "saved" in tony.run("logs", document["application_id"]).stdout


def test_a_request_that_can_never_fit_is_refused_before_anything_is_uploaded(tony: Tony) -> None:
    done = tony.submit("exit_0.py", flags=("--memory", "900g"))
    assert done.returncode == 3, done.stderr
    assert "Nothing was uploaded or submitted" in done.stderr
    assert json.loads(tony.run("--json", "ls", "--all").stdout)["jobs"] == [] or tony.backend == "yarn"
