"""Several processes in one task: their ranks, and who cannot."""

from __future__ import annotations

import pytest

from tony.frameworks import framework, task_environment
from tony.spec import ClusterSpec, Endpoint, JobSpec, RoleSpec, TaskId

EXTRA = {"application_id": "application_1_0001"}


def job(*roles: RoleSpec, name: str) -> JobSpec:
    return JobSpec("a job", roles, name)


def cluster(job: JobSpec) -> ClusterSpec:
    return ClusterSpec(1, {task: Endpoint("n1", 4000 + place) for place, task in enumerate(job.tasks())})


def workers(count: int, procs: int, *command: str) -> RoleSpec:
    return RoleSpec("worker", command or ("train.py", "-v"), count, procs_per_task=procs)


def test_ranks_of_tasks_leave_room_for_their_processes() -> None:
    asked = job(RoleSpec("chief", ("train.py",), procs_per_task=2), workers(2, 4), name="auto")
    seen = {}
    for task in asked.tasks():
        found = task_environment(task, cluster(asked), asked, EXTRA)
        seen[str(task)] = [
            found[name] for name in ("TONY_RANK", "TONY_WORLD_SIZE", "TONY_LOCAL_WORLD_SIZE", "RANK", "GROUP_RANK")
        ]
    assert seen == {
        "chief:0": ["0", "10", "2", "0", "0"],
        "worker:0": ["2", "10", "4", "2", "1"],
        "worker:1": ["6", "10", "4", "6", "2"],
    }


@pytest.mark.parametrize("name", ["tensorflow", "mxnet"])
def test_a_framework_with_one_address_for_each_process_refuses(name: str) -> None:
    problems = framework(name).check(job(workers(2, 2), name=name))
    assert "roles.worker.procs_per_task" in {problem.key for problem in problems}


def test_tensorflow_is_told_nothing_that_would_be_wrong_for_several_processes() -> None:
    asked = job(workers(2, 2), name="auto")
    assert "TF_CONFIG" not in task_environment(TaskId("worker", 0), cluster(asked), asked, EXTRA)
