"""The words of errors: what happened, where it came from, what to do; at most eight lines for one problem."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from tony.asked import ask
from tony.cli.failure import failure_document, failure_lines
from tony.cli.main import main
from tony.config.layers import Request
from tony.errors import NoSuchJob, Problem, Refused, Unreachable, UsageError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a script, no cluster, and nobody's settings."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    monkeypatch.chdir(folder)
    for name in ("HADOOP_CONF_DIR", "TONY_SITE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TONY_STATE_DIR", "TONY_CACHE_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def golden(text: str) -> str:
    return dedent(text).lstrip("\n")


def test_two_problems_of_two_origins(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    lines = ["name: x", "command: [train.py]", "", "roles:", "  worker:", "    instances: 2", "    memory: 4 gigs"]
    (place / "job.yaml").write_text("\n".join(lines) + "\n")
    assert said(capsys, "submit", "-f", "job.yaml", "-c", "roles.wroker.instances=2") == (
        2,
        golden("""
        error: 2 problems in job.yaml

          roles.worker.memory = "4 gigs"               job.yaml:7
              not a size. Write a number and a unit, like 4g or 4096m.
          roles.wroker.instances = 2                   -c on the command line
              no role "wroker". Did you mean "worker"?

        Nothing was uploaded or submitted.
        """),
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("--workers", "0", "train.py"),
            """
            error: 1 problem

              roles.worker.instances = 0                   --workers on the command line
                  out of range: it must be a whole number from 1 to 10000.

            Nothing was uploaded or submitted.
            """,
        ),
        (
            ("--memory", "4", "train.py"),
            """
            error: 1 problem

              roles.worker.memory = 4                      --memory on the command line
                  a size needs a unit. Write 4g or 4m.

            Nothing was uploaded or submitted.
            """,
        ),
        (
            ("--name", "{{ ds }}", "train.py"),
            """
            error: 1 problem

              name = "{{ ds }}"                            --name on the command line
                  holds the leftover of a template. A template was not rendered (Airflow:
                  is the field in template_fields?).

            Nothing was uploaded or submitted.
            """,
        ),
        (
            ("--queue", "None", "train.py"),
            """
            error: 1 problem

              queue = "None"                               --queue on the command line
                  is the word None. A template or a script's variable was empty. Leave the
                  setting out, or give it a value.

            Nothing was uploaded or submitted.
            """,
        ),
        (
            ("trian.py",),
            """
            error: 1 problem

              command = "trian.py"                         on the command line
                  no such script. Did you mean 'train.py'?

            Nothing was uploaded or submitted.
            """,
        ),
        (
            ("train.py",),
            """
            error: 1 problem

              cluster
                  no cluster is known.
                  Three ways to name one:
                      export HADOOP_CONF_DIR=/etc/hadoop/conf     the cluster whose configuration lies there
                      tony cluster start                          a real YARN and HDFS on this machine
                      --cluster local                             processes of this machine, no Java

            Nothing was uploaded or submitted.
            """,
        ),
        (
            (),
            """
            error: 1 problem

              command
                  no script was given. tony submit [FLAGS] SCRIPT -- ARGS, or -f job.yaml

            Nothing was uploaded or submitted.
            """,
        ),
    ],
)
def test_canonical_mistakes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    code, words = said(capsys, "submit", *arguments)
    assert (code, words) == (2, golden(text))


def test_arguments_of_the_script_before_the_dashes_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = said(capsys, "submit", "--workers", "2", "train.py", "--epochs", "3")
    assert code == 2
    assert "The script's own arguments go behind --, like: train.py -- --epochs" in words


def test_gpus_that_are_not_there_are_refused_before_anything(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = said(capsys, "submit", "--cluster", "local", "--gpus", "1000", "train.py")
    assert code == 3
    assert words.startswith("error: the cluster could never run this: 1 problem\n")
    assert "roles.worker.gpus = 1000                     --gpus on the command line" in words
    assert words.endswith("Nothing was uploaded or submitted.\n")


def test_a_refusal_of_the_cluster_names_where_the_value_came_from(place: Path) -> None:
    flags = {"roles.worker.instances": ["2"], "roles.worker.gpus": ["4"], "node_label": ["x"], "am.attempts": ["2"]}
    asked = ask(Request(script="train.py", flags=flags | {"roles.chief.instances": ["1"]}, environ={}))
    keys = (
        "roles.worker.gpus",
        "roles.chief.gpus",
        "roles.worker.node_label",
        "am.node_label",
        "am_attempts",
        "roles.worker.memory",
    )
    located = asked.located(Refused([Problem(key, "bad") for key in keys]))
    assert [problem.origin for problem in located.problems] == [
        "--gpus on the command line",
        "--gpus on the command line",
        "--node-label on the command line",
        "--node-label on the command line",
        "--am-attempts on the command line",
        None,
    ]


def test_unknown_commands_and_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = said(capsys, "sumbit")
    assert code == 2 and 'no command "sumbit". Did you mean "submit"?' in words
    code, words = said(capsys, "status")
    assert code == 102 and "no job was submitted from here" in words
    code, words = said(capsys, "wait", "local_1_0001")
    assert (code, words) == (102, "error: no job local_1_0001 on this machine\n  tony ls --all lists them.\n")


def test_json_errors_are_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--json", "--workers", "x", "train.py"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["exit_code"], document["error"]) == ("tony.error/1", 2, "UsageError")
    (problem,) = document["problems"]
    assert (problem["key"], problem["value"]) == ("roles.worker.instances", "x")


def test_foreign_text_in_errors_is_harmless() -> None:
    lines = failure_lines(UsageError([Problem("name", "bad", value="\x1b]0;x\x07\n$(x)", origin="job.yaml:1")]))
    assert not any("\x1b" in line or "\x07" in line for line in lines)
    assert len(lines) == 4


def test_a_plain_error_has_its_hint_below() -> None:
    lines = failure_lines(Unreachable("the resource manager does not answer", hint="Is HADOOP_CONF_DIR right?"), True)
    assert lines == [
        "error: the resource manager does not answer",
        "  Is HADOOP_CONF_DIR right?",
        "Nothing was uploaded or submitted.",
    ]


def test_defects_are_admitted() -> None:
    lines = failure_lines(ZeroDivisionError("x"))
    assert lines[0] == "error: unexpected ZeroDivisionError: x" and "-v" in lines[1]


def test_the_document_of_an_error_names_its_class() -> None:
    assert failure_document(NoSuchJob("x"), 102)["error"] == "NoSuchJob"
    refused = failure_document(Refused([Problem("queue", "no such queue.", "q")]), 3)
    assert refused["problems"] == [
        {"key": "queue", "value": "q", "origin": None, "message": "no such queue.", "hint": None}
    ]


def test_many_problems_are_bounded() -> None:
    lines = failure_lines(UsageError([Problem(f"k{i}", "bad") for i in range(100)]))
    assert lines[-1] == "  and 80 more" and len(lines) < 50
