"""From an operator's parameters to the job that the command line would make of its flags."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.provider_jobs import Instance
from tony.airflow.hook import Place
from tony.airflow.identity import Identity
from tony.airflow.parameters import PARAMETERS, Asking, asked_by
from tony.asked import Asked
from tony.errors import UsageError
from tony.idempotency import tag_of
from tony.problems import error_lines


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("")
    return tmp_path


def asked(dags: Path, place: Place | None = None, settings: dict[str, Any] | None = None, **values: Any) -> Asked:
    more = {key: values.pop(key) for key in ("script_args", "job_file", "job_document") if key in values}
    script = None if "job_file" in more else values.pop("script", "train.py")
    asking = Asking("dag.train", dags, values, settings or {}, script=script, **more)
    return asked_by(asking, place or Place())


def test_parameters_mean_what_the_flags_mean(dags: Path) -> None:
    job = asked(
        dags,
        script_args=["--epochs", 3, "a b", "[x]"],
        workers="4",
        memory="1g",
        chief=True,
        evaluator=False,
        roles=["board:1:512m"],
        env={"A": 1, "B": "x=y"},
        tags=["[odd]"],
        max_duration=timedelta(hours=2),
        settings={"exclusion.failures": 5, "check_peers": True, "roles.worker.env": {"C": "ü"}},
    ).resolved.job
    sizes = {role.name: role.instances for role in job.roles}
    assert sizes == {"chief": 1, "worker": 4, "board": 1}
    worker = next(role for role in job.roles if role.name == "worker")
    assert worker.command == ("train.py", "--epochs", "3", "a b", "[x]")
    assert worker.resources.memory_mb == 1024 and worker.env == {"C": "ü"}
    assert job.env == {"A": "1", "B": "x=y"} and job.tags == ("[odd]",)
    assert job.times.duration_s == 7200.0 and job.exclusion.failures == 5 and job.check_peers


def test_every_parameter_is_a_flag(dags: Path) -> None:
    from tony.airflow.parameters import _key

    assert all(_key(name).flag for name in PARAMETERS)


def test_a_task_does_not_ship_airflows_own_environment(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    assert asked(dags).resolved.job.python.environment == "none"
    assert asked(dags, venv="auto").resolved.job.python.environment == "auto"
    assert asked(dags, python="/usr/bin/python3").resolved.job.python.interpreter == "/usr/bin/python3"


def test_a_job_is_called_like_its_task_unless_it_has_a_name(dags: Path) -> None:
    assert asked(dags).resolved.job.name == "dag.train"
    assert asked(dags, name="mine").resolved.job.name == "mine"
    odd = asked_by(Asking("d\u00e4g\u00ad\u202e" * 60, dags, {}, {}, script="train.py"), Place())
    assert odd.resolved.job.name == ("d\u00e4g??" * 60)[:200]


def test_the_connections_queue_is_for_those_who_name_none(dags: Path) -> None:
    place = Place("connection c", queue="research")
    assert asked(dags, place).resolved.job.queue == "research"
    assert asked(dags, place, yarn_queue="prod").resolved.job.queue == "prod"
    document = {"queue": "file", "command": ["train.py"]}
    job = asked(dags, place, job_file=Path("job_file"), job_document=document).resolved.job
    assert job.queue == "file" and job.source == str(dags)


def test_a_job_file_of_plain_values_keeps_every_character(dags: Path) -> None:
    odd = "a\u2028b \U0001f600 \x7f # : {x}"
    document = {"command": ["train.py", odd], "roles": {"worker": {"instances": 2}}, "env": {"K": odd}}
    job = asked(dags, job_file=Path("job_file"), job_document=document).resolved.job
    assert job.roles[0].command == ("train.py", odd) and job.env["K"] == odd


def test_problems_name_the_parameter_the_line_and_the_task(dags: Path) -> None:
    with pytest.raises(UsageError) as caught:
        asked(dags, memory="4 gigs", job_file=Path("job.yaml"), job_document="command: [train.py]\nwrokers: 3\n")
    text = "\n".join(error_lines(caught.value))
    assert "--memory of the task dag.train" in text and "job.yaml:2" in text and "4 gigs" in text


def test_a_text_is_not_taken_apart_into_arguments(dags: Path) -> None:
    with pytest.raises(UsageError, match="must be a list"):
        asked(dags, script_args="--epochs 3")


def test_secrets_may_be_given_by_value_and_are_not_in_the_job(dags: Path) -> None:
    made = asked(dags, secrets={"TOKEN": "s3cr3t"})
    assert made.resolved.secrets == {"TOKEN": "s3cr3t"} and made.resolved.job.secrets == ("TOKEN",)
    assert "s3cr3t" not in repr(made.resolved.job) and "s3cr3t" not in repr(made.resolved)


def test_secrets_may_be_names_of_the_workers_environment(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    assert asked(dags, secrets=["TOKEN"]).resolved.secrets == {"TOKEN": "s3cr3t"}
    assert asked(dags, secrets="TOKEN").resolved.secrets == {"TOKEN": "s3cr3t"}


@pytest.mark.parametrize("durable", [True, False])
def test_tries_share_a_key_until_the_task_is_cleared(durable: bool) -> None:
    first = Identity.of(Instance(try_number=1, max_tries=2), 2, durable)
    second = Identity.of(Instance(try_number=2, max_tries=2), 2, durable)
    cleared = Identity.of(Instance(try_number=3, max_tries=4), 2, durable)
    assert (first == second) is durable
    assert first.key != cleared.key != second.key
    assert first.tag == second.tag == cleared.tag
    assert first.key_tag == tag_of(first.key)


@pytest.mark.parametrize(
    "other",
    [
        Instance(dag_id="dag2"),
        Instance(task_id="tra", run_id="in__manual__2026"),
        Instance(run_id="x"),
        Instance(map_index=0),
        Instance(dag_id="d\u00e4g\U0001f600\u202e"),
        Instance(dag_id="\ud800"),
        Instance(dag_id='","'),
    ],
)
def test_other_task_instances_have_other_keys_and_tags(other: Instance) -> None:
    one, two = Identity.of(Instance(), 0), Identity.of(other, 0)
    assert one.tag != two.tag and one.key != two.key
    assert two.tag.isascii() and two.tag == two.tag.lower() and len(two.tag) <= 50
    assert two.key_tag.isascii()


def test_a_namespace_tells_installations_apart() -> None:
    assert Identity.of(Instance(), 0, namespace="a") != Identity.of(Instance(), 0, namespace="b")


def test_more_or_fewer_retries_in_an_edited_dag_are_no_clearing() -> None:
    assert Identity.of(Instance(max_tries=2), 5) == Identity.of(Instance(max_tries=2), 2)
