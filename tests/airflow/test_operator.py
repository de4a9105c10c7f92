"""The operator on real jobs of the local back-end: master and executors are processes of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)

from tests.airflow.provider_jobs import Instance, applications, run, training
from tests.airflow.world import wait_for
from tony.airflow.operator import ENDED_WITH_TASK
from tony.client import attach
from tony.containers import AppState

pytestmark = pytest.mark.usefixtures("own_state")


def test_a_task_returns_its_jobs_document_and_leaves_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    instance = Instance()
    document = run(training("reports_progress.py", "1"), instance)
    (application,) = applications()
    assert document["schema"] == "tony.job/1" and document["state"] == "SUCCEEDED"
    assert document["application_id"] == instance.xcom["application_id"] == application.application_id
    assert document["metrics"] == {"step": 4, "loss": 0.2}
    assert "worker:0: step 4, loss 0.2" in capsys.readouterr().out


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failure_of_the_users_code_is_final_and_shows_its_traceback(
    deferrable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AirflowFailException, match=r"WORKER_EXIT\): worker:0: ValueError: the loss is not a number"):
        run(training("exit_1.py", deferrable=deferrable))
    assert 'raise ValueError("the loss is not a number")' in capsys.readouterr().out


def test_a_job_that_ran_too_long_may_be_tried_again() -> None:
    with pytest.raises(AirflowException, match="DURATION") as caught:
        run(training("sleeps.py", "60", max_duration="2s"))
    assert not isinstance(caught.value, AirflowFailException)


def test_what_is_wrong_with_the_request_is_told_at_once_and_never_tried_again() -> None:
    with pytest.raises(AirflowFailException, match="no such script") as caught:
        run(training(script="no_such.py", memory="4 gigs"))
    assert "--memory of the task dag.train" in str(caught.value)
    assert applications() == []


def test_a_missing_connection_is_final(database: None) -> None:
    with pytest.raises(AirflowFailException, match="no_such"):
        run(training(conn_id="no_such"))


def test_a_second_try_attaches_to_the_live_job_and_leaves_id_and_result_again() -> None:
    operator = training("sleeps.py", "3", wait_for_completion=False, retries=1)
    first = run(operator, Instance(max_tries=1))
    again = Instance(try_number=2, max_tries=1)
    document = run(training("sleeps.py", "3", retries=1), again)
    assert document["application_id"] == first["application_id"] == again.xcom["application_id"]
    assert len(applications()) == 1


def test_a_second_try_returns_the_result_of_a_job_that_has_succeeded_meanwhile() -> None:
    first = run(training(retries=1), Instance(max_tries=1))
    again = run(training(retries=1), Instance(try_number=2, max_tries=1))
    assert again["application_id"] == first["application_id"] and again["state"] == "SUCCEEDED"


def test_a_job_that_failed_is_submitted_anew() -> None:
    for number in (1, 2):
        with pytest.raises(AirflowException, match="WORKER_EXIT"):
            run(training("exit_1.py", retries=1), Instance(try_number=number, max_tries=1))
    assert len(applications()) == 2


def test_a_cleared_task_runs_again_although_it_has_succeeded() -> None:
    first = run(training(), Instance())
    again = run(training(), Instance(try_number=2, max_tries=1))
    assert again["application_id"] != first["application_id"]


def test_a_cleared_task_ends_what_it_had_submitted_before() -> None:
    first = run(training("sleeps.py", "60", wait_for_completion=False), Instance())
    again = run(training(), Instance(try_number=2, max_tries=1))
    assert again["state"] == "SUCCEEDED"
    states = {one.application_id: one.state for one in applications()}
    assert states == {
        first["application_id"]: AppState.KILLED,
        again["application_id"]: AppState.SUCCEEDED,
    }


def test_tries_that_are_not_durable_have_a_job_each_and_never_two_at_once() -> None:
    first = run(training("sleeps.py", "60", wait_for_completion=False, durable=False), Instance(max_tries=1))
    again = run(training(durable=False, retries=1), Instance(try_number=2, max_tries=1))
    assert again["application_id"] != first["application_id"]
    assert [one.state.ended for one in applications()] == [True, True]


def test_a_job_that_an_earlier_try_is_just_ending_is_not_this_trys_result() -> None:
    first = run(training("ignores_sigterm.py", wait_for_completion=False, retries=1), Instance(max_tries=1))

    def deaf() -> bool:
        return any(line.text == "deaf" for line in attach(first["application_id"]).logs())

    wait_for(deaf, "the script, which takes no signal from now on", 60.0, 0.2)
    ending = threading.Thread(
        target=lambda: attach(first["application_id"]).stop(ENDED_WITH_TASK, 3.0), name="ending"
    )
    ending.start()
    wait_for(lambda: attach(first["application_id"]).snapshot().state.value == "STOPPING", "the stop", 10.0, 0.05)
    document = run(training(retries=1), Instance(try_number=2, max_tries=1))
    ending.join()
    assert document["application_id"] != first["application_id"] and document["state"] == "SUCCEEDED"


def test_two_schedulers_at_once_submit_one_application() -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(run(training("sleeps.py", "2"), Instance()))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and len({one["application_id"] for one in results}) == 1
    assert len(applications()) == 1


def test_mapped_and_oddly_named_tasks_have_a_job_each() -> None:
    instances = [Instance(dag_id="d\u00e4g \U0001f600/\u202e", map_index=index) for index in (0, 1)]
    ids = {run(training(), instance)["application_id"] for instance in instances}
    assert len(ids) == 2
    assert {one.name for one in applications()} == {f"d\u00e4g \U0001f600/?.train.{index}" for index in (0, 1)}


def test_a_deferred_task_ends_as_one_that_waits_itself() -> None:
    instance = Instance()
    document = run(training("reports_progress.py", "1", deferrable=True), instance)
    assert document["state"] == "SUCCEEDED" and document["metrics"]["step"] == 4
    assert instance.xcom["application_id"] == document["application_id"]


def deferred(operator: Any, instance: Instance) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        operator.execute({"ti": instance})
    return caught.value


def test_a_trigger_that_gave_up_is_replaced_by_the_worker() -> None:
    instance = Instance()
    # Nothing but the event comes back with the task: `airflow dags test` hands nothing else on.
    assert not deferred(training("sleeps.py", "1", deferrable=True), instance).kwargs
    event = {"application_id": "x", "error": "the cluster does not answer"}
    fresh = training("sleeps.py", "1", deferrable=True)
    assert fresh.execute_complete({"ti": instance}, event=event)["state"] == "SUCCEEDED"
    again = training("sleeps.py", "1", deferrable=True)
    document = again.resume_execution("__fail__", {"error": "Trigger failure"}, {"ti": instance})
    assert document["state"] == "SUCCEEDED" and len(applications()) == 1


def test_a_deferral_that_took_too_long_ends_the_job() -> None:
    operator = training("sleeps.py", "60", deferrable=True, execution_timeout=timedelta(seconds=5))
    instance = Instance()
    assert deferred(operator, instance).timeout == timedelta(seconds=5)
    fresh = training("sleeps.py", "60", deferrable=True)
    with pytest.raises(TaskDeferralTimeout):
        fresh.resume_execution("__fail__", {"error": "Trigger timeout"}, {"ti": instance})
    assert [one.state for one in applications()] == [AppState.KILLED]
    assert not issubclass(TaskDeferralTimeout, TaskDeferralError)


def test_an_execution_timeout_ends_the_job() -> None:
    with pytest.raises(AirflowTaskTimeout):
        run(training("sleeps.py", "60", execution_timeout=timedelta(seconds=4)))
    assert [one.state for one in applications()] == [AppState.KILLED]


def test_the_job_goes_on_where_it_shall_not_be_cancelled() -> None:
    with pytest.raises(AirflowTaskTimeout):
        run(training("sleeps.py", "60", execution_timeout=timedelta(seconds=4), cancel_on_kill=False))
    assert [one.state.ended for one in applications()] == [False]


def test_a_task_that_was_ended_before_it_submitted_submits_nothing() -> None:
    operator = training()
    operator.on_kill()
    with pytest.raises(AirflowException, match="before it submitted"):
        run(operator)
    assert applications() == []


def test_a_wait_that_fails_leaves_the_job_to_the_next_try_or_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Instance):
        def xcom_push(self, key: str, value: Any) -> None:
            raise RuntimeError("the API server is gone")

    with pytest.raises(RuntimeError, match="API server"):
        run(training("sleeps.py", "60", retries=1), Broken(max_tries=1))
    assert [one.state.ended for one in applications()] == [False]
    with pytest.raises(RuntimeError, match="API server"):
        run(training("sleeps.py", "60", retries=1), Broken(try_number=2, max_tries=1))
    assert [one.state for one in applications()] == [AppState.KILLED]


# A worker's process ----------------------------------------------------------------------------------------------

WORKER = """
import signal, sys
from tests.airflow.provider_jobs import Instance, run, training
operator = training("ignores_sigterm.py", retries=1, kill_grace=1)
signal.signal(signal.SIGTERM, lambda number, frame: operator.on_kill())
print("ready", flush=True)
run(operator, Instance(max_tries=1))
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    """A process that runs a task of a deaf job, and answers SIGTERM as Airflow's task runner does."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_signal_ends_job_and_task_within_airflows_five_seconds(worker: subprocess.Popen[str]) -> None:
    wait_for(lambda: any(one.state is AppState.RUNNING for one in applications()), "the job", 60.0, 0.1)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) != 0
    took_s = time.monotonic() - began
    assert [one.state for one in applications()] == [AppState.KILLED]
    # The bound is Airflow's; a busy machine gets some more, because the work is done by another process anyway.
    assert took_s < 15


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.3, 0.6, 1.5])
def test_a_worker_killed_right_after_the_signal_leaves_no_job(worker: subprocess.Popen[str], after_s: float) -> None:
    time.sleep(after_s)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    worker.kill()
    worker.wait()
    reapers = [p for p in psutil.process_iter(["cmdline"]) if "tony.airflow.reaper" in (p.info["cmdline"] or [])]
    psutil.wait_procs(reapers, timeout=60)
    assert all(one.state.ended for one in applications())


def test_a_worker_killed_at_any_moment_leaves_one_job_that_the_next_try_finds(
    worker: subprocess.Popen[str],
) -> None:
    wait_for(lambda: len(applications()) == 1, "the job", 60.0, 0.02)
    worker.kill()
    worker.wait()
    again = Instance(try_number=2, max_tries=1)
    found = run(training("ignores_sigterm.py", retries=1, wait_for_completion=False), again)
    assert found["attached"] and [one.application_id for one in applications()] == [found["application_id"]]


# Job files and templates -----------------------------------------------------------------------------------------


def folder_with(tmp_path: Path, text: str) -> DAG:
    folder = tmp_path / "jobs"
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(text)
    (folder / "train.py").write_text("import sys; print(sys.argv)")
    dag = DAG("dag", schedule=None)
    dag.fileloc = str(tmp_path / "dag.py")
    return dag


def test_a_job_file_is_rendered_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    dag = folder_with(tmp_path, "command: [train.py, '{{ ds }}', x.yaml]\nroles: {worker: {memory: 256m}}\n")
    operator = training(script=None, script_args=[], memory=None, job_file="jobs/job.yaml", dag=dag)
    operator.render_template_fields({"ds": "2026-01-02"})
    assert "2026-01-02" in str(operator.job_file)
    assert run(operator)["state"] == "SUCCEEDED"


def test_a_job_files_path_may_be_a_template_or_absolute(tmp_path: Path) -> None:
    dag = folder_with(tmp_path, "command: [train.py, '{{ ds }}']\nroles: {worker: {memory: 256m}}\n")
    operator = training(script=None, memory=None, job_file=str(tmp_path / "{{ where }}" / "job.yaml"), dag=dag)
    context: dict[str, Any] = {"ds": "2026-01-02", "where": "jobs", "ti": Instance()}
    operator.render_template_fields(context)
    asked, _, _ = operator._wanted(context)
    assert asked.resolved.job.roles[0].command == ("train.py", "2026-01-02")
    assert asked.resolved.job.source == str(tmp_path / "jobs")


def test_an_error_in_a_job_file_names_its_line(tmp_path: Path) -> None:
    text = "command: [train.py]\nwrokers: 2\n"
    with pytest.raises(AirflowFailException, match=r"job\.yaml:2"):
        run(training(script=None, job_file="jobs/job.yaml", dag=folder_with(tmp_path, text)))
    with pytest.raises(AirflowFailException, match="nothing.yaml"):
        run(training(script=None, job_file="nothing.yaml", dag=folder_with(tmp_path, text)))


def test_words_that_end_like_a_job_file_are_not_read() -> None:
    operator = training("exit_0.py", "--config=no.yaml", "no.yml", "{{ ds }}", files=["{{ ds }}.yaml"])
    operator.render_template_fields({"ds": "d"})
    assert operator.script_args == ["--config=no.yaml", "no.yml", "d"] and operator.files == ["d.yaml"]


def test_every_parameter_is_a_template() -> None:
    operator = training(workers="{{ n }}", env={"A": "{{ n }}"}, settings={"early_exit": "{{ n }}s"}, name="{{ n }}")
    operator.render_template_fields({"n": 3})
    assert (operator.workers, operator.env, operator.settings, operator.name) == (
        "3",
        {"A": "3"},
        {"early_exit": "3s"},
        "3",
    )


def test_a_dag_with_the_operator_survives_serialisation() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("dag", schedule=None) as dag:
        training(dag=dag, env={"A": "{{ ds }}"}, max_duration=timedelta(hours=1))
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    task = again.get_task("train")
    assert task.env == {"A": "{{ ds }}"} and task.operator_extra_link_dict.keys() == {
        "YARN application",
        "Logs",
        "TensorBoard",
    }


def test_a_wrong_name_in_retry_on_is_an_error_of_the_dag() -> None:
    with pytest.raises(Exception, match="neither a fault nor a reason"):
        training(retry_on=["EVERYTHING"])


# @task.tony ------------------------------------------------------------------------------------------------------


def test_a_decorated_function_is_the_script_of_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    from tony.airflow.decorator import tony_task

    with DAG("dag", schedule=None) as dag:

        @tony_task(workers=2, memory="256m", cluster="local", poll_interval=0.2)
        def shout(word: str, times: int = 1) -> None:
            """Says a word."""
            import os

            from tony import current

            # A comment stays where it is.
            current().report(length=len(word * times), rank=int(os.environ["TONY_RANK"]))
            if word == "\u00e9":
                raise ValueError(f"not {word}")

        shout("hello", times=2)
    operator = dag.get_task("shout")
    assert run(operator, Instance(task_id="shout"))["metrics"] == {"length": 10, "rank": 0}
    with DAG("dag", schedule=None) as dag:
        shout("\u00e9")
    with pytest.raises(AirflowFailException, match="not \u00e9"):
        run(dag.get_task("shout"), Instance(task_id="shout", run_id="2"))


def test_arguments_of_a_decorated_function_must_be_plain() -> None:
    from tony.airflow.decorator import tony_task

    with DAG("dag", schedule=None) as dag:

        @tony_task(cluster="local")
        def train(what: Any) -> None:
            pass

        train(object())
    with pytest.raises(AirflowFailException, match="plain values"):
        run(dag.get_task("train"))
    with pytest.raises(TypeError, match="the function is the script"):
        tony_task(script="x.py")(lambda: None)()
