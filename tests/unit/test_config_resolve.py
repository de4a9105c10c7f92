"""Requests become jobs, or every problem at once with its origin and a way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tony.config.layers import Request
from tony.config.resolve import Resolved, resolve
from tony.errors import Problem, UsageError
from tony.spec import FileSpec, JobSpec, PythonSpec, RestartPolicy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.py").write_text("")
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "data.zip").write_bytes(b"PK")
    return tmp_path


class Ask:
    """Short forms of requests in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def request(
        self,
        script: str | None = "train.py",
        *,
        job: str | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
        arguments: Sequence[str] = (),
        **more: Any,
    ) -> Request:
        if job is not None:
            (self.folder / "job.yaml").write_text(job)
            more["job_file"] = Path("job.yaml")
        environ = more.pop("environ", {})
        return Request(
            flags=flags or {}, script=script, arguments=arguments, folder=self.folder, environ=environ, **more
        )

    def resolved(self, script: str | None = "train.py", **more: Any) -> Resolved:
        return resolve(self.request(script, **more))

    def job(self, script: str | None = "train.py", **more: Any) -> JobSpec:
        return self.resolved(script, **more).job

    def problems(self, script: str | None = "train.py", **more: Any) -> list[Problem]:
        with pytest.raises(UsageError) as caught:
            resolve(self.request(script, **more))
        return list(caught.value.problems)

    def only(self, script: str | None = "train.py", **more: Any) -> Problem:
        (problem,) = self.problems(script, **more)
        return problem


@pytest.fixture
def ask(folder: Path) -> Ask:
    return Ask(folder)


# What a request means -----------------------------------------------------------------------------------------


def test_eight_workers_with_four_gpus_each(ask: Ask) -> None:
    job = ask.job(flags={"roles.worker.instances": ["8"], "roles.worker.gpus": ["4"]}, arguments=["--epochs", "3"])
    (worker,) = job.roles
    assert (worker.name, worker.instances, worker.resources.gpus) == ("worker", 8, 4)
    assert worker.command == ("train.py", "--epochs", "3")
    assert job.source == str(ask.folder)


@pytest.mark.parametrize(
    "text", ["", " ", "a b", '"', "'", "*", "{{HOME}}", "<LOG_DIR>", "$(x)", "`x`", "ü", "--", "a\nb"]
)
def test_arguments_stay_byte_identical(ask: Ask, text: str) -> None:
    assert ask.job(arguments=[text]).roles[0].command == ("train.py", text)


def test_arguments_of_a_job_file_stay_as_written(ask: Ask) -> None:
    job = ask.job(None, job='command: [train.py, --epochs, 3, yes, "null", "", "{{HOME}}", 1.10]\n')
    assert job.roles[0].command == ("train.py", "--epochs", "3", "yes", "null", "", "{{HOME}}", "1.10")


def test_arguments_without_a_script_are_added_to_the_job_files_command(ask: Ask) -> None:
    job = ask.job(None, job="command: [train.py, --epochs, 3]\n", arguments=["--lr", "0.1"])
    assert job.roles[0].command == ("train.py", "--epochs", "3", "--lr", "0.1")
    roles = "roles:\n  worker: {command: [train.py]}\n"
    assert "no command for all roles" in ask.only(None, job=roles, arguments=["--lr"]).message
    assert ask.job("sub/deep.py", job="command: [train.py]\n", arguments=["x"]).roles[0].command == ("deep.py", "x")


def test_the_job_file_of_the_documentation(ask: Ask) -> None:
    for name in ("prepare.py", "board.py", "vocab.txt"):
        (ask.folder / name).write_text("")
    job = ask.job(
        None,
        job="""
name: mnist
framework: tensorflow
queue: research
command: [train.py, --epochs, "3"]
files: [vocab.txt::words.txt, data.zip::data#archive]
env: {OMP_NUM_THREADS: "2"}
roles:
  prepare: {instances: 1, command: [prepare.py]}
  ps:      {instances: 1, memory: 2g, untracked: true, depends_on: [prepare]}
  worker:  {instances: 8, memory: 8g, vcores: 4, gpus: 4, depends_on: [prepare]}
  board:   {instances: 1, sidecar: true, command: [board.py]}
restart: {policy: gang, max: 3}
""",
    )
    assert [role.name for role in job.roles] == ["prepare", "ps", "worker", "board"]
    assert job.role("worker").command == ("train.py", "--epochs", "3")
    assert job.role("worker").resources.memory_mb == 8192
    assert not job.role("ps").tracked and not job.role("board").tracked
    assert job.restart.policy is RestartPolicy.GANG
    assert job.files == (
        FileSpec(str(ask.folder / "vocab.txt"), "words.txt"),
        FileSpec(str(ask.folder / "data.zip"), "data", archive=True),
    )
    assert job.env == {"OMP_NUM_THREADS": "2"}


def test_flags_win_over_variables_over_the_job_file_over_the_users_file_over_the_sites(ask: Ask) -> None:
    user, site = ask.folder / "user.yaml", ask.folder / "site.yaml"
    site.write_text("queue: site\nname: site\nsuccess: any\nrestart: {max: 9}\nmax_duration: 9h\n")
    user.write_text("queue: user\nname: user\nsuccess: any\nrestart: {max: 8}\n")
    job = ask.job(
        job="queue: file\nname: file\nsuccess: any\n",
        flags={"queue": ["flag"]},
        environ={"TONY_SITE": str(site), "TONY_QUEUE": "variable", "TONY_NAME": "variable"},
        user_file=user,
    )
    assert (job.queue, job.name, job.success.value) == ("flag", "variable", "any")
    assert (job.restart.max_infrastructure, job.times.duration_s) == (8, 9 * 3600)


def test_minus_c_sets_any_key_and_wins_over_variables(ask: Ask) -> None:
    job = ask.job(
        flags={"roles.worker.instances": ["2"]},
        sets=["roles.worker.memory=3g", "queue=c", 'env={A: "b, c"}', "restart.policy=never"],
        environ={"TONY_QUEUE": "v"},
    )
    assert (job.roles[0].resources.memory_mb, job.queue, job.env) == (3072, "c", {"A": "b, c"})
    assert job.restart.policy is RestartPolicy.NEVER


def test_maps_are_merged_name_by_name_and_lists_are_replaced(ask: Ask) -> None:
    job = ask.job(
        job="env: {A: file, B: file}\ntags: [x, y]\n", flags={"env": ["B=flag", "C=a=b"], "tags": ["z, w"[:1]]}
    )
    assert job.env == {"A": "file", "B": "flag", "C": "a=b"}
    assert job.tags == ("z",)


def test_variables_of_a_running_job_are_not_taken_for_settings(ask: Ask) -> None:
    job = ask.job(environ={"TONY_APPLICATION_ID": "x", "TONY_ROLE": "worker", "TONY_CHECKPOINT_DIR": "/c"})
    assert job.checkpoint_dir is None and [role.name for role in job.roles] == ["worker"]


def test_chief_and_evaluator_are_as_large_as_the_workers_and_ps_is_not(ask: Ask) -> None:
    flags = {"roles.worker.instances": ["2"], "roles.chief.instances": ["1"], "roles.ps.instances": ["1"]}
    flags |= {"roles.evaluator.instances": ["1"], "roles.worker.gpus": ["4"], "roles.worker.memory": ["8g"]}
    flags |= {"roles.evaluator.gpus": ["1"]}
    job = ask.job(flags=flags)
    assert [role.name for role in job.roles] == ["chief", "worker", "ps", "evaluator"]
    sizes = {role.name: (role.resources.memory_mb, role.resources.gpus) for role in job.roles}
    assert sizes == {"chief": (8192, 4), "worker": (8192, 4), "ps": (2048, 0), "evaluator": (8192, 1)}
    assert [role.name for role in job.roles if not role.tracked] == ["ps"]


def test_a_role_can_be_given_in_short(ask: Ask) -> None:
    job = ask.job(flags={"role": ["board:1:512m", "gpu:2::4"]})
    assert [(r.name, r.instances, r.resources.memory_mb, r.resources.gpus) for r in job.roles] == [
        ("board", 1, 512, 0),
        ("gpu", 2, 2048, 4),
    ]


def test_roles_of_the_users_own_file_are_defaults_only(ask: Ask) -> None:
    user = ask.folder / "user.yaml"
    user.write_text("roles:\n  worker: {memory: 7g}\n  ps: {memory: 9g}\n")
    job = ask.job(user_file=user)
    assert [(role.name, role.resources.memory_mb) for role in job.roles] == [("worker", 7168)]


def test_the_scripts_folder_is_the_source(ask: Ask) -> None:
    job = ask.job("sub/deep.py")
    assert job.source == str(ask.folder / "sub") and job.roles[0].command == ("deep.py",) and job.name == "deep"
    job = ask.job("sub/deep.py", flags={"src": ["."]})
    assert job.source == str(ask.folder) and job.roles[0].command == ("sub/deep.py",)


def test_programs_of_the_source_and_of_the_nodes(ask: Ask) -> None:
    assert ask.job("run.sh").roles[0].command == ("./run.sh",)
    job = ask.job("nvidia-smi", arguments=["-L"])
    assert job.roles[0].command == ("nvidia-smi", "-L") and job.source is None


def test_python_comes_from_an_environment_or_from_the_nodes(ask: Ask) -> None:
    assert ask.job().python == PythonSpec("auto")
    assert ask.job(flags={"python": ["/usr/bin/python3"]}).python == PythonSpec("none", "/usr/bin/python3")
    (ask.folder / "venv").mkdir()
    assert ask.job(flags={"venv": ["venv"]}).python == PythonSpec(str(ask.folder / "venv"))
    assert ask.job(flags={"venv": ["hdfs://nn/e.tar.gz"]}).python == PythonSpec("hdfs://nn/e.tar.gz")


def test_secrets_come_from_here_or_from_a_file_and_are_not_in_the_job(ask: Ask) -> None:
    (ask.folder / "key").write_text("s3cret\n")
    resolved = ask.resolved(flags={"secrets": ["TOKEN", "KEY=key"]}, environ={"TOKEN": "t0ken"})
    assert resolved.secrets == {"TOKEN": "t0ken", "KEY": "s3cret"}
    assert resolved.job.secrets == ("TOKEN", "KEY")
    assert "t0ken" not in repr(resolved) and "s3cret" not in repr(resolved)


def test_an_argument_that_looks_like_a_template_is_passed_on_with_a_warning(ask: Ask) -> None:
    resolved = ask.resolved(arguments=["--day", "{{ ds }}"])
    assert resolved.job.roles[0].command[-1] == "{{ ds }}"
    assert "{{ ds }}" in resolved.warnings[0]


# What is refused ----------------------------------------------------------------------------------------------


def test_all_problems_come_at_once_with_their_origins(ask: Ask) -> None:
    found = ask.problems(
        job="roles:\n  worker:\n    memory: 4 gigs\nquue: x\n",
        sets=["roles.wroker.instances=2"],
        environ={"TONY_MAX_RESTARTS": "many"},
        flags={"max_duration": ["5"]},
    )
    assert {(problem.key, problem.origin) for problem in found} == {
        ("roles.worker.memory", "job.yaml:3"),
        ("quue", "job.yaml:4"),
        ("roles.wroker.instances", "-c on the command line"),
        ("restart.max", "TONY_MAX_RESTARTS"),
        ("max_duration", "--max-duration on the command line"),
    }
    hints = {problem.key: problem.hint for problem in found}
    assert hints["quue"] == "Did you mean 'queue'?"
    assert hints["roles.wroker.instances"] == 'Did you mean "worker"?'


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "1000000000", "abc", "8.0", "", " ", "٣", "99999999999999999999"])
def test_numbers_of_workers_have_a_range(ask: Ask, text: str) -> None:
    problem = ask.only(flags={"roles.worker.instances": [text]})
    assert "a whole number from 1 to 10000" in problem.message


@pytest.mark.parametrize(
    ("text", "part"),
    [("4", "4g or 4m"), ("4 gigs", "not a size"), ("-1g", "not a size"), ("1e30g", "not a size"), ("0g", "between")],
)
def test_sizes_need_a_unit_and_a_range(ask: Ask, text: str, part: str) -> None:
    assert part in ask.only(flags={"roles.worker.memory": [text]}).message


def test_4gb_is_a_size(ask: Ask) -> None:
    assert ask.job(flags={"roles.worker.memory": ["4gb"]}).roles[0].resources.memory_mb == 4096


@pytest.mark.parametrize(
    "text", ["{{ ds }}", "{% if x %}", "None", "null", "a\u202eb", "a\u200bb", "a\nb", "\x1b[1m", "x" * 201]
)
@pytest.mark.parametrize("key", ["name", "queue"])
def test_names_hold_nothing_invisible_and_no_leftovers_of_templates(ask: Ask, key: str, text: str) -> None:
    assert ask.only(flags={key: [text]}).key == key


def test_a_name_full_of_shell_is_only_a_name(ask: Ask) -> None:
    assert ask.job(flags={"name": ["$(touch pwned); `x`"]}).name == "$(touch pwned); `x`"
    assert ask.only(flags={"queue": ["$(touch pwned)"]}).key == "queue"
    assert ask.only(flags={"tags": ["ü"]}).key == "tags"
    assert ask.only(flags={"nodes": ["n1;rm"]}).key == "nodes"


@pytest.mark.parametrize("name", ["A=B", "1A", "A-B", "", "A B", "TONY_X", "TF_CONFIG", "RANK"])
def test_bad_and_reserved_variables_are_refused(ask: Ask, name: str) -> None:
    problem = ask.only(job=f'env: {{"{name}": "x"}}\n')
    assert problem.key == "env" and problem.origin == "job.yaml:1"


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "PATH", "BASH_ENV", "HADOOP_TOKEN_FILE_LOCATION"])
def test_variables_that_only_matter_to_the_user_process_are_allowed(ask: Ask, name: str) -> None:
    assert ask.job(flags={"env": [f"{name}=x"]}).env == {name: "x"}


def test_the_environment_has_limits_that_the_message_names(ask: Ask) -> None:
    big = ask.problems(flags={"env": [f"A{i}=" + "x" * 100_000 for i in range(11)]})
    assert any("at most 1000000" in problem.message for problem in big)
    many = ask.problems(flags={"env": [f"A{i}=1" for i in range(10_000)]})
    assert any("fewer than 10000" in problem.message for problem in many)


def test_a_variable_longer_than_linux_allows_is_refused(ask: Ask) -> None:
    found = ask.problems(flags={"env": ["A=" + "x" * 200_000]})
    assert "131071" in found[0].message and "--files" in found[0].message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("http://x/a", "http:// is not allowed"),
        ("file:///etc/passwd", "file:// is not allowed"),
        ("none.txt", "No such file"),
        ("train.py::../x", "below the working directory"),
        ("train.py::/x", "below the working directory"),
        ("train.py::", "SRC[::NAME][#archive]"),
        ("train.py#archive", "must end in"),
    ],
)
def test_bad_files_are_refused(ask: Ask, text: str, part: str) -> None:
    assert part in ask.only(flags={"files": [text]}).message


@pytest.mark.parametrize(
    "text", ["http://x/e.zip", "file:///etc/passwd", "no-such-venv", "train.py", "hdfs://nn/env"]
)
def test_bad_environments_are_refused(ask: Ask, text: str) -> None:
    assert ask.only(flags={"venv": [text]}).key == "venv"


def test_python_and_environment_exclude_each_other(ask: Ask) -> None:
    problem = ask.only(flags={"python": ["/usr/bin/python3"], "venv": ["sub"]})
    assert "either --python or --venv" in problem.message
    assert "absolute path" in ask.only(flags={"python": ["python3"]}).message


def test_a_missing_script_has_a_nearest_name(ask: Ask) -> None:
    problem = ask.only("trian.py")
    assert (problem.value, problem.hint) == ("trian.py", "Did you mean 'train.py'?")
    assert "no script was given" in ask.only(None).message
    assert "no such script" in ask.only(None, job="command: [trian.py]\n").message


def test_a_job_file_in_the_place_of_a_script_is_told_where_it_goes(ask: Ask) -> None:
    assert ask.only("job.yaml").hint == "A job file goes behind -f: -f job.yaml"


def test_an_absolute_path_below_the_source_is_looked_at_and_another_is_the_nodes_own(ask: Ask) -> None:
    assert ask.only(str(ask.folder / "trian.py")).hint == "Did you mean 'train.py'?"
    job = ask.job(None, job="command: [/opt/app/train.py]\n")
    assert job.role("worker").command == ("/opt/app/train.py",)


def test_a_role_without_a_command_is_named(ask: Ask) -> None:
    problem = ask.only(None, job="roles:\n  a: {command: [train.py]}\n  b: {instances: 1}\n")
    assert problem.key == "roles.b"


@pytest.mark.parametrize("name", ["Worker", "1a", "a_b", "a" * 33, "-a", "a b"])
def test_role_names_are_checked(ask: Ask, name: str) -> None:
    assert any("not a role's name" in p.message for p in ask.problems(flags={"role": [f"{name}:1"]}))


def test_dependencies_are_checked(ask: Ask) -> None:
    two = "roles:\n  a: {depends_on: [b]}\n  b: {depends_on: [%s]}\n"
    assert "circle" in ask.only(job=two % "a").message
    assert 'no role "c"' in ask.only(job=two % "c").message
    assert 'no role "bb"' in ask.only(job="roles:\n  a: {depends_on: [bb]}\n  b: {}\n").message
    assert "not waited for" in ask.only(job="roles:\n  a: {depends_on: [b]}\n  b: {sidecar: true}\n").message
    assert "no role is tracked" in ask.only(job="roles:\n  a: {sidecar: true}\n").message


def test_values_of_the_wrong_shape_are_refused(ask: Ask) -> None:
    found = ask.problems(job="tags: a\nenv: [A]\nroles: {worker: 3}\nrestart: x\nqueue: [a]\nname:\n")
    assert [problem.key for problem in found] == ["tags", "env", "roles.worker", "restart", "queue", "name"]


def test_a_secret_that_is_not_there_is_refused_without_its_value(ask: Ask) -> None:
    assert "not set here" in ask.only(flags={"secrets": ["TOKEN"]}).message
    assert "cannot be read" in ask.only(flags={"secrets": ["TOKEN=none"]}).message


def test_checkpoints_do_not_lie_where_the_job_ends(ask: Ask) -> None:
    assert ask.job(flags={"checkpoint_dir": ["hdfs://nn/c"]}).checkpoint_dir == "hdfs://nn/c"
    assert ask.job(flags={"checkpoint_dir": ["/shared/c"]}).checkpoint_dir == "/shared/c"
    assert ask.only(flags={"checkpoint_dir": ["c"]}).key == "checkpoint_dir"
    assert ask.only(flags={"checkpoint_dir": ["ftp://x/c"]}).key == "checkpoint_dir"


def test_a_tensorboard_is_a_sidecar_beside_the_roles_of_the_job(ask: Ask) -> None:
    job = ask.job(flags={"tensorboard": ["/shared/runs"], "roles.worker.instances": ["2"]})
    assert [(role.name, role.instances, role.sidecar) for role in job.roles] == [
        ("worker", 2, False),
        ("tensorboard", 1, True),
    ]
    assert job.roles[1].command[-1] == "/shared/runs"
    job = ask.job(job="command: [train.py]\ntensorboard: s3://b/runs\nroles: {tensorboard: {memory: 1g}}\n")
    assert sorted((role.name, role.resources.memory_mb) for role in job.roles) == [
        ("tensorboard", 1024),
        ("worker", 2048),
    ]


def test_a_tensorboard_needs_a_folder_for_all_and_has_one_command(ask: Ask) -> None:
    assert ask.only(flags={"tensorboard": ["runs"]}).key == "tensorboard"
    twice = ask.only(job="command: [train.py]\ntensorboard: /r\nroles: {tensorboard: {command: [x]}}\n")
    assert twice.key == "tensorboard" and "command already" in twice.message


def test_too_many_tasks_together_are_refused(ask: Ask) -> None:
    found = ask.problems(flags={"role": ["a:6000", "b:6000"]})
    assert any("12000 tasks" in problem.message for problem in found)


def test_times_that_cannot_work_are_refused(ask: Ask) -> None:
    assert ask.only(sets=["times.lost=1s"]).key == "times.lost"
    assert ask.only(sets=["times.backoff_min=5m"]).key == "times.backoff_min"
    assert ask.only(flags={"queue_timeout": ["0s"]}).key == "queue_timeout"


def test_the_bits_of_gradients_are_one_of_five_words(ask: Ask) -> None:
    assert ask.job().quantize is None
    for text in ("2", "4", "8", "auto", "none"):
        assert ask.job(flags={"quantize": [text]}).quantize == text
    problem = ask.only(flags={"quantize": ["3"]})
    assert (problem.key, problem.value, problem.message) == ("quantize", "3", "must be one of 2, 4, 8, auto, none.")


@pytest.mark.parametrize(("given", "gpus", "procs"), [("auto", "4", 4), ("auto", "0", 1), ("3", "4", 3)])
def test_processes_in_each_worker(ask: Ask, given: str, gpus: str, procs: int) -> None:
    job = ask.job(flags={"roles.worker.procs_per_task": [given], "roles.worker.gpus": [gpus]})
    assert job.roles[0].procs_per_task == procs


@pytest.mark.parametrize("given", ["0", "many", "-1", "1e3", "99999"])
def test_a_number_of_processes_that_makes_no_sense_is_refused(ask: Ask, given: str) -> None:
    problems = ask.problems(flags={"roles.worker.procs_per_task": [given]})
    assert [problem.key for problem in problems] == ["roles.worker.procs_per_task"]


def test_a_site_bounds_what_one_job_may_ask_for(ask: Ask) -> None:
    asked = {"roles.worker.instances": ["8"], "roles.worker.gpus": ["4"], "roles.worker.memory": ["2g"]}
    assert ask.job(flags=asked, sets=["limits.gpus=32", "limits.memory=16g", "limits.tasks=8"])
    problems = ask.problems(flags=asked, sets=["limits.gpus=31", "limits.memory=15g", "limits.tasks=7"])
    assert [problem.message for problem in problems] == [
        "allows a job 7, and this one asks for 8.",
        "allows a job 15g, and this one asks for 16g.",
        "allows a job 31, and this one asks for 32.",
    ]
