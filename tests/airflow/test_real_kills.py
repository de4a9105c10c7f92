"""Whoever is killed, and whenever: one application, and the second try follows it. ``kills.py`` does more runs."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.airflow.kills import CANCELS, STEPS, acts, summary, until_reached
from tests.airflow.standing import Airflow
from tests.airflow.world import World

pytestmark = pytest.mark.timeout(900)

RUNS = 2


def walk(name: str, standing: Airflow, world: World) -> None:
    """So many runs at that step, at the same time; their seeds are printed."""
    act, seeds = acts(standing, world)[name], itertools.count(1)
    with ThreadPoolExecutor(RUNS) as pool:
        drawn = list(pool.map(lambda _: until_reached(act, seeds, print), range(RUNS)))
    results = [one for some in drawn for one in some]
    assert not [str(one) for one in results if one.wrong]
    assert sum(one.reached for one in results) == RUNS, summary(name, results)


@pytest.mark.parametrize("name", [step.name for step in STEPS])
def test_a_killed_worker_costs_a_try_and_no_application(name: str, standing: Airflow, world: World) -> None:
    walk(name, standing, world)


@pytest.mark.parametrize("name", [how.name for how in CANCELS])
def test_a_cancelled_task_leaves_no_application(name: str, standing: Airflow, world: World) -> None:
    walk(name, standing, world)
