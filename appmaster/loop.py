"""The one asyncio loop that owns the machine: stimuli in, commands carried out, blocking calls in threads."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.folder import JobFolder
from appmaster.history import History
from appmaster.machine import JobMachine
from appmaster.service import Service
from appmaster.store import StoreHealth
from appmaster.view import final_verdict
from tony.clock import Clock
from tony.containers import AppState, ContainerBackend, HandleState, Identity
from tony.errors import TonyError, Unreachable
from tony.events import EventKind, Warned
from tony.records import encode
from tony.snapshot import Verdict

_log = logging.getLogger(__name__)

_POLL_S = 0.2
_CALM_POLL_S = 2.0
_TICK_S = 0.2
_SOON_S = 1.0
_STOOD_STILL_S = 3.0
"""No fact for so long although a tick was due: it was this process that did not listen."""
_LOST_AFTER_S = 300.0
"""A back-end that is dead takes us along at once; one that stands still may go on, and training does meanwhile."""

_VERDICT_S = 15.0
_FINISH_S = 30.0


class Loop:
    """Feeds the machine and obeys it until the verdict is reported.

    `environment(identity)` gives what reaches an executor's container; `folder` keeps state and verdict.
    """

    def __init__(
        self,
        machine: JobMachine,
        backend: ContainerBackend,
        folder: JobFolder,
        history: History,
        clock: Clock,
        environment: Callable[[Identity], dict[str, str]],
    ) -> None:
        self.machine = machine
        self.service: Service | None = None
        self._backend = backend
        self._folder = folder
        self._history = history
        self._clock = clock
        self._environment = environment
        # One thread: the order of requests is their priority in YARN.
        self._asking = ThreadPoolExecutor(1, "containers")
        self._inbox: deque[on.Stimulus] = deque()
        self._handling = False
        self._fed_at: float | None = None
        self._held: deque[do.Command] = deque()
        self._tick_s = max(_TICK_S, len(machine.tasks) / 2000)
        self._dirty = False
        self._saving_soon: asyncio.TimerHandle | None = None
        self._save_cost_s = 0.0
        self._identities: dict[str, Identity] = {r.handle: r.identity for r in machine.tasks.values() if r.handle}
        self._background: set[asyncio.Task[None]] = set()
        folder.health = history.health = StoreHealth(self._of_the_store)
        self._verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def feed(self, stimulus: on.Stimulus) -> None:
        """Hand a fact to the machine and carry out what it says. Only from the loop's own thread."""
        self._inbox.append(stimulus)
        if self._handling:
            return
        self._handling = True
        try:
            now = self._clock.monotonic()
            if self._fed_at is not None and now > self._fed_at + max(_STOOD_STILL_S, 2 * self._tick_s):
                self._inbox.appendleft(on.StoodStill(now - self._fed_at))
            while self._inbox:
                self._fed_at = self._clock.monotonic()
                self._obey_all(self.machine.handle(self._inbox.popleft(), self._fed_at))
        except Exception as error:
            if not self._verdict.done():
                self._verdict.set_exception(error)
            raise
        finally:
            self._handling = False

    def resume(self) -> None:
        """Go on with a machine that was made from a kept state."""
        self._obey_all(self.machine.resume(self._clock.monotonic()))

    async def run(self) -> Verdict:
        """Tick and poll until the machine is finished; then keep the verdict and report it. Returns it."""
        tasks = [
            asyncio.create_task(self._tick(), name="tick"),
            asyncio.create_task(self._poll(), name="poll"),
            asyncio.create_task(self._history.keep_writing(), name="history"),
            asyncio.create_task(self._folder.keep_writing(), name="state"),
        ]
        try:
            waited: list[asyncio.Future[Any]] = [self._verdict, *tasks]
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return await self._verdict
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def report(self, verdict: Verdict) -> None:
        """What comes between the verdict and the final status: keep it, let followers have the rest."""
        work = [self._keep_verdict(verdict), self._history.flush()]
        if self.service is not None:
            work.append(self.service.relay.drain())
        await asyncio.gather(*work)
        self._history.close()

    async def _keep_verdict(self, verdict: Verdict) -> None:
        try:
            await self._folder.keep_verdict(verdict, _VERDICT_S)
        except Exception as error:  # noqa: BLE001 - whatever a store fails with, the cluster must hear of the end
            _log.error("the verdict is not kept on storage: %s", error)
            self._folder.rescue("verdict.json", encode(verdict))

    async def finish(self, verdict: Verdict, diagnostics: str) -> None:
        """The final status, as the very last thing."""
        state = AppState(verdict.state.value)
        await asyncio.wait_for(asyncio.to_thread(self._backend.finish, state, diagnostics), timeout=_FINISH_S)

    def close(self) -> None:
        """End the threads; calls in progress are waited for."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    # Commands -------------------------------------------------------------------------------------------------

    def _obey_all(self, commands: list[do.Command]) -> None:
        if any(isinstance(command, do.RequestContainer) for command in commands):
            # A process that is started again must know whom it has asked for, or somebody would live twice.
            self._keep_first()
        for command in commands:
            if self._dirty and not isinstance(command, do.RecordEvent):
                self._held.append(command)
            elif isinstance(command, do.SaveState) and command.soon:
                if self._saving_soon is None:
                    self._saving_soon = asyncio.get_running_loop().call_later(_SOON_S, self._save)
            elif isinstance(command, do.SaveState):
                self._keep_first()
            else:
                self._obey(command)

    def _keep_first(self) -> None:
        """What comes from now on waits until the state is kept."""
        if self._dirty:
            return
        self._dirty = True
        # Group commit: whatever else happens in this turn is saved with it, and big states save less often.
        delay_s = min(0.5, 10 * self._save_cost_s) if self._save_cost_s > 0.005 else 0.0
        asyncio.get_running_loop().call_later(delay_s, self._save)

    def _save(self) -> None:
        if self._saving_soon is not None:
            self._saving_soon.cancel()
            self._saving_soon = None
        before = self._clock.monotonic()
        self._folder.keep_state(self.machine, self._history.last_number)
        self._save_cost_s = self._clock.monotonic() - before
        self._dirty = False
        held, self._held = self._held, deque()
        for command in held:
            # What is saved now covers every SaveState that was held behind the first one.
            if not isinstance(command, do.SaveState):
                self._obey(command)

    def _obey(self, command: do.Command) -> None:
        if isinstance(command, do.RecordEvent):
            at = self._clock.wall()
            self._history.record(command.kind, at, command.text, command.task, command.fields)
            _log.info("%s", command.text)
        elif isinstance(command, do.RequestContainer):
            self._start(self._request(command.identity))
        elif isinstance(command, do.StopContainer):
            self._start(self._stop(command.handle))
        elif isinstance(command, do.ShowProgress):
            self._start(self._in_thread(self._backend.progress, command.fraction))
        elif isinstance(command, do.Finish):
            if not self._verdict.done():
                self._verdict.set_result(final_verdict(self.machine, command.verdict, self._clock.monotonic()))
        elif self.service is not None:
            self.service.obey(command)

    def _of_the_store(self, reason: Warned | None, text: str) -> None:
        kind, fields = (EventKind.NOTE, {}) if reason is None else (EventKind.WARNING, {"reason": reason.value})
        self._history.record(kind, self._clock.wall(), text, None, fields)
        _log.warning("%s", text)

    async def _request(self, identity: Identity) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = await loop.run_in_executor(
                self._asking, self._backend.request, identity, self._environment(identity)
            )
        except TonyError as error:
            self.feed(on.ContainerRefused(identity, error.message))
            return
        self._identities[handle] = identity
        self.feed(on.ContainerAsked(identity, handle))

    async def _stop(self, handle: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._asking, self._quietly_stop, handle)

    def _quietly_stop(self, handle: str) -> None:
        try:
            self._backend.stop(handle)
        except TonyError as error:
            # The machine's own deadlines see to a container that does not go.
            _log.warning("container %s is not stopped: %s", handle, error)

    async def _in_thread(self, call: Callable[[float], None], value: float) -> None:
        try:
            await asyncio.to_thread(call, value)
        except TonyError as error:
            _log.warning("%s", error)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Time and the back-end's news -----------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self.feed(on.Tick())

    async def _poll(self) -> None:
        known: dict[str, HandleState] = {}
        answered_at = self._clock.monotonic()
        while True:
            before = self._clock.monotonic()
            try:
                states = await asyncio.to_thread(self._backend.poll)
                answered_at = self._clock.monotonic()
            except Unreachable as error:
                states = []
                if self._clock.monotonic() - answered_at > _LOST_AFTER_S:
                    self.feed(on.BackendLost(error.message))
            for state in states:
                if known.get(state.handle) != state:
                    identity = self._identities.get(state.handle)
                    if identity is None:
                        continue
                    known[state.handle] = state
                    self.feed(on.ContainerSeen(identity, state))
            cost_s = self._clock.monotonic() - before
            # Never more than a quarter of the time: with thousands of containers one look takes a while.
            pause_s = _CALM_POLL_S if self.machine.calm else _POLL_S
            await self._sleep_watchfully(max(pause_s, 3 * cost_s))

    async def _sleep_watchfully(self, pause_s: float) -> None:
        """A calm job is looked at rarely, but the moment that it is not calm any more ends the pause."""
        ends_at = self._clock.monotonic() + pause_s
        while (rest_s := ends_at - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(rest_s, _POLL_S))
            if pause_s > _POLL_S and not self.machine.calm:
                return
