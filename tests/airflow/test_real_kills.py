"""Whoever is killed, and whenever: one application, and the second try follows it. ``kills.py`` does many more runs."""

from __future__ import annotations

import pytest

from tests.airflow.kills import CANCELS, STEPS, Cancel, Step, cancel, kill_at, runs, summary
from tests.airflow.standing import Airflow
from tests.airflow.world import World

pytestmark = pytest.mark.timeout(420)

RUNS = 2


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_killed_worker_costs_a_try_and_no_application(step: Step, standing: Airflow, world: World) -> None:
    results = list(runs(lambda seed: kill_at(step, standing, world, seed), RUNS, 1, print))
    assert not [str(one) for one in results if one.wrong]
    assert sum(one.reached for one in results) == RUNS, summary(step.name, results)


@pytest.mark.parametrize("how", CANCELS, ids=lambda how: how.name)
def test_a_cancelled_task_leaves_no_application(how: Cancel, standing: Airflow, world: World) -> None:
    results = list(runs(lambda seed: cancel(how, standing, world, seed), RUNS, 1, print))
    assert not [str(one) for one in results if one.wrong]
    assert sum(one.reached for one in results) == RUNS, summary(how.name, results)
