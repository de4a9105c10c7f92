"""Small jobs for the tests. What differs from run to run is in the run's configuration."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from tony.airflow.operator import TonyOperator

JOBS = os.environ["TONY_TEST_JOBS"]


def job(dag: str, script: str, *words: str, retries: int = 3, **more: object) -> None:
    """A DAG of one task that is one small job."""
    with DAG(dag, schedule=None, max_active_runs=64):
        TonyOperator(
            task_id="job",
            script=f"{JOBS}/{script}",
            script_args=list(words),
            workers=1,
            memory="256m",
            am_memory="1g",
            src="none",
            retries=retries,
            retry_delay=timedelta(seconds=1),
            poll_interval=1,
            **more,
        )


SECONDS = "{{ dag_run.conf['seconds'] }}"
job("waits", "sleeps.py", SECONDS)
job("defers", "sleeps.py", SECONDS, deferrable=True)
job("waits_once", "sleeps.py", SECONDS, retries=0)
job("defers_once", "sleeps.py", SECONDS, retries=0, deferrable=True)
job("user_failure", "imports_missing_module.py")
job("user_failure_deferred", "imports_missing_module.py", deferrable=True)
job("lost", "kills_itself.py", retries=1, restart="never")
