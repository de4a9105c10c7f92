"""Trigger, sensors and the process that ends jobs, on real jobs of the local back-end."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from tests.airflow.provider_jobs import Instance, applications, only_event, run, training
from tests.airflow.world import wait_for
from tony.airflow.hook import TonyHook
from tony.airflow.reaper import Order, Reaper
from tony.airflow.sensor import TonyDatasetSensor, TonySensor
from tony.airflow.trigger import TonyTrigger, _ends, address_values
from tony.airflow.watch import Watch
from tony.clusters import LOCAL, Address, connect
from tony.containers import AppState
from tony.errors import NoSuchJob, Unreachable
from tony.idempotency import tag_of
from tony.jobhandle import JobHandle
from tony.storage import Storage

pytestmark = pytest.mark.usefixtures("own_state")


def submitted(script: str, *args: str) -> str:
    """The id of a job that runs, or soon will."""
    application_id: str = run(training(script, *args, wait_for_completion=False))["application_id"]
    return application_id


def trigger(application_id: str, **more: Any) -> TonyTrigger:
    """A trigger as the triggerer makes it: from what was serialised."""
    path, arguments = TonyTrigger(application_id, address_values(LOCAL), 0.2, **more).serialize()
    module, _, name = path.rpartition(".")
    made: TonyTrigger = getattr(importlib.import_module(module), name)(**arguments)
    return made


def test_a_trigger_fires_once_when_the_job_has_ended() -> None:
    application_id = submitted("sleeps.py", "1")
    event = asyncio.run(only_event(trigger(application_id)))
    assert event.payload == {"application_id": application_id, "state": "SUCCEEDED", "reason": "SUCCEEDED"}


def test_a_trigger_for_a_cluster_that_it_cannot_reach_fires_with_an_error() -> None:
    address = address_values(Address("nowhere", "/no/such/conf"))
    event = asyncio.run(only_event(TonyTrigger("application_1_0001", address, 0.2)))
    assert "is not a Hadoop configuration folder" in event.payload["error"]


def test_a_triggers_event_loop_goes_on_while_it_looks() -> None:
    application_id = submitted("sleeps.py", "2")

    async def beside() -> float:
        slowest_s = 0.0
        waiting = asyncio.create_task(only_event(trigger(application_id)))
        while not waiting.done():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            slowest_s = max(slowest_s, time.monotonic() - before)
        return slowest_s

    # Building a TLS channel holds the interpreter for some ms; a request that blocked would take far longer.
    assert asyncio.run(beside()) < 1.0


def test_a_cancelled_trigger_leaves_the_job_and_no_connection() -> None:
    application_id = submitted("sleeps.py", "60")

    async def shut_down() -> None:
        waiting = asyncio.create_task(only_event(trigger(application_id)))
        while [one.state for one in applications()] != [AppState.RUNNING]:
            await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(shut_down())
    assert [one.state.ended for one in applications()] == [False]


class States:
    """Airflow's answers to the question for a task's state; the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self, **_: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("states", "map_index", "ended"),
    [
        ({"manual__2026": {"train": "failed"}}, -1, True),
        ({"manual__2026": {"train": None}}, -1, True),
        ({"manual__2026": {"train_3": "restarting"}}, 3, True),
        ({}, -1, True),
        ({"manual__2026": {"train": "deferred"}}, -1, False),
        ({"manual__2026": {"train_3": "deferred"}}, 3, False),
    ],
)
def test_only_a_user_ends_the_job_through_its_trigger(
    states: Any, map_index: int, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", States(states))
    one = trigger(submitted("sleeps.py", "60"), kill_grace=1.0)
    one._task_instance = Instance(map_index=map_index)
    asyncio.run(one.on_kill())
    assert [report.state.ended for report in applications()] == [ended]


def test_airflow_is_asked_again_until_it_says_what_became_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    lost = RuntimeError("Supervisor connection lost")
    one = trigger(submitted("sleeps.py", "60"), kill_grace=1.0)
    one._task_instance = Instance()
    monkeypatch.setattr("tony.airflow.trigger._KILL_BOUND_S", 2.0)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", States(lost))
    asyncio.run(one.on_kill())
    assert [report.state.ended for report in applications()] == [False]

    async def until_it_is_done() -> None:
        await one.on_kill()
        while _ends:
            await asyncio.wait(_ends)

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", States(lost, {"manual__2026": {"train": "failed"}}))
    asyncio.run(until_it_is_done())
    assert [report.state.ended for report in applications()] == [True]


def test_a_trigger_that_shall_not_cancel_does_not() -> None:
    asyncio.run(trigger(submitted("sleeps.py", "60"), cancel_on_kill=False).on_kill())
    assert [report.state.ended for report in applications()] == [False]


# Watching --------------------------------------------------------------------------------------------------------


class Away:
    """A handle on a job whose cluster is away for a while."""

    application_id = "application_1_0001"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def verdict(self) -> None:
        return None

    def report(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [Unreachable("no answer"), NoSuchJob("unknown")])
def test_a_cluster_that_is_away_is_borne_for_a_while(error: Exception) -> None:
    handle: Any = Away(error)
    watch = Watch(handle, patience_s=0.3)
    assert watch.look() is None
    assert watch.lines == [f"{error}; waiting up to 0.3s for it to come back"]
    assert watch.look() is None and watch.lines == []
    with pytest.raises(type(error)):
        wait_for(lambda: watch.look() is not None, "the end of patience", 5.0, 0.1)


def test_looking_says_only_what_is_new() -> None:
    application_id = submitted("sleeps.py", "3")
    said: list[str] = []
    with closing(connect(LOCAL)) as cluster, closing(JobHandle(application_id, cluster)) as handle:
        watch = Watch(handle)
        while (outcome := watch.look()) is None:
            said += watch.lines
            time.sleep(0.1)
    assert outcome.exit_code == 0
    assert len(said) == len(set(said)) and "1 of 1 tasks run" in said


# Ending ----------------------------------------------------------------------------------------------------------


def test_the_end_of_a_deaf_job_is_confirmed() -> None:
    application_id = submitted("ignores_sigterm.py")
    confirmed, said = Reaper.start(Order(LOCAL, application_id, "", "because", 0.5)).wait(60)
    assert confirmed and said[-1] == f"{application_id} is KILLED, says the cluster"
    assert [one.state for one in applications()] == [AppState.KILLED]


def test_a_job_that_has_ended_is_left_as_it_is() -> None:
    application_id = run(training())["application_id"]
    confirmed, said = Reaper.start(Order(LOCAL, application_id, "", "because", 0.5)).wait(60)
    assert confirmed and said == [f"{application_id} is SUCCEEDED, says the cluster"]


def test_an_end_that_cannot_be_confirmed_in_time_is_said_and_pursued(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://127.0.0.1:1</value></property></configuration>"
    )
    (conf / "yarn-site.xml").write_text(
        "<configuration><property><name>yarn.resourcemanager.webapp.address</name><value>127.0.0.1:1</value>"
        "</property></configuration>"
    )
    reaper = Reaper.start(Order(Address("gone", str(conf)), "application_1_0001", "", "because", 0.5))
    confirmed, said = reaper.wait(3)
    assert not confirmed and "not confirmed within 3 s" in said[-1] and "goes on with it" in said[-1]
    reaper._process.kill()
    reaper._process.communicate()


def test_what_an_interrupted_submit_brings_about_later_is_ended() -> None:
    key = "some key"
    reaper = Reaper.start(Order(LOCAL, "", key, "because", 0.5))
    operator = training("sleeps.py", "60", tags=[tag_of(key)], wait_for_completion=False)
    late = threading.Timer(2.0, lambda: run(operator))
    late.start()
    confirmed, said = reaper.wait(110)
    late.join()
    assert confirmed and "nothing of the interrupted submit is left" in said
    assert [one.state for one in applications()] == [AppState.KILLED]


# Sensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_sensor_waits_for_a_job_of_somebody_else(deferrable: bool) -> None:
    application_id = submitted("reports_progress.py", "2")
    sensor = TonySensor(task_id="wait", application_id=application_id, poke_interval=0.2, deferrable=deferrable)
    document = run(sensor, Instance(task_id="wait"))
    assert document["state"] == "SUCCEEDED" and document["metrics"] == {"step": 4, "loss": 0.2}


def test_a_sensor_fails_as_the_job_does_and_knows_when_there_is_none() -> None:
    application_id = submitted("exit_1.py")
    with pytest.raises(AirflowFailException, match="WORKER_EXIT"):
        run(TonySensor(task_id="wait", application_id=application_id, poke_interval=0.2))
    # A job that nobody knows is waited for a little, because a resource manager that restarts knows none.
    waiting = TonySensor(task_id="wait", application_id="local_1_0001", poke_interval=0.2, timeout=1.0)
    with pytest.raises(AirflowException, match="timed out"):
        run(waiting)


def test_a_deferred_sensor_does_not_end_the_job_with_itself() -> None:
    sensor = TonySensor(task_id="wait", application_id=submitted("sleeps.py", "60"), deferrable=True)
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({"ti": Instance()})
    assert not caught.value.trigger.cancel_on_kill


def test_data_is_ready_when_its_marker_is_there() -> None:
    sensor = TonyDatasetSensor(task_id="data", path="sets/day=1/")
    assert not sensor.poke({})
    with closing(connect(LOCAL)) as cluster, closing(Storage(cluster.storage)) as storage:
        storage.write("sets/day=1/_SUCCESS", b"")
    assert sensor.poke({})


def test_a_hook_opens_a_job_without_what_its_submitter_kept(tmp_path: Path) -> None:
    application_id = submitted("sleeps.py", "60")
    (tmp_path / "state" / "jobs" / f"{application_id}.json").unlink()
    (tmp_path / "state" / "submits" / f"{application_id}.json").unlink()
    wait_for(lambda: [one.state for one in applications()] == [AppState.RUNNING], "the job", 60.0, 0.2)
    with TonyHook(cluster="local").opened(application_id) as handle:
        assert handle.stop("a test", 1.0).reason.value == "CANCELLED"
