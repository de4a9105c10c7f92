"""The job folder on shared storage, and the state file beside the process: what outlives an application master."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from appmaster.machine import JobMachine
from appmaster.resume import KeptState, keep
from appmaster.store import StoreHealth, StoreThread
from tony.errors import ProtocolError
from tony.plan import JobSecrets
from tony.records import decode, encode
from tony.snapshot import Verdict
from tony.spec import JobRecord
from tony.storage import Storage

_log = logging.getLogger(__name__)

_STATE_FILE = "state.json"
_REMOTE_PAUSE_S = 1.0
_KEPT_STATES = 2
_STATE_S = 30.0
_AFTER_FAILURE_S = 5.0

T = TypeVar("T")


class JobFolder:
    """``<base>/jobs/<application id>/`` and, for the state, a file in `here` (the process's own folder)."""

    def __init__(self, storage: Storage, application_id: str, here: Path, logs: Path | None = None) -> None:
        """`logs`: where what storage does not take is kept for people."""
        self.health: StoreHealth | None = None
        self._logs = logs
        self._state_store, self._verdict_store = StoreThread("state"), StoreThread("verdict")
        self._storage = storage
        self._path = f"jobs/{application_id}"
        self._here = here
        self._unwritten: tuple[int, bytes] | None = None
        self._written: deque[int] = deque()
        self._number = 0

    # The life of the folder -----------------------------------------------------------------------------------

    def create(self, record: JobRecord, secrets: JobSecrets) -> None:
        """Make the folder and what every reader needs. Blocks; raises TonyError."""
        self._storage.make_folder(self._path)
        self._storage.make_folder(f"{self._path}/checkpoints")
        self._write("spec.json", encode(record))
        # Whoever may read the owner's files may attach; the user's own secrets are nobody's to read here.
        self._write("owner.key", encode(replace(secrets, secrets={})))

    def keep_address(self, host: str, port: int, attempt: int) -> None:
        """Say where this application master is. Blocks."""
        self._write("address.json", encode({"host": host, "port": port, "attempt": attempt}))

    def checkpoints(self) -> str:
        """The default of ``TONY_CHECKPOINT_DIR``: a plain path where the storage is this machine's own."""
        url = self._storage.url(f"{self._path}/checkpoints")
        return url.removeprefix("file://")

    def write_events(self, name: str, lines: bytes) -> None:
        """A batch of history. Blocks."""
        self._write(name, lines)

    # State ----------------------------------------------------------------------------------------------------

    def keep_state(self, machine: JobMachine, last_event: int) -> None:
        """Keep the state beside the process, now, and on storage soon."""
        self._number += 1
        raw = encode(keep(machine, last_event, self._number))
        self._unwritten = self._number, raw
        temporary = self._here / f"{_STATE_FILE}.new"
        try:
            temporary.write_bytes(raw)
            os.replace(temporary, self._here / _STATE_FILE)
        except OSError as error:
            _log.error("the state is not kept here: %s", error)
            with suppress(OSError):
                # An old state would be believed; without one, that on storage is.
                (self._here / _STATE_FILE).unlink(missing_ok=True)
            if self.health is not None:
                self.health.failed("the state of the job", error, "on shared storage only")
        else:
            if self.health is not None:
                self.health.worked("the state of the job")

    async def keep_writing(self) -> None:
        """Carry the newest state to storage at most once a second. Runs until cancelled."""
        while True:
            await asyncio.sleep(_REMOTE_PAUSE_S)
            newest, self._unwritten = self._unwritten, None
            if newest is not None:
                await self._carry(newest)

    async def _carry(self, newest: tuple[int, bytes]) -> None:
        try:
            await self._state_store.call(lambda: self._write_state(*newest), _STATE_S)
        except Exception as error:  # noqa: BLE001 - whatever a store fails with, the job goes on
            _log.warning("the state is not kept on storage: %s", error)
            self._unwritten = self._unwritten or newest
            if self.health is not None:
                self.health.failed("the state", error)
            await asyncio.sleep(_AFTER_FAILURE_S)
        else:
            if self.health is not None:
                self.health.worked("the state")

    def _write_state(self, number: int, raw: bytes) -> None:
        """A new name each time: HDFS cannot replace a file in one step. The newest whole one counts."""
        self._write(f"state-{number}.json", raw)
        self._written.append(number)
        while len(self._written) > _KEPT_STATES:
            self._storage.remove(f"{self._path}/state-{self._written.popleft()}.json")

    def own_state(self) -> KeptState | None:
        """What an earlier process in this very container left. Its numbers go on, or older states would be newer."""
        path = self._here / _STATE_FILE
        state = _whole(path.read_bytes(), KeptState) if path.exists() else None
        self._number = state.number if state is not None else 0
        return state

    def last_state(self) -> KeptState | None:
        """What was left on storage: the newest state that can be read. Blocks."""
        names = [name for name in self._storage.list(self._path) if name.startswith("state-")]
        numbers = sorted((int(name[6:-5]) for name in names if name[6:-5].isdigit()), reverse=True)
        self._number = max(numbers, default=0)
        for number in numbers:
            state = _whole(self._storage.read(f"{self._path}/state-{number}.json"), KeptState)
            if state is not None:
                return state
        return None

    # Verdict --------------------------------------------------------------------------------------------------

    async def keep_verdict(self, verdict: Verdict, limit_s: float) -> None:
        """Write the verdict once; one that is there already stays. Raises what the storage does, and Unreachable."""
        await self._verdict_store.call(lambda: self._keep_verdict(verdict), limit_s)

    def rescue(self, name: str, content: bytes) -> None:
        """Keep on this node, among the logs of the application master, what storage does not take."""
        if self._logs is not None:
            try:
                (self._logs / name).write_bytes(content)
            except OSError as error:
                _log.error("%s is not kept here either: %s", name, error)

    def _keep_verdict(self, verdict: Verdict) -> None:
        if not self._storage.exists(f"{self._path}/verdict.json"):
            self._write("verdict.json", encode(verdict))

    def verdict(self) -> Verdict | None:
        """The verdict of an earlier attempt. Blocks."""
        path = f"{self._path}/verdict.json"
        return _whole(self._storage.read(path), Verdict) if self._storage.exists(path) else None

    def _write(self, name: str, content: bytes) -> None:
        self._storage.write(f"{self._path}/{name}", content, overwrite=True)


def _whole(raw: bytes, kind: type[T]) -> T | None:
    """The value, or None where the file was only half written."""
    try:
        return decode(raw, kind)
    except ProtocolError as error:
        _log.warning("%s", error)
        return None
