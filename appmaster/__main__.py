"""Environment and files → objects → loop → verdict. Runs in the folder of the application master's container.

Exit code 0 when a final status was reported; anything else makes the supervising script start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from appmaster import stimuli as on
from appmaster.environment import AppMasterEnvironment
from appmaster.folder import JobFolder
from appmaster.history import UNKEPT_EVENTS, History
from appmaster.local import LocalContainers
from appmaster.loop import Loop
from appmaster.machine import JobMachine
from appmaster.meeting import Meeting
from appmaster.rendezvous import Rendezvous
from appmaster.resume import KeptState, next_attempt, same_attempt
from appmaster.service import Service
from appmaster.store import StoreThread
from tony.clock import SystemClock
from tony.containers import AppState, ContainerBackend, Identity
from tony.errors import TonyError
from tony.frameworks import framework
from tony.plan import JobSecrets
from tony.protocol.credentials import Credentials
from tony.protocol.server import AppMasterServer
from tony.records import decode
from tony.snapshot import Verdict
from tony.spec import JobRecord, Upload
from tony.storage import Storage

_log = logging.getLogger("appmaster")

JOB_FILE = "tony-job.json"
SECRETS_FILE = "tony-secrets.json"
_PORT_FILE = "am-port"
_MEETING_PORT_FILE = "rendezvous-port"
_STOP_S = 0.3
_PORT_S = 40.0
"""Executors look for their master for a lease, usually 60 s."""
_PORT_PAUSE_S = 0.2
_FOLDER_S = 15.0
_PAUSE_S = 5.0


def main() -> int:
    """Run the application master of one job to its end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("skein").setLevel(logging.WARNING)
    here = Path.cwd()
    environment = AppMasterEnvironment.from_environ()
    record = decode((here / JOB_FILE).read_bytes(), JobRecord)
    secrets = decode((here / SECRETS_FILE).read_bytes(), JobSecrets)
    return asyncio.run(_run(here, environment, record, secrets))


async def _run(here: Path, environment: AppMasterEnvironment, record: JobRecord, secrets: JobSecrets) -> int:
    storage = Storage(record.storage, record.user)
    folder = JobFolder(storage, environment.application_id, here, environment.log_folder or here)
    with contextlib.closing(_backend(here, environment, record)) as backend, contextlib.closing(storage):
        again = (here / _PORT_FILE).exists()
        kept, settled = await _what_was_before(folder, environment.attempt, again)
        if settled is not None:
            _log.info("an earlier attempt ended the job: %s", settled.message)
            await asyncio.to_thread(backend.finish, AppState(settled.state.value), diagnostics(settled))
            return 0
        machine = _machine(kept, environment, record)
        clock = SystemClock()
        last_event = kept.last_event + UNKEPT_EVENTS if kept is not None else 0
        history = History(folder.write_events, environment.attempt, last_event, rescue=folder.rescue)
        credentials = Credentials(
            (here / environment.certificate).read_text(), (here / environment.private_key).read_text()
        )
        address: list[str] = []

        def of_container(identity: Identity) -> dict[str, str]:
            return {
                "TONY_BACKEND": environment.backend,
                "TONY_APPLICATION_ID": environment.application_id,
                "TONY_AM_ADDRESS": address[0],
                "TONY_TASK": str(identity.task),
                "TONY_INCARNATION": str(identity.incarnation),
                "TONY_GPUS": str(record.spec.role(identity.task.role).resources.gpus),
            }

        loop = Loop(machine, backend, folder, history, clock, of_container)
        checkpoint_dir = record.spec.checkpoint_dir or folder.checkpoints()
        service = Service(
            machine, record, history, clock, loop.feed, secrets.owner_key, secrets.secrets, checkpoint_dir
        )
        loop.service = service
        if framework(record.spec.framework).rendezvous:
            rendezvous = Rendezvous(record.spec, secrets.owner_key)
            service.meeting = Meeting(rendezvous, service.addresses, environment.host, clock, loop.feed)
            if kept is not None and kept.attempt == environment.attempt:
                rendezvous.reopen(machine.last_release())
            await _meet(service.meeting, here / _MEETING_PORT_FILE, environment.host)
        server = AppMasterServer(service, service, credentials, secrets.owner_key)
        port = await _listen(server, here / _PORT_FILE, environment.host, _PORT_S)
        address.append(f"{environment.host}:{port}")
        _log.info("%s listens on %s", environment.application_id, address[0])
        making = asyncio.create_task(
            _make_folder(folder, record, secrets, environment.host, port, environment.attempt)
        )
        if kept is not None and kept.attempt == environment.attempt:
            loop.resume()
        else:
            loop.feed(on.Begin())
        verdict = await loop.run()
        await asyncio.wait([making], timeout=_FOLDER_S)
        making.cancel()
        await loop.report(verdict)
        if service.meeting is not None:
            await service.meeting.close()
        await server.stop(_STOP_S)
        await loop.finish(verdict, diagnostics(verdict))
        loop.close()
    return 0


def diagnostics(verdict: Verdict) -> str:
    """One paragraph for the resource manager's page."""
    text = f"{verdict.reason.value}: {verdict.message}"
    failure = verdict.first_failure
    if failure is None:
        return text
    where = f"{failure.task} on {failure.host or 'an unknown host'}, generation {failure.generation}"
    how = failure.signal or (f"exit code {failure.exit_code}" if failure.exit_code is not None else "no exit code")
    return f"{verdict.reason.value}: {where}, {how}: {verdict.message}"


async def _what_was_before(folder: JobFolder, attempt: int, again: bool) -> tuple[KeptState | None, Verdict | None]:
    """The state to go on from, or the verdict to repeat. `again`: an earlier process was in this very container."""
    kept = folder.own_state()
    if kept is None and (again or attempt > 1):
        settled = await asyncio.to_thread(folder.verdict)
        if settled is not None:
            return None, settled
        kept = await asyncio.to_thread(folder.last_state)
        if kept is not None and kept.verdict is not None and kept.attempt < attempt:
            # The attempt before had decided and was stopping: its containers are gone, its word stands.
            with contextlib.suppress(TonyError):
                await folder.keep_verdict(kept.verdict, _FOLDER_S)
            return None, kept.verdict
    if kept is not None and kept.verdict is not None and kept.state.ended:
        return None, kept.verdict
    return kept, None


def _machine(kept: KeptState | None, environment: AppMasterEnvironment, record: JobRecord) -> JobMachine:
    clock = SystemClock()
    now, wall = clock.monotonic(), clock.wall()
    job, application_id, attempt = record.spec, environment.application_id, environment.attempt
    user, nodes = record.user, record.node_count
    if kept is None:
        return JobMachine(
            job, application_id, user, now=now, wall=wall, attempt=attempt, node_count=nodes, seed=os.getpid()
        )
    if kept.attempt == attempt:
        return same_attempt(kept, job, application_id, user, now, node_count=nodes)
    return next_attempt(kept, job, application_id, user, attempt, now, wall, node_count=nodes)


def _backend(here: Path, environment: AppMasterEnvironment, record: JobRecord) -> ContainerBackend:
    if environment.backend == "yarn":
        from tony.yarn import YarnContainers

        return YarnContainers.from_current({role.name: role.image for role in record.spec.roles if role.image})
    launch = importlib.util.find_spec("executor.launch")
    assert launch is not None and launch.origin is not None

    def files(role: str) -> Mapping[str, Path]:
        uploads = [record.environment, record.source, *record.files, *record.role_files.get(role, ())]
        found = {upload.name: _path(upload) for upload in uploads if upload is not None}
        for name in (environment.certificate, environment.private_key):
            found[name] = here / name
        return found

    return LocalContainers(
        here, [record.python, "-I", launch.origin, "executor"], files, environment.of_executor(), environment.host
    )


def _path(upload: Upload) -> Path:
    return Path(urlsplit(upload.url).path)


async def _listen(server: AppMasterServer | Meeting, port_file: Path, host: str, patience_s: float = 0.0) -> int:
    """Listen on the port of the process before, which every executor knows, else on any.

    It may be taken for a moment: any program of the node that connects somewhere can get it.
    """
    known = int(port_file.read_text()) if port_file.exists() else 0
    where = "127.0.0.1" if host in ("localhost", "127.0.0.1") else "0.0.0.0"
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + (patience_s if known else 0.0)
    while True:
        try:
            port = await server.start(where, known)
            break
        except OSError as error:
            if loop.time() > give_up_at:
                raise TonyError(f"the port of the process before is taken: {error}") from error
        await asyncio.sleep(_PORT_PAUSE_S)
    port_file.write_text(str(port))
    return port


async def _meet(meeting: Meeting, port_file: Path, host: str) -> None:
    """As `_listen`; but only ranks that are starting just now know the port, so another one will do."""
    try:
        await _listen(meeting, port_file, host)
    except TonyError:
        port_file.unlink()
        await _listen(meeting, port_file, host)


async def _make_folder(
    folder: JobFolder, record: JobRecord, secrets: JobSecrets, host: str, port: int, attempt: int
) -> None:
    """Try until the folder is there: without it clients do not find the job."""

    def make() -> None:
        folder.create(record, secrets)
        folder.keep_address(host, port, attempt)

    store = StoreThread("folder")
    while True:
        try:
            await store.call(make, _FOLDER_S)
            break
        except Exception as error:  # noqa: BLE001 - whatever a store fails with, the job goes on
            _log.error("the job folder cannot be made; clients do not find this job: %s", error)
            if folder.health is not None:
                folder.health.failed("the job's address", error)
        await asyncio.sleep(_PAUSE_S)
    if folder.health is not None:
        folder.health.worked("the job's address")


if __name__ == "__main__":
    sys.exit(main())
