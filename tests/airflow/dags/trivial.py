"""A task without a job, for the start of the components."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("trivial", schedule=None):
    BashOperator(task_id="job", bash_command="echo done", retries=3)
