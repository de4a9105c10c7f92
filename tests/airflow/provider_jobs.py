"""Tasks of the operator on the local back-end, run as Airflow's task runner runs them, without Airflow's servers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.task_runner import _run_execute_callable
from airflow.triggers.base import TriggerEvent

from tony.airflow.operator import TonyOperator
from tony.clusters import LOCAL, connect
from tony.containers import AppReport
from tony.localjobs import LocalJobs

JOBS = Path(__file__).resolve().parents[1] / "jobs"


@dataclass
class Instance:
    """What the operator reads of a task instance, and what it leaves there."""

    dag_id: str = "dag"
    task_id: str = "train"
    run_id: str = "manual__2026"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    xcom: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[key] = value

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcom.get(key)


def training(job: str = "exit_0.py", *args: str, **more: Any) -> TonyOperator:
    """An operator for a script of `tests/jobs`, with short intervals."""
    given = {
        "task_id": "train",
        "script": str(JOBS / job),
        "script_args": list(args),
        "cluster": "local",
        "memory": "256m",
        "poll_interval": 0.2,
        "dag": DAG("dag", schedule=None),
    }
    return TonyOperator(**{**given, **more})


def run(operator: TonyOperator, instance: Instance | None = None) -> Any:
    """The task's result; what it defers is waited for, as a triggerer does."""
    context = {"ti": instance or Instance()}
    execute: Any = operator.execute
    while True:
        try:
            return _run_execute_callable(context=context, execute=execute, task=operator)
        except TaskDeferred as deferred:
            event = asyncio.run(only_event(deferred.trigger))
            method, known = deferred.method_name, deferred.kwargs or {}

            def execute(context: Any, method: str = method, known: Any = known, event: Any = event) -> Any:
                return operator.resume_execution(method, {**known, "event": event.payload}, context)


async def only_event(trigger: Any) -> TriggerEvent:
    """The trigger's event; there must be exactly one."""
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return events[0]


def applications() -> list[AppReport]:
    """All jobs of the local back-end, newest first."""
    cluster = connect(LOCAL)
    try:
        return cluster.list()
    finally:
        cluster.close()


def forget_all() -> None:
    """End what lives, and remove what is kept."""
    cluster = LocalJobs()
    for report in cluster.list():
        if not report.state.ended:
            cluster.kill(report.application_id)
    cluster.close()
