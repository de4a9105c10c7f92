"""Tables: (job, task) → exactly what each framework adds to the common variables; and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tony.frameworks import framework, task_environment
from tony.frameworks.horovod import Place, place
from tony.spec import ClusterSpec, Endpoint, JobSpec, RestartPolicy, RestartSpec, RoleSpec, TaskId

EXTRA = {"application_id": "application_1_0001"}


def job_of(kind: str, **instances: int) -> JobSpec:
    """Tracked roles, but for ps and evaluator, and for a sidecar named board."""
    roles = (
        RoleSpec(name, ("train.py",), count, untracked=name in ("ps", "evaluator"), sidecar=name == "board")
        for name, count in instances.items()
    )
    return JobSpec("a job", tuple(roles), kind)


def own_environment(job: JobSpec, task: str, extra: dict[str, str] = EXTRA) -> dict[str, str]:
    cluster = ClusterSpec(1, {one: Endpoint("n1", 4000 + place) for place, one in enumerate(job.tasks())})
    return framework(job.framework).environment(TaskId.parse(task), cluster, job, extra)


PARAMETER_SERVER = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1, "board": 1}
PARAMETER_SERVER_CLUSTER = {"chief": ["n1:4000"], "worker": ["n1:4001", "n1:4002"], "ps": ["n1:4003"]}
MIRRORED_CLUSTER = {"worker": ["n1:4000", "n1:4001"]}


@pytest.mark.parametrize(
    ("roles", "task", "members"),
    [
        (PARAMETER_SERVER, "chief:0", PARAMETER_SERVER_CLUSTER),
        (PARAMETER_SERVER, "worker:1", PARAMETER_SERVER_CLUSTER),
        (PARAMETER_SERVER, "ps:0", PARAMETER_SERVER_CLUSTER),
        (PARAMETER_SERVER, "evaluator:0", PARAMETER_SERVER_CLUSTER),
        ({"worker": 2}, "worker:0", MIRRORED_CLUSTER),
        ({"worker": 2}, "worker:1", MIRRORED_CLUSTER),
    ],
)
def test_tensorflow_finds_its_cluster_without_the_evaluator(
    roles: dict[str, int], task: str, members: dict[str, list[str]]
) -> None:
    environment = own_environment(job_of("tensorflow", **roles), task)
    assert list(environment) == ["TF_CONFIG"]
    identity = TaskId.parse(task)
    assert json.loads(environment["TF_CONFIG"]) == {
        "cluster": members,
        "task": {"type": identity.role, "index": identity.index},
    }


def test_tensorflow_tells_nothing_to_a_role_that_it_does_not_know() -> None:
    assert own_environment(job_of("tensorflow", **PARAMETER_SERVER), "board:0") == {}


def torch_environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "MASTER_ADDR": "n1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": str(rank),
        "INIT_METHOD": f"tcp://n1:{port}",
    }


@pytest.mark.parametrize(
    ("roles", "task", "expected"),
    [
        ({"worker": 3}, "worker:0", torch_environment(0, 3, 4000)),
        ({"worker": 3}, "worker:2", torch_environment(2, 3, 4000)),
        ({"worker": 2, "chief": 1}, "chief:0", torch_environment(0, 3, 4002)),
        ({"worker": 2, "chief": 1}, "worker:1", torch_environment(2, 3, 4002)),
        ({"board": 1, "worker": 1}, "worker:0", torch_environment(0, 1, 4001)),
        ({"board": 1, "worker": 1}, "board:0", {}),
        ({"ps": 1}, "ps:0", {}),
    ],
)
def test_pytorch_finds_rank_0_and_its_own_rank(roles: dict[str, int], task: str, expected: dict[str, str]) -> None:
    assert own_environment(job_of("pytorch", **roles), task) == expected


MEETING = {**EXTRA, "rendezvous_address": "n1:5000/invitation", "rendezvous_port": "5000"}


def horovod_environment(rank: int, size: int, host: str) -> dict[str, str]:
    return {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "n1:5000/invitation",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "5000",
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(size),
        "HOROVOD_LOCAL_RANK": "0",
        "HOROVOD_LOCAL_SIZE": "1",
        "HOROVOD_CROSS_RANK": str(rank),
        "HOROVOD_CROSS_SIZE": str(size),
        "HOROVOD_HOSTNAME": host,
        "HOROVOD_ELASTIC": "1",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
    }


@pytest.mark.parametrize(
    ("roles", "task", "expected"),
    [
        ({"worker": 3}, "worker:0", horovod_environment(0, 3, "worker-0")),
        ({"worker": 2, "chief": 1}, "worker:1", horovod_environment(2, 3, "worker-1")),
        ({"worker": 2, "evaluator": 1}, "evaluator:0", {}),
    ],
)
def test_every_rank_of_horovod_is_alone_on_a_host_of_its_own(
    roles: dict[str, int], task: str, expected: dict[str, str]
) -> None:
    assert own_environment(job_of("horovod", **roles), task, MEETING) == expected


def test_a_horovod_job_may_choose_how_long_ranks_wait_for_each_other() -> None:
    job = replace(job_of("horovod", worker=2), env={"HOROVOD_GLOO_TIMEOUT_SECONDS": "600"})
    assert "HOROVOD_GLOO_TIMEOUT_SECONDS" not in own_environment(job, "worker:0", MEETING)


def test_several_horovod_processes_of_a_task_share_its_host() -> None:
    job = JobSpec("a job", (RoleSpec("worker", ("train.py",), 3, procs_per_task=4),), "horovod")
    cluster = ClusterSpec(1, {one: Endpoint("n1", 4000) for one in job.tasks()})
    assert place(TaskId("worker", 1), cluster, job) == Place(4, 12, 4, 1, 3, "worker-1")
    found = own_environment(job, "worker:2", MEETING)
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
    assert [found[f"HOROVOD_{name}"] for name in names] == ["8", "12", "0", "4", "2", "3"]


def test_all_tasks_of_horovod_have_as_many_processes() -> None:
    roles = (RoleSpec("chief", ("train.py",)), RoleSpec("worker", ("train.py",), 2, procs_per_task=2))
    problems = framework("horovod").check(JobSpec("a job", roles, "horovod"))
    assert [problem.key for problem in problems] == ["roles.worker.procs_per_task"]


def test_a_horovod_rank_cannot_be_restarted_alone() -> None:
    job = replace(job_of("horovod", worker=2), restart=RestartSpec(RestartPolicy.TASK))
    assert [problem.key for problem in framework("horovod").check(job)] == ["restart.policy"]


@pytest.mark.parametrize("task", ["scheduler:0", "server:1", "worker:2"])
def test_mxnet_finds_its_scheduler(task: str) -> None:
    job = job_of("mxnet", server=2, scheduler=1, worker=3, board=1)
    assert own_environment(job, task) == {
        "DMLC_ROLE": TaskId.parse(task).role,
        "DMLC_PS_ROOT_URI": "n1",
        "DMLC_PS_ROOT_PORT": "4002",
        "DMLC_LOCAL": "0",
        "DMLC_NUM_SERVER": "2",
        "DMLC_NUM_WORKER": "3",
    }
    assert own_environment(job, "board:0") == {}


def test_standalone_adds_nothing() -> None:
    assert own_environment(job_of("standalone", worker=1), "worker:0") == {}


def test_auto_gives_the_variables_of_tensorflow_pytorch_and_horovod_at_once() -> None:
    roles = {"worker": 2, "ps": 1}
    together = own_environment(job_of("auto", **roles), "worker:1", MEETING)
    parts = own_environment(job_of("tensorflow", **roles), "worker:1"), torch_environment(1, 2, 4000)
    assert together == parts[0] | parts[1] | horovod_environment(1, 2, "worker-1")


def test_what_the_application_master_asks_for_is_the_common_and_the_own_part() -> None:
    job = job_of("pytorch", worker=2)
    cluster = ClusterSpec(1, {task: Endpoint("n1", 4000) for task in job.tasks()})
    environment = task_environment(TaskId("worker", 1), cluster, job, EXTRA)
    assert environment["TONY_RANK"] == environment["RANK"] == "1"
    assert environment["MASTER_ADDR"] == "n1"
    assert "TF_CONFIG" not in environment


@pytest.mark.parametrize(
    ("kind", "roles", "keys"),
    [
        ("auto", {"anything": 3}, []),
        ("tensorflow", {"worker": 2}, []),
        ("tensorflow", PARAMETER_SERVER, []),
        ("tensorflow", {"chief": 2, "worker": 1}, ["roles.chief.instances"]),
        ("tensorflow", {"worker": 1, "evaluator": 2}, ["roles.evaluator.instances"]),
        ("tensorflow", {"chief": 2, "evaluator": 2}, ["roles.chief.instances", "roles.evaluator.instances"]),
        ("tensorflow", {"ps": 2}, ["roles"]),
        ("tensorflow", {"trainer": 2}, ["roles"]),
        ("tensorflow", {"worker": 5000}, ["roles"]),
        ("pytorch", {"trainer": 2}, []),
        ("pytorch", {"ps": 2, "board": 1}, ["roles"]),
        ("horovod", {"trainer": 2}, []),
        ("horovod", {"ps": 2, "board": 1}, ["roles"]),
        ("mxnet", {"scheduler": 1, "server": 2, "worker": 2}, []),
        ("mxnet", {"worker": 2}, ["roles.scheduler", "roles.server"]),
        ("mxnet", {"scheduler": 2, "server": 1, "worker": 1}, ["roles.scheduler.instances"]),
        ("standalone", {"worker": 1}, []),
        ("standalone", {"worker": 1, "board": 1}, []),
        ("standalone", {"worker": 2}, ["roles"]),
        ("standalone", {"chief": 1, "ps": 1}, ["roles"]),
        ("standalone", {"board": 1}, ["roles"]),
    ],
)
def test_a_framework_says_which_roles_it_cannot_run_with(kind: str, roles: dict[str, int], keys: list[str]) -> None:
    problems = framework(kind).check(job_of(kind, **roles))
    assert [problem.key for problem in problems] == keys
    assert all(problem.hint for problem in problems)
