"""Waiting for a job that somebody else has submitted, or for data to be complete."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException

from tony.airflow.hook import TonyHook
from tony.airflow.result import RETRIED, check_retried, document_of, failure, story, translated
from tony.airflow.trigger import TonyTrigger, address_values
from tony.airflow.watch import Watch
from tony.client import record_of
from tony.errors import TonyError
from tony.jobhandle import JobHandle
from tony.outcome import Outcome
from tony.state import JobState
from tony.storage import Storage


class TonySensor(BaseSensorOperator):
    """Succeeds with the ``tony.job/1`` document of the application when that has succeeded; fails as it has failed.

    The job is not this task's: it lives on when the task is ended. `deferrable`: wait in the triggerer. `retry_on`:
    as of `TonyOperator`.
    """

    template_fields: ClassVar[Sequence[str]] = ("application_id", "conn_id", "cluster")

    def __init__(
        self,
        *,
        application_id: str,
        conn_id: str | None = TonyHook.default_conn_name,
        cluster: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        retry_on: Sequence[str] = RETRIED,
        poke_interval: float | timedelta = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.application_id = application_id
        self.conn_id = conn_id
        self.cluster = cluster
        self.deferrable = deferrable
        self.retry_on = tuple(retry_on)
        check_retried(self.retry_on)
        self._watch: Watch | None = None

    def execute(self, context: Context) -> Any:
        """Poke, or defer."""
        if not self.deferrable:
            return super().execute(context)
        done = self.poke(context)
        if done:
            return done.xcom_value
        address = address_values(TonyHook(self.conn_id, self.cluster).address)
        self.defer(
            trigger=TonyTrigger(self.application_id, address, self.poke_interval, cancel_on_kill=False),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The trigger has seen the job's end."""
        if "error" in event:
            raise AirflowException(event["error"])
        done = self.poke(context)
        if not done:
            raise AirflowException(f"{self.application_id} has not ended, although its trigger said so")
        return done.xcom_value

    def poke(self, context: Context) -> PokeReturnValue:
        """One look at the job."""
        hook = TonyHook(self.conn_id, self.cluster)
        try:
            with contextlib.closing(hook.get_conn()) as cluster:
                handle = JobHandle(self.application_id, cluster)
                with contextlib.closing(handle):
                    self._watch = Watch(handle) if self._watch is None else self._watch.on(handle)
                    outcome = self._watch.look()
                    for line in self._watch.lines:
                        self.log.info("%s", line)
                    return PokeReturnValue(False) if outcome is None else self._end(handle, outcome)
        except TonyError as error:
            raise translated(error) from error

    def _end(self, handle: JobHandle, outcome: Outcome) -> PokeReturnValue:
        record = record_of(self.application_id)
        if outcome.state is not JobState.SUCCEEDED:
            for line in story(self.application_id, outcome, record):
                self.log.error("%s", line)
            raise failure(self.application_id, outcome, self.retry_on)
        tracking_url = ""
        with contextlib.suppress(TonyError):
            tracking_url = handle.report().tracking_url
        return PokeReturnValue(True, document_of(self.application_id, outcome, record, tracking_url))


class TonyDatasetSensor(BaseSensorOperator):
    """Succeeds when the folder `path` holds the file `marker`, which writers of data leave when all of it is there.

    `path`: a URL, or a path absolute or below the user's folder, of the cluster's storage (`tony.storage`).
    """

    template_fields: ClassVar[Sequence[str]] = ("path", "marker", "conn_id", "cluster")

    def __init__(
        self,
        *,
        path: str,
        marker: str = "_SUCCESS",
        conn_id: str | None = TonyHook.default_conn_name,
        cluster: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.marker = marker
        self.conn_id = conn_id
        self.cluster = cluster

    def poke(self, context: Context) -> bool:
        """One look at the storage."""
        hook = TonyHook(self.conn_id, self.cluster)
        marker = f"{self.path.rstrip('/')}/{self.marker}"
        try:
            with (
                contextlib.closing(hook.get_conn()) as cluster,
                contextlib.closing(Storage(cluster.storage)) as storage,
            ):
                there = storage.exists(marker)
        except TonyError as error:
            raise translated(error) from error
        self.log.info("%s is %s", marker, "there" if there else "not there yet")
        return there
