"""Submitting as a library: `plan` what a job needs, `submit` it, `attach` to it later. Never prints, never exits.

job = JobSpec("mnist", (RoleSpec("worker", ("train.py",), instances=2),), source="code")
with contextlib.closing(choose("local")) as cluster:
    handle = submit(plan(job, cluster), cluster)
    print(handle.wait().state)
"""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tony.containers import Cluster, SubmitProgress
from tony.errors import NoSuchJob, PackagingError, Problem, ProtocolError, Refused, TonyError, UsageError
from tony.frameworks import problems as framework_problems
from tony.idempotency import find, submit_once, tagged
from tony.jobhandle import JobHandle
from tony.paths import private_folder, state_dir
from tony.plan import JobSecrets, Plan, PlannedUpload
from tony.records import decode, encode
from tony.spec import JobSpec
from tony.storage import Storage

if TYPE_CHECKING:
    from tony.clusters import Address

__all__ = ["JobHandle", "SubmitRecord", "attach", "plan", "submit", "submitted"]

Progress = Callable[[SubmitProgress], None]


@dataclass(frozen=True)
class SubmitRecord:
    """What this machine keeps of a submit, for finding the job again. Times are wall time."""

    application_id: str
    name: str
    cluster: str
    conf_dir: str = ""
    bin_dir: str = ""
    storage: str = ""
    command_at: float = 0.0
    uploaded_at: float = 0.0
    accepted_at: float = 0.0
    uploaded_bytes: int = 0


def plan(job: JobSpec, cluster: Cluster, node_python: str | None = None, progress: Progress | None = None) -> Plan:
    """Check the job against framework and cluster and build its archives. Nothing leaves this machine.

    `node_python`: the interpreter that runs our own processes on the nodes; default: this one's, as the nodes would
    have it. Blocks for packing. Raises UsageError or Refused with all problems, Unreachable, PackagingError.
    """
    _check(job, cluster)
    from tony.bundle import bundle

    return bundle(job, cluster, node_python, progress or _silent)


def submit(
    planned: Plan,
    cluster: Cluster,
    progress: Progress | None = None,
    secrets: Mapping[str, str] | None = None,
    command_at: float = 0.0,
    idempotency_key: str | None = None,
) -> JobHandle:
    """Upload what the cluster does not have, and submit. Returns once the cluster has accepted the job.

    When it fails, what this call uploaded is removed again, except what other jobs use.
    `secrets`: values of the job's secrets by name. Raises PackagingError, Refused, Unreachable, NotPermitted.
    `idempotency_key`: when a job with this key lives or has succeeded, it is attached to (`JobHandle.attached`) and
    nothing is submitted, also when two processes submit at the same moment.
    """
    if idempotency_key is not None:
        found = submitted(idempotency_key, cluster)
        if found is not None:
            return found
        planned = tagged(planned, idempotency_key)
    from tony.protocol.credentials import new_credentials

    progress = progress or _silent
    credentials = new_credentials()
    kept = JobSecrets(credentials.certificate, credentials.private_key, random.token_urlsafe(32), dict(secrets or {}))
    storage = Storage(cluster.storage)
    uploaded: list[PlannedUpload] = []
    try:
        uploaded_bytes = _upload(planned, storage, uploaded, progress)
        uploaded_at = time.time()
        progress(SubmitProgress("submitting"))
        if idempotency_key is None:
            application_id, ours = cluster.submit(planned, kept), True
        else:
            application_id, ours = submit_once(
                idempotency_key, cluster, storage, lambda: cluster.submit(planned, kept)
            )
    except BaseException:
        _undo(storage, uploaded)
        storage.close()
        raise
    if not ours:
        # The other submitter's job may need what was uploaded here.
        storage.close()
        return _attached(application_id, planned.job.name, cluster)
    record = _record(
        application_id,
        planned.job.name,
        cluster,
        command_at=command_at or uploaded_at,
        uploaded_at=uploaded_at,
        accepted_at=time.time(),
        uploaded_bytes=uploaded_bytes,
    )
    try:
        keep_record(record)
    except OSError:
        pass  # the job can still be found by its id
    except BaseException:
        cluster.kill(application_id)
        storage.close()
        raise
    return JobHandle(application_id, cluster, replace(kept, secrets={}), storage)


def submitted(idempotency_key: str, cluster: Cluster) -> JobHandle | None:
    """The job with that key that lives or has succeeded; None when there is none. Raises Unreachable."""
    found = find(idempotency_key, cluster)
    return None if found is None else _attached(found.application_id, found.name, cluster)


def attach(application_id: str, cluster: Cluster | None = None) -> JobHandle:
    """The handle of a job that was submitted before, by this user on any machine.

    Without `cluster`: where it was submitted from here, else the default one. Raises NoSuchJob, Unreachable.
    """
    if cluster is None:
        from tony.clusters import choose, connect

        known = address_of(application_id)
        cluster = connect(known) if known is not None else choose(None)
    handle = JobHandle(application_id, cluster, _own_secrets(application_id))
    try:
        handle.report()
    except NoSuchJob:
        if handle.verdict() is None:
            handle.close()
            raise
    return handle


def address_of(application_id: str) -> Address | None:
    """The cluster to which a job was submitted from this machine; None when that is not known."""
    from tony.clusters import LOCAL, Address

    if application_id.startswith("local_"):
        return LOCAL
    record = record_of(application_id)
    if record is None or not record.conf_dir:
        return None
    return Address(record.cluster, record.conf_dir, record.bin_dir, record.storage)


def records_kept() -> list[SubmitRecord]:
    """The submits from this machine, the newest first."""
    found = []
    for path in (state_dir() / "submits").glob("*.json"):
        record = record_of(path.stem)
        if record is not None:
            found.append(record)
    return sorted(found, key=lambda one: one.accepted_at, reverse=True)


def keep_record(record: SubmitRecord) -> None:
    """Remember a submit in the state folder."""
    folder = private_folder(state_dir() / "submits")
    partial = folder / f".{record.application_id}.partial"
    partial.write_bytes(encode(record))
    partial.replace(folder / f"{record.application_id}.json")


def record_of(application_id: str) -> SubmitRecord | None:
    """What is remembered of a submit from this machine."""
    if "/" in application_id:
        return None
    try:
        return decode((state_dir() / "submits" / f"{application_id}.json").read_bytes(), SubmitRecord)
    except (OSError, ProtocolError):
        return None


def _attached(application_id: str, name: str, cluster: Cluster) -> JobHandle:
    """The handle of a job that another submit has made; what that one could not keep is kept now."""
    if record_of(application_id) is None:
        with suppress(OSError):
            keep_record(_record(application_id, name, cluster, accepted_at=time.time()))
    return JobHandle(application_id, cluster, _own_secrets(application_id), attached=True)


def _record(application_id: str, name: str, cluster: Cluster, **more: Any) -> SubmitRecord:
    return SubmitRecord(
        application_id,
        name,
        cluster.name,
        conf_dir=str(getattr(cluster, "conf_dir", "")),
        bin_dir=str(getattr(cluster, "bin_dir", None) or ""),
        storage=cluster.storage,
        **more,
    )


def _own_secrets(application_id: str) -> JobSecrets | None:
    if "/" in application_id:
        return None
    try:
        return decode((state_dir() / "jobs" / f"{application_id}.json").read_bytes(), JobSecrets)
    except (OSError, ProtocolError):
        return None


def _check(job: JobSpec, cluster: Cluster) -> None:
    problems: list[Problem] = []
    try:
        problems += framework_problems(job)
    except UsageError as error:
        problems += error.problems
    refused = cluster.check(job)
    if problems:
        raise UsageError([*problems, *refused])
    if refused:
        raise Refused(refused)


def _upload(planned: Plan, storage: Storage, uploaded: list[PlannedUpload], progress: Progress) -> int:
    """Upload what is missing, noting in `uploaded` what this call created. Returns the bytes."""
    from tony.bundle import archive_of
    from tony.packaging.cache import ArchiveCache

    cache = ArchiveCache(storage)
    total = sum(item.upload.size for item in planned.uploads)
    done = sent = 0
    for item in planned.uploads:
        step = f"uploading {item.what}"

        def moved(now: int, _: int, before: int = done, step: str = step) -> None:
            progress(SubmitProgress(step, before + now, total))

        progress(SubmitProgress(step, done, total))
        stored, count = cache.put(archive_of(item), item.upload.name, moved)
        if stored.url != item.upload.url:
            raise PackagingError(f"{item.what} landed at {stored.url}, not at {item.upload.url} as planned")
        if count:
            uploaded.append(item)
            sent += count
        done += item.upload.size
    return sent


def _undo(storage: Storage, uploaded: list[PlannedUpload]) -> None:
    from tony.bundle import MASTER_JAR, RUNTIME
    from tony.packaging.cache import ArchiveCache

    for item in uploaded:
        if item.what not in (RUNTIME, MASTER_JAR):
            with suppress(OSError, TonyError):
                ArchiveCache(storage).take_back(item.upload)


def _silent(progress: SubmitProgress) -> None:
    """Nobody watches."""
