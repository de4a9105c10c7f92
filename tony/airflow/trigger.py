"""Waiting for a job in Airflow's triggerer, without a worker's slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent

from tony.airflow.hook import TonyAsyncHook
from tony.airflow.reaper import Order, Reaper
from tony.airflow.watch import PATIENCE_S, Watch
from tony.clusters import Address
from tony.errors import TonyError
from tony.records import plain

_KILL_BOUND_S = 25.0
"""Airflow gives `on_kill` 30 s."""
_ASK_AGAIN_S = 1.0
_DEFERRED = "deferred"

_ends: set[asyncio.Task[None]] = set()
"""Ends that are under way: they outlive the trigger that began them, and the event loop holds tasks weakly."""


class TonyTrigger(BaseTrigger):
    """Fires once, when the job has ended: ``{"application_id", "state", "reason"}``, or with an ``error`` instead.

    `address`: an `Address` as plain values. `poll_interval`: seconds between two looks. The job ends with the task
    (`cancel_on_kill`) only when a user ends the task, never with the triggerer.
    """

    def __init__(
        self,
        application_id: str,
        address: Mapping[str, Any],
        poll_interval: float = 10.0,
        cancel_on_kill: bool = True,
        kill_grace: float = 3.0,
    ) -> None:
        super().__init__()
        self.application_id = application_id
        self.address = dict(address)
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.kill_grace = kill_grace

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments."""
        return "tony.airflow.trigger.TonyTrigger", {
            "application_id": self.application_id,
            "address": self.address,
            "poll_interval": self.poll_interval,
            "cancel_on_kill": self.cancel_on_kill,
            "kill_grace": self.kill_grace,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the job until it has ended. What it reports meanwhile goes to the task's log."""
        try:
            event = await self._until_end()
        except TonyError as error:
            event = {"application_id": self.application_id, "error": error.message, "kind": type(error).__name__}
        yield TriggerEvent(event)

    async def _until_end(self) -> dict[str, Any]:
        hook = TonyAsyncHook(conn_id=None, address=Address(**self.address))
        handle = await hook.open(self.application_id)
        try:
            watch = Watch(handle)
            while (outcome := await hook.call(watch.look)) is None:
                self._tell(watch.lines)
                await asyncio.sleep(self.poll_interval)
            self._tell(watch.lines)
            return {
                "application_id": self.application_id,
                "state": outcome.state.value,
                "reason": outcome.reason.value,
            }
        finally:
            await asyncio.shield(hook.close(handle))

    def _tell(self, lines: list[str]) -> None:
        for line in lines:
            self.log.info("%s", line)

    async def on_kill(self) -> None:
        """End the job, because a user has ended the task; what was seen of its end is logged.

        A trigger that only moves to another triggerer is told the same way: then the task is still deferred. Returns
        within 25 s; what is not done by then goes on for as long as the triggerer lives.
        """
        if not self.cancel_on_kill:
            self.log.info("%s goes on: cancel_on_kill is off", self.application_id)
            return
        ending = asyncio.create_task(self._end_unless_deferred())
        _ends.add(ending)
        ending.add_done_callback(_ends.discard)
        _, late = await asyncio.wait({ending}, timeout=_KILL_BOUND_S)
        if late:
            self.log.warning("the end of %s is not confirmed yet; this goes on", self.application_id)

    async def _end_unless_deferred(self) -> None:
        self.log.info("asking Airflow whether the task has ended, or only moves to another triggerer")
        if await self._still_deferred():
            self.log.info("the task is still deferred; %s goes on", self.application_id)
            return
        order = Order(
            Address(**self.address), self.application_id, "", "ended with its Airflow task", self.kill_grace
        )
        hook = TonyAsyncHook(conn_id=None)
        reaper = await hook.call(lambda: Reaper.start(order))
        _, said = await hook.call(lambda: reaper.wait(PATIENCE_S))
        self._tell(said)

    async def _still_deferred(self) -> bool:
        """Whether Airflow still has the task deferred. Asks until it says so, or until patience ends: then it has."""
        instance = self.task_instance
        if instance is None:
            return False
        key = instance.task_id if instance.map_index < 0 else f"{instance.task_id}_{instance.map_index}"
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                # A question without an answer is waited for, not asked twice: each takes one of the loop's threads.
                states = await asyncio.to_thread(
                    RuntimeTaskInstance.get_task_states,
                    dag_id=instance.dag_id,
                    task_ids=[instance.task_id],
                    run_ids=[instance.run_id],
                    map_index=instance.map_index,
                )
                return str(states.get(instance.run_id, {}).get(key)) == _DEFERRED
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known yet
                self.log.warning("Airflow does not say what became of the task: %s", error)
                await asyncio.sleep(_ASK_AGAIN_S)
        return True


def address_values(address: Address) -> dict[str, Any]:
    """The address as plain values, for a trigger's arguments."""
    values: dict[str, Any] = plain(address)
    return values
