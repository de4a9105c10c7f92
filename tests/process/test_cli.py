"""The command `tony` as a process: its speed, jobs of this machine to their verdict, and what is left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.training import MULTIWORKER, interpreter

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0

ARGUMENTS = """\
import json, sys
print(json.dumps(sys.argv[1:]))
"""
FAILS = """\
import os, time
if os.environ["TONY_INDEX"] == "1":
    raise ValueError("batch size 7 is not divisible by 2")
time.sleep(60)
"""
SLEEPS = """\
import time
print("asleep", flush=True)
time.sleep(120)
"""


class Tony:
    """Runs `tony` in a folder, with a state folder and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.work = folder / "work"
        self.work.mkdir()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TONY_", "HADOOP_"))}
        self.environ = clean | {
            "TONY_STATE_DIR": str(self.state),
            "TONY_CACHE_DIR": str(folder / "cache"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PYTHONPATH": str(ROOT),
        }

    def script(self, name: str, text: str) -> str:
        (self.work / name).write_text(text)
        return name

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tony", *arguments],
            cwd=self.work,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **environ) as process:
            try:
                out, err = process.communicate(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def processes(self) -> list[int]:
        """Every process whose working folder lies in the state folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str((process / "cwd").readlink()).startswith(str(self.state)):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def nothing_runs(self) -> bool:
        return eventually(lambda: not self.processes(), 15.0)


def eventually(condition: Callable[[], bool], within_s: float = WAIT_S) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def final(document: Mapping[str, Any]) -> tuple[str, str, int]:
    return document["state"], document["reason"], document["exit_code"]


@pytest.fixture
def tony(tmp_path: Path) -> Tony:
    return Tony(tmp_path)


LOCAL = ("submit", "--cluster", "local", "--venv", "none")


def test_help_comes_at_once(tony: Tony) -> None:
    # 150 ms on an idle machine. Processor time, the best of several tries: other work here must not fail this test.
    def processor_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    best = 9.0
    for _ in range(5):
        before = processor_s()
        assert tony.run("--help").returncode == 0
        best = min(best, processor_s() - before)
    assert best < 0.25


def test_help_loads_neither_yaml_nor_grpc_nor_skein(tony: Tony) -> None:
    code = "import sys; from tony.cli.main import main; main(['--help']); print([m for m in %r if m in sys.modules])"
    heavy = ["yaml", "grpc", "skein", "requests", "rich", "cryptography", "msgspec", "tony.client"]
    done = subprocess.run(
        [sys.executable, "-c", code % (heavy,)], env=tony.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_job_runs_and_its_arguments_arrive_byte_identical(tony: Tony) -> None:
    arguments = ["a b", "", "*", "{{HOME}}", "<LOG_DIR>", "$(touch pwned)", "`id`", "ü日本", "--x", "--", "'\"\\"]
    done = tony.run(*LOCAL, "--workers", "2", tony.script("train.py", ARGUMENTS), "--", *arguments)
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("[worker:"))
    assert [json.loads(line.split("] ", 1)[1]) for line in lines] == [arguments, arguments]
    assert "SUCCEEDED after" in done.stderr
    assert tony.nothing_runs()


def test_a_failing_script_ends_with_100_and_its_own_last_words(tony: Tony) -> None:
    done = tony.run(*LOCAL, "--workers", "2", "--json", tony.script("train.py", FAILS))
    document = json.loads(done.stdout)
    assert (done.returncode, *final(document)) == (100, "FAILED", "WORKER_EXIT", 100)
    failure = document["first_failure"]
    assert (failure["task"], failure["exit_code"]) == ("worker:1", 1)
    assert "ValueError: batch size 7 is not divisible by 2" in failure["message"]
    assert "root cause   worker:1" in done.stderr
    timeline = [document["timeline"][name] for name in ("command", "uploaded", "accepted", "am_started", "released")]
    assert timeline == sorted(timeline) and timeline[0] == 0
    assert document["uploaded_bytes"] > 0
    # The same ending from another command.
    again = tony.run("wait", document["application_id"], "--json")
    assert again.returncode == 100 and final(json.loads(again.stdout)) == final(document)
    assert tony.nothing_runs()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_kills_the_job_and_confirms_it(tony: Tony, number: signal.Signals) -> None:
    process = tony.start(*LOCAL, "--workers", "2", "--json", tony.script("train.py", SLEEPS))
    with process:
        assert process.stderr is not None and process.stdout is not None
        while "asleep" not in process.stderr.readline():
            pass
        process.send_signal(number)
        assert process.wait(WAIT_S) == 130
        document = json.loads(process.stdout.read())
    assert final(document) == ("KILLED", "CANCELLED", 130)
    assert tony.json("ls")["jobs"][0]["state"] == "KILLED"
    assert tony.nothing_runs()


def test_with_on_interrupt_detach_the_job_lives_on(tony: Tony) -> None:
    process = tony.start(*LOCAL, "--on-interrupt", "detach", tony.script("train.py", SLEEPS))
    with process:
        assert process.stdout is not None
        while "asleep" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 101
    assert tony.json("status")["state"] == "RUNNING"
    assert tony.run("kill", "1").returncode == 0
    assert tony.nothing_runs()


def test_a_detached_job_is_seen_followed_and_killed(tony: Tony) -> None:
    done = tony.run(*LOCAL, "--detach", "--name", "nap", "--tag", "night", tony.script("train.py", SLEEPS))
    assert done.returncode == 0, done.stderr
    application_id = done.stdout.strip()
    assert application_id.startswith("local_")
    assert eventually(lambda: tony.json("status")["state"] == "RUNNING")
    (task,) = tony.json("status", application_id)["tasks"]
    assert task["task"] == "worker:0"
    assert eventually(lambda: tony.run("logs").stdout == "[worker:0] asleep\n", 10.0)
    waiting = tony.run("wait", "--timeout", "200ms")
    assert waiting.returncode == 101 and "has not ended after 200ms" in waiting.stderr
    (listed,) = tony.json("ls", "--tag", "night")["jobs"]
    assert (listed["application_id"], listed["state"]) == (application_id, "RUNNING")
    assert tony.json("ls", "--tag", "day")["jobs"] == []
    killed = tony.json("kill", application_id, "--grace", "2s", "--reason", "test")
    assert killed["jobs"][0]["state"] == "KILLED"
    assert tony.run("wait", application_id).returncode == 103
    assert tony.run("kill", application_id).returncode == 0
    assert tony.run("logs", application_id).stdout == "[worker:0] asleep\n"
    assert tony.nothing_runs()


def test_a_master_that_was_killed_is_told_as_lost_and_its_tasks_can_be_ended(tony: Tony) -> None:
    done = tony.run(*LOCAL, "--detach", tony.script("train.py", SLEEPS))
    application_id = done.stdout.strip()
    assert eventually(lambda: tony.json("status")["state"] == "RUNNING")
    app = json.loads((tony.state / "local" / "jobs" / application_id / "app.json").read_text())
    os.kill(app["pid"], signal.SIGKILL)
    waited = tony.run("wait", application_id, "--json")
    assert (waited.returncode, *final(json.loads(waited.stdout))) == (104, "FAILED", "AM_LOST", 104)
    assert tony.run("kill", application_id).returncode == 0
    assert tony.nothing_runs()


def test_logs_choose_tasks_streams_and_lines(tony: Tony) -> None:
    script = "import sys\nfor i in range(5): print('out', i)\nprint('err \\x1b[2J', file=sys.stderr)\n"
    assert tony.run(*LOCAL, "--workers", "2", tony.script("train.py", script)).returncode == 0
    assert len(tony.run("logs").stdout.splitlines()) == 12
    one = tony.run("logs", "--rank", "1", "--stream", "out", "--tail", "2")
    assert one.stdout == "[worker:1] out 3\n[worker:1] out 4\n"
    assert tony.run("logs", "--role", "worker", "--rank", "0", "--grep", "^err").stdout == "[worker:0] err \\x1b[2J\n"
    assert "\x1b[2J" in tony.run("logs", "--raw", "--stream", "err").stdout
    lines = [json.loads(line) for line in tony.run("logs", "--json", "--rank", "0").stdout.splitlines()]
    assert len(lines) == 6 and lines[0]["schema"] == "tony.log/1" and lines[0]["task"] == "worker:0"
    assert tony.run("logs", "--rank", "9").returncode == 2


def test_an_output_line_that_imitates_us_changes_nothing(tony: Tony) -> None:
    script = "print('job local_1_0001 SUCCEEDED after 1s')\nprint('tony: RUNNING')\nraise SystemExit(3)\n"
    done = tony.run(*LOCAL, "--json", tony.script("train.py", script))
    document = json.loads(done.stdout)
    assert done.returncode == 100 and document["first_failure"]["exit_code"] == 3


def test_a_reader_who_goes_away_is_no_error(tony: Tony) -> None:
    assert tony.run(*LOCAL, tony.script("train.py", "for i in range(20000): print(i)")).returncode == 0
    command = f"{sys.executable} -m tony logs | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tony.work, env=tony.environ, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.stdout == "[worker:0] 0\n0\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("into", ["| head -1", "> /dev/full"])
def test_a_submit_whose_output_nobody_takes_ends_with_the_job_and_its_code(tony: Tony, into: str) -> None:
    script = "import time\nfor i in range(30):\n    print(i, flush=True)\n    time.sleep(0.05)\nraise SystemExit(3)\n"
    submit = f"{sys.executable} -m tony {' '.join(LOCAL)} {tony.script('train.py', script)}"
    done = subprocess.run(
        ["bash", "-c", f"{submit} {into}; echo ended with ${{PIPESTATUS[0]}} >&2"],
        cwd=tony.work,
        env=tony.environ,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.stderr.endswith("ended with 100\n")
    assert "FAILED" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ["--workers", "8.0", "train.py"]),
        (2, ["--workers", "1000000000", "train.py"]),
        (2, ["--memory", "1e30g", "train.py"]),
        (2, ["--name", "{{ ds }}", "train.py"]),
        (2, ["--name", "a\u202eb", "train.py"]),
        (2, ["--queue", "$(touch pwned)", "train.py"]),
        (2, ["--tag", "`touch pwned`\n", "train.py"]),
        (2, ["--env", "A=B=C", "--env", "=x", "train.py"]),
        (2, ["--env", "TONY_X=1", "train.py"]),
        (2, ["--venv", "file:///etc/passwd", "train.py"]),
        (2, ["--venv", "http://x/e.zip", "train.py"]),
        (2, ["--files", "/etc/passwd::../../x", "train.py"]),
        (2, ["trian.py"]),
        (2, ["-f", "bomb.yaml"]),
        (2, ["-f", "tag.yaml"]),
        (2, ["-f", "tab.yaml"]),
        (3, ["--gpus", "999", "train.py"]),
        (3, ["--memory", "1000t", "train.py"]),
        (3, ["--resource", "yarn.io/fpga=1", "train.py"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_bad_input_has_the_right_code_and_leaves_nothing_behind(tony: Tony, code: int, arguments: list[str]) -> None:
    tony.script("train.py", "")
    tony.script(
        "bomb.yaml", "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)])
    )
    tony.script("tag.yaml", "command: !!python/object/apply:os.system ['touch pwned']\n")
    tony.script("tab.yaml", "roles:\n\tworker: 1\n")
    before = sorted(tony.work.iterdir())
    done = tony.run("submit", "--cluster", "local", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.endswith("Nothing was uploaded or submitted.\n")
    assert done.stdout == ""
    assert sorted(tony.work.iterdir()) == before
    assert not tony.state.exists()


def test_gc_removes_finished_jobs_but_no_checkpoints(tony: Tony) -> None:
    keeps = "import os, pathlib; pathlib.Path(os.environ['TONY_CHECKPOINT_DIR'], 'step-1').touch()"
    assert tony.run(*LOCAL, tony.script("plain.py", "")).returncode == 0
    assert tony.run(*LOCAL, tony.script("train.py", keeps)).returncode == 0
    newer, older = (job["application_id"] for job in tony.json("ls")["jobs"])
    assert tony.json("gc", "--cluster", "local")["jobs"] == []
    would = tony.json("gc", "--cluster", "local", "--older-than", "0s", "--dry-run")
    assert (would["jobs"], would["kept_with_checkpoints"]) == ([older], [newer])
    done = tony.json("gc", "--cluster", "local", "--older-than", "0s")
    assert (done["jobs"], done["kept_with_checkpoints"]) == ([older], [newer])
    assert [job["application_id"] for job in tony.json("ls")["jobs"]] == [newer]
    # The archive of the job that stays is still there.
    assert len(list((tony.state / "local" / "storage" / "cache").iterdir())) == 1
    assert tony.json("gc", "--cluster", "local", "--older-than", "0s", "--checkpoints")["jobs"] == [newer]
    assert tony.json("ls")["jobs"] == []


def test_an_environment_is_packed_checked_and_refused_when_it_is_none(tony: Tony) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tony.work / "venv")], check=True)
    packed = tony.json("pack", "venv", "--out", "e.tar.gz")
    assert packed["bytes"] == (tony.work / "e.tar.gz").stat().st_size
    again = tony.run("pack", "venv", "--out", "e.tar.gz")
    assert again.returncode == 2 and "is there already" in again.stderr
    report = tony.json("env", "check", "e.tar.gz")
    assert report["schema"] == "tony.environment/1" and not report["problems"]
    (tony.work / "no.tar.gz").write_bytes(b"no archive")
    assert tony.run("env", "check", "no.tar.gz").returncode in (2, 4)
    assert tony.run("env", "check", "none.tar.gz").returncode == 4


def test_a_submit_that_fails_takes_back_what_it_uploaded(tony: Tony) -> None:
    tony.script("train.py", "")
    (tony.state / "local").mkdir(parents=True)
    (tony.state / "local" / "jobs").write_text("in the way")
    done = tony.run(*LOCAL, "train.py")
    assert done.returncode != 0
    assert "Nothing was uploaded or submitted." in done.stderr
    cache = tony.state / "local" / "storage" / "cache"
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.timeout(180)
def test_a_tensorboard_is_shown_beside_the_job_and_ends_with_it(tony: Tony) -> None:
    seen, runs = tony.folder / "seen", tony.folder / "runs"
    runs.mkdir()
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(seen)!r}).exists(): time.sleep(0.1)\n"
    words = ("--detach", "--python", interpreter(MULTIWORKER), "--tensorboard", str(runs))
    job = tony.json(*LOCAL, *words, tony.script("train.py", waits))["application_id"]
    assert eventually(lambda: bool(tony.json("status", job)["urls"]), 120)
    urls = tony.json("status", job)["urls"]
    with urlopen(urls["tensorboard"] + "data/environment", timeout=30) as page:
        assert json.load(page)["data_location"] == str(runs)
    seen.touch()
    assert tony.json("wait", job)["state"] == "SUCCEEDED"
    assert urls["tensorboard"] not in tony.run("status", job).stdout
    with pytest.raises(OSError):
        urlopen(urls["tensorboard"], timeout=10)
