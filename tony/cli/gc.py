"""``tony gc``: remove what finished jobs left behind, here and on the cluster's storage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from tony.asked import address_in
from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.settings import settings_of
from tony.clusters import connect
from tony.containers import Cluster
from tony.errors import NoSuchJob, Problem, ProtocolError, UsageError
from tony.paths import state_dir
from tony.records import decode
from tony.spec import JobRecord
from tony.storage import Storage
from tony.units import format_bytes, parse_duration_s

SCHEMA = "tony.gc/1"
_JOBS = "jobs"


@dataclass
class _Found:
    """What was (or would be) removed, and the hashes that jobs still need."""

    jobs: list[str] = field(default_factory=list)
    with_checkpoints: list[str] = field(default_factory=list)
    needed: set[str] = field(default_factory=set)


@click.command(cls=TonyCommand)
@click.option("--older-than", metavar="TIME", default="7d", help="Only what was not used for so long.")
@click.option("--checkpoints", is_flag=True, help="Also jobs in whose folder checkpoints lie.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--cluster", "cluster_name", metavar="NAME", help="Where to clean; default: the default cluster.")
@click.pass_obj
def gc(invocation: Invocation, older_than: str, checkpoints: bool, dry_run: bool, cluster_name: str | None) -> int:
    """Remove the folders of finished jobs and archives that no submit has used.

    Jobs whose folder holds checkpoints stay, unless --checkpoints is given.
    """
    try:
        older_than_s = parse_duration_s(older_than)
    except ValueError as error:
        raise UsageError([Problem("--older-than", str(error), older_than, "on the command line")]) from error
    settings = settings_of(invocation)
    address = address_in(settings, cluster_name or settings.value("cluster"))
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(contextlib.closing(connect(address)))
        storage = stack.enter_context(contextlib.closing(Storage(cluster.storage)))
        found = _look(cluster, storage, time.time() - older_than_s, checkpoints)
        archives = size = 0
        if not dry_run:
            for application_id in found.jobs:
                _forget(cluster, storage, application_id)
            from tony.packaging.cache import ArchiveCache

            collected = ArchiveCache(storage).collect(older_than_s, found.needed)
            archives, size = collected.archives, collected.bytes
    output = invocation.output
    if output.json:
        output.document(
            {
                "schema": SCHEMA,
                "dry_run": dry_run,
                "jobs": found.jobs,
                "kept_with_checkpoints": found.with_checkpoints,
                "archives": archives,
                "bytes": size,
            }
        )
        return 0
    for application_id in found.jobs:
        output.data(f"{'would remove' if dry_run else 'removed'} {application_id}")
    for application_id in found.with_checkpoints:
        output.say(f"kept {application_id}: it holds checkpoints (--checkpoints removes them)")
    if not dry_run:
        output.say(f"removed {archives} archives, {format_bytes(size)}")
    return 0


def _look(cluster: Cluster, storage: Storage, before: float, checkpoints: bool) -> _Found:
    """Sort the job folders into those that may go and those that stay."""
    found = _Found()
    for application_id, changed_at in _folders(storage):
        old = changed_at < before and _over(cluster, application_id)
        if old and not checkpoints and storage.list(f"{_JOBS}/{application_id}/checkpoints"):
            found.with_checkpoints.append(application_id)
            old = False
        if old:
            found.jobs.append(application_id)
        else:
            found.needed |= _hashes(storage, application_id)
    return found


def _folders(storage: Storage) -> Iterator[tuple[str, float]]:
    for entry in storage.entries(_JOBS):
        if entry.folder:
            yield entry.name, entry.modified_at


def _over(cluster: Cluster, application_id: str) -> bool:
    try:
        return cluster.report(application_id).state.ended
    except NoSuchJob:
        return True


def _hashes(storage: Storage, application_id: str) -> set[str]:
    """The archives that a job which stays was started with."""
    try:
        record = decode(storage.read(f"{_JOBS}/{application_id}/spec.json"), JobRecord)
    except (OSError, ProtocolError):
        return set()
    uploads = [record.runtime, record.jar, record.environment, record.source, *record.files]
    uploads += [upload for files in record.role_files.values() for upload in files]
    uploads += [inside.runtime for inside in record.images.values()]
    return {upload.sha256 for upload in uploads if upload is not None}


def _forget(cluster: Cluster, storage: Storage, application_id: str) -> None:
    storage.remove(f"{_JOBS}/{application_id}")
    forget = getattr(cluster, "forget", None)
    if forget is not None:
        forget(application_id)
    for folder in ("jobs", "submits"):
        (state_dir() / folder / f"{application_id}.json").unlink(missing_ok=True)
