"""The variables that every user process gets, and who has which rank."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tony.errors import UsageError
from tony.frameworks import common_environment, framework, names, peers, ranked, task_environment
from tony.frameworks.base import MAX_VALUE_BYTES
from tony.spec import ClusterSpec, Endpoint, JobSpec, RoleSpec, TaskId

EXTRA = {"application_id": "application_1_0001"}


def role(name: str, instances: int = 1, *, untracked: bool = False, sidecar: bool = False) -> RoleSpec:
    return RoleSpec(name, ("train.py",), instances, untracked=untracked, sidecar=sidecar)


def job_of(*roles: RoleSpec, framework: str = "auto") -> JobSpec:
    return JobSpec("a job", roles, framework)


def cluster_of(job: JobSpec, generation: int = 1) -> ClusterSpec:
    """Two tasks on each host; ports from 4000 in the order of the job."""
    return ClusterSpec(
        generation, {task: Endpoint(f"n{place // 2}", 4000 + place) for place, task in enumerate(job.tasks())}
    )


PS_JOB = job_of(role("ps", untracked=True), role("worker", 2), role("chief"), role("board", sidecar=True))
PS_TABLE = '{"ps": ["n0:4000"], "worker": ["n0:4001", "n1:4002"], "chief": ["n1:4003"], "board": ["n2:4004"]}'


@pytest.mark.parametrize(
    ("task", "extra", "own"),
    [
        (
            "chief:0",
            {"incarnation": "2", "checkpoint_dir": "hdfs://n/c", "tensorboard_port": "6006"},
            {
                "TONY_RANK": "0",
                "TONY_INCARNATION": "2",
                "TONY_IS_CHIEF": "true",
                "TONY_CHECKPOINT_DIR": "hdfs://n/c",
                "RANK": "0",
                "WORLD": "3",
                "IS_CHIEF": "true",
                "TB_PORT": "6006",
            },
        ),
        (
            "worker:1",
            {"tensorboard_port": "6006", "checkpoint_dir": ""},
            {"TONY_RANK": "2", "TONY_INCARNATION": "1", "TONY_IS_CHIEF": "false", "RANK": "2", "WORLD": "3"},
        ),
        ("ps:0", {}, {"TONY_RANK": "-1", "TONY_INCARNATION": "1", "TONY_IS_CHIEF": "false"}),
        ("board:0", {}, {"TONY_RANK": "-1", "TONY_INCARNATION": "1", "TONY_IS_CHIEF": "false"}),
    ],
)
def test_every_task_gets_exactly_these_variables(task: str, extra: dict[str, str], own: dict[str, str]) -> None:
    identity = TaskId.parse(task)
    assert common_environment(identity, cluster_of(PS_JOB, generation=3), PS_JOB, EXTRA | extra) == own | {
        "TONY_APPLICATION_ID": "application_1_0001",
        "TONY_ROLE": identity.role,
        "TONY_INDEX": str(identity.index),
        "TONY_WORLD_SIZE": "3",
        "TONY_LOCAL_RANK": "0",
        "TONY_LOCAL_WORLD_SIZE": "1",
        "TONY_GENERATION": "3",
        "TONY_CLUSTER_SPEC": PS_TABLE,
        "JOB_NAME": identity.role,
        "TASK_INDEX": str(identity.index),
        "TASK_NUM": "3",
        "JOB_ID": "application_1_0001",
        "SESSION_ID": "2",
        "DISTRIBUTED_MODE": "GANG",
        "CLUSTER_SPEC": PS_TABLE,
        "INIT_METHOD": "tcp://n1:4003",
    }


@pytest.mark.parametrize(
    ("roles", "order"),
    [
        ([role("worker", 3)], "worker:0 worker:1 worker:2"),
        ([role("worker", 2), role("chief")], "chief:0 worker:0 worker:1"),
        ([role("actor", 2), role("learner"), role("worker")], "worker:0 actor:0 actor:1 learner:0"),
        ([role("ps"), role("evaluator"), role("worker")], "worker:0"),
        ([role("scheduler"), role("server"), role("worker")], "worker:0"),
        ([role("chief"), role("worker", 2, untracked=True), role("board", sidecar=True)], "chief:0"),
        ([role("ps", untracked=True)], ""),
    ],
)
def test_ranks_count_the_training_tasks_from_the_chief_on(roles: list[RoleSpec], order: str) -> None:
    job = job_of(*roles)
    assert " ".join(map(str, ranked(job, job.tasks()))) == order


def test_ten_workers_are_numbered_as_numbers_and_not_as_text() -> None:
    job = job_of(role("worker", 12))
    assert [task.index for task in ranked(job, reversed(job.tasks()))] == list(range(12))


def test_only_the_tasks_of_the_stage_are_counted() -> None:
    job = job_of(role("prepare"), role("worker", 2))
    stage = ClusterSpec(1, {TaskId("worker", index): Endpoint("n0", 4000 + index) for index in (0, 1)})
    environment = common_environment(TaskId("worker", 1), stage, job, EXTRA)
    assert environment["TONY_WORLD_SIZE"] == environment["TASK_NUM"] == "2"
    assert json.loads(environment["CLUSTER_SPEC"]) == {"worker": ["n0:4000", "n0:4001"]}


def test_a_new_cluster_spec_is_not_mistaken_for_the_one_before() -> None:
    job = job_of(role("worker", 2))
    worker = TaskId("worker", 0)
    before = common_environment(worker, cluster_of(job), job, EXTRA)
    moved = ClusterSpec(2, {task: Endpoint("other", 5000) for task in job.tasks()})
    after = common_environment(worker, moved, job, EXTRA)
    assert (before["INIT_METHOD"], after["INIT_METHOD"]) == ("tcp://n0:4000", "tcp://other:5000")
    assert (before["TONY_GENERATION"], after["TONY_GENERATION"]) == ("1", "2")


def test_the_tensorboard_role_gets_the_port_though_it_has_no_rank() -> None:
    job = job_of(role("worker"), role("tensorboard", sidecar=True))
    extra = EXTRA | {"tensorboard_port": "6006"}
    assert common_environment(TaskId("tensorboard", 0), cluster_of(job), job, extra)["TB_PORT"] == "6006"


def test_the_table_of_endpoints_is_written_once_for_all_tasks_of_a_release() -> None:
    cluster = cluster_of(PS_JOB)
    one, other = (common_environment(TaskId("worker", index), cluster, PS_JOB, EXTRA) for index in (0, 1))
    assert one["CLUSTER_SPEC"] is other["CLUSTER_SPEC"]


@pytest.mark.parametrize("port", ["", "0"])
def test_without_a_tensorboard_port_there_is_no_variable_for_it(port: str) -> None:
    environment = common_environment(
        TaskId("chief", 0), cluster_of(PS_JOB), PS_JOB, EXTRA | {"tensorboard_port": port}
    )
    assert "TB_PORT" not in environment


def test_no_variable_is_too_long_for_a_process_to_start() -> None:
    job = job_of(role("worker", 10_000))
    environment = task_environment(TaskId("worker", 9_999), cluster_of(job), job, EXTRA)
    assert max(map(len, environment.values())) <= MAX_VALUE_BYTES
    assert environment["RANK"] == "9999"
    assert not {"CLUSTER_SPEC", "TONY_CLUSTER_SPEC", "TF_CONFIG"} & set(environment)


def test_a_task_that_is_not_in_the_cluster_spec_has_no_environment() -> None:
    with pytest.raises(KeyError):
        common_environment(TaskId("worker", 9), cluster_of(PS_JOB), PS_JOB, EXTRA)


def test_the_default_framework_is_named_first() -> None:
    assert names() == ["auto", "tensorflow", "pytorch", "horovod", "mxnet", "standalone"]
    assert [framework(name).name for name in names()] == names()


def test_an_unknown_framework_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        framework("tensorfow")
    assert caught.value.problems[0].hint == 'Did you mean "tensorflow"?'
    with pytest.raises(UsageError) as caught:
        framework("caffe")
    assert "auto, tensorflow" in (caught.value.problems[0].hint or "")


def test_scripts_are_told_how_many_bits_a_gradient_may_have() -> None:
    job = job_of(RoleSpec("worker", ("train.py",)))
    cluster = ClusterSpec(1, {TaskId("worker", 0): Endpoint("n1", 4000)})
    extra = {"application_id": "application_1_0001"}
    assert "TONY_QUANTIZE" not in common_environment(TaskId("worker", 0), cluster, job, extra)
    asked = replace(job, quantize="4")
    assert common_environment(TaskId("worker", 0), cluster, asked, extra)["TONY_QUANTIZE"] == "4"


def test_every_task_looks_for_the_chief_and_the_next_rank_so_that_all_are_looked_for() -> None:
    job = job_of(role("worker", 4), role("board", sidecar=True))
    tasks = [TaskId("worker", index) for index in range(4)]
    cluster = ClusterSpec(1, {task: Endpoint(f"n{task.index}", 7000) for task in [*tasks, TaskId("board", 0)]})
    found = [peers(task, cluster, job) for task in tasks]
    assert found == [
        {"worker:1": "n1:7000"},
        {"worker:0": "n0:7000", "worker:2": "n2:7000"},
        {"worker:0": "n0:7000", "worker:3": "n3:7000"},
        {"worker:0": "n0:7000"},
    ]
    assert peers(TaskId("board", 0), cluster, job) == {}
    alone = ClusterSpec(1, {tasks[0]: Endpoint("n0", 7000)})
    assert peers(tasks[0], alone, job) == {}
    assert peers(tasks[0], cluster, replace(job, framework="standalone")) == {}
    assert peers(tasks[0], cluster, replace(job, check_peers=False)) == {}
