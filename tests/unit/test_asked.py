"""A request that does not come from a command line: its words, and a job file that is not read from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tony.asked import ask
from tony.config.layers import Request
from tony.errors import UsageError
from tony.problems import error_lines


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "train.py").write_text("")
    return tmp_path


def request(folder: Path, document: object, **more: object) -> Request:
    return Request(job_file=Path("job.yaml"), job_document=document, environ={}, folder=folder, **more)  # type: ignore[arg-type]


def test_a_job_files_text_may_be_given_and_its_paths_start_at_the_file(code: Path) -> None:
    job = ask(request(code, "command: [train.py, x]\nroles: {worker: {instances: 3}}\n")).resolved.job
    assert job.source == str(code) and job.roles[0].command == ("train.py", "x") and job.roles[0].instances == 3


def test_plain_values_are_a_job_file_too(code: Path) -> None:
    document = {
        "command": ["train.py", 1, 0.5, None, "a: b # c"],
        "check_peers": True,
        "roles": {"worker": None, "ps": {"instances": 2}},
        "env": {"EMPTY": ""},
    }
    with pytest.raises(UsageError):
        ask(request(code, document))
    document["command"] = ["train.py", 1, 0.5, "a: b # c"]
    job = ask(request(code, document)).resolved.job
    assert job.roles[0].command == ("train.py", "1", "0.5", "a: b # c")
    assert job.check_peers and {role.name: role.instances for role in job.roles} == {"worker": 1, "ps": 2}
    assert job.env == {"EMPTY": ""}


def test_problems_say_who_asked_and_where_in_the_text(code: Path) -> None:
    asked = request(code, "command: [train.py]\nwrokers: 2\n", flags={"queue": ["a b"]}, caller="of the task t")
    with pytest.raises(UsageError) as caught:
        ask(asked)
    text = "\n".join(error_lines(caught.value))
    assert "--queue of the task t" in text and "job.yaml:2" in text


def test_plain_values_have_no_lines_to_name(code: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ask(request(code, {"command": ["train.py"], "wrokers": 2}))
    assert [problem.origin for problem in caught.value.problems] == ["job.yaml"]
