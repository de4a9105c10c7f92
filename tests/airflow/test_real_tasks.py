"""Tasks in a whole Airflow: scheduler, workers, triggerer, API server and DAG processor, as their users have them."""

from __future__ import annotations

import json
import time

import pytest

from tests.airflow.standing import Airflow, Task
from tests.airflow.world import World, identity, wait_for

pytestmark = pytest.mark.timeout(900)

END_S = 150.0
_OVER = ("success", "failed")


def run_of(name: str) -> str:
    """A run's id that no other has."""
    return f"{name}-{time.time_ns():x}"


def end_of(task: Task) -> str:
    """Its last state."""
    wait_for(lambda: task.state in _OVER, f"the end of {task.dag}", END_S, 0.2)
    return task.state


def test_a_job_that_succeeds_leaves_a_small_result(standing: Airflow, world: World) -> None:
    run = run_of("succeeds")
    task = standing.trigger("waits", run, seconds=1)
    assert end_of(task) == "success", task.log(1)
    (application,) = world.applications(identity("waits", run, 3).tag)
    assert application.final == "SUCCEEDED"
    result = task.xcom()
    assert (result["schema"], result["application_id"], result["state"]) == (
        "tony.job/1",
        application.id,
        "SUCCEEDED",
    )
    assert len(json.dumps(result)) <= 4096
    assert task.xcom("application_id") == application.id


@pytest.mark.parametrize("dag", ["user_failure", "user_failure_deferred"])
def test_a_failure_of_the_users_code_is_shown_and_not_tried_again(dag: str, standing: Airflow, world: World) -> None:
    run = run_of(dag)
    task = standing.trigger(dag, run)
    assert end_of(task) == "failed"
    assert task.now()["try_number"] == 1
    assert len(world.applications(identity(dag, run, 3).tag)) == 1
    log = task.log(1)
    assert "Traceback (most recent call last)" in log
    assert "No module named 'module_that_nobody_has'" in log


def test_a_failure_of_the_cluster_is_tried_again_with_a_new_application(standing: Airflow, world: World) -> None:
    run = run_of("lost")
    task = standing.trigger("lost", run)
    assert end_of(task) == "failed"
    assert task.now()["try_number"] == 2
    applications = world.applications(identity("lost", run, 1).tag)
    assert [one.final for one in applications] == ["FAILED", "FAILED"]


def test_a_deferred_task_survives_the_triggerers_death(standing: Airflow, world: World) -> None:
    run = run_of("survives")
    tag = identity("defers", run, 3).tag
    task = standing.trigger("defers", run, seconds=20)
    wait_for(lambda: task.state == "deferred", "deferral", END_S)
    wait_for(lambda: [one for one in world.applications(tag) if one.state == "RUNNING"], "a running job", END_S)
    standing.kill_component("triggerer")
    standing.start_component("triggerer")
    assert end_of(task) == "success", task.log(1)
    (application,) = world.applications(tag)
    assert task.xcom()["application_id"] == application.id
    assert task.now()["try_number"] == 1


def test_a_cleared_task_ends_its_application_before_it_submits_again(standing: Airflow, world: World) -> None:
    run = run_of("cleared")
    tag = identity("defers", run, 3).tag
    task = standing.trigger("defers", run, seconds=15)
    wait_for(lambda: task.state == "deferred" and world.applications(tag), "deferral", END_S)
    task.clear()
    wait_for(lambda: len(world.applications(tag)) == 2, "the second application", END_S, 0.2)
    assert [one.id for one in world.applications(tag) if not one.ended][0:1] != [world.applications(tag)[0].id]
    assert end_of(task) == "success", task.log(2)
    first, second = world.applications(tag)
    assert (first.final, second.final) == ("KILLED", "SUCCEEDED")
    assert task.xcom()["application_id"] == second.id
