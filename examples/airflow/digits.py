"""Every night: check the data, train with quantized gradients, evaluate, and register a model that is good enough."""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, task

from tony.airflow.operator import TonyOperator

GOAL = 0.95
# On every node and on the Airflow workers, in this folder: checkpoints, and the models that were good enough.
SHARED = Path(os.environ.get("DIGITS_FOLDER", "/mnt/shared/digits"))
# The Python of the tasks, with TensorFlow, Horovod and scikit-learn; every node has it.
PYTHON = os.environ.get("DIGITS_PYTHON", "/opt/tensorflow/bin/python")
CHECKPOINTS = f"{SHARED}/{{{{ run_id | replace(':', '-') | replace('+', '-') }}}}"

with DAG(
    "digits",
    description="Handwritten digits, trained every night on YARN",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["tony"],
):
    small = {"python": PYTHON, "memory": "512m", "am_memory": "1g"}
    check = TonyOperator(task_id="check_data", script="steps/check_data.py", **small)
    train = TonyOperator(
        task_id="train",
        job_file="../horovod-mnist/job.yaml",
        python=PYTHON,
        am_memory="1g",
        checkpoint_dir=CHECKPOINTS,
        deferrable=True,
    )
    evaluate = TonyOperator(task_id="evaluate", script="steps/evaluate.py", script_args=[CHECKPOINTS], **small)

    @task.branch
    def good_enough(evaluated):
        """The next task, by the accuracy that evaluate.py has reported."""
        return "register" if evaluated["metrics"]["accuracy"] >= GOAL else "reject"

    @task
    def register(trained, evaluated, folder):
        """The registry's newest entry: the model, what it reached, and the application that made it."""
        entry = {
            "checkpoints": folder,
            "accuracy": evaluated["metrics"]["accuracy"],
            "application_id": trained["application_id"],
        }
        models = SHARED / "models"
        models.mkdir(parents=True, exist_ok=True)
        (models / "new.json").write_text(json.dumps(entry))
        (models / "new.json").replace(models / "latest.json")
        return entry

    @task
    def reject(evaluated):
        """The model of the night before stays."""
        print(f"accuracy {evaluated['metrics']['accuracy']:.3f} is below {GOAL}")

    check >> train >> evaluate
    ends = [register(train.output, evaluate.output, CHECKPOINTS), reject(evaluate.output)]
    good_enough(evaluate.output) >> ends
