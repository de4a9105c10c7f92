"""Which job a command means, and a handle on it: a full id, the end of one, or nothing for the latest."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from tony.asked import address_in
from tony.cli.invocation import Invocation
from tony.cli.settings import settings_of
from tony.client import address_of, attach, records_kept
from tony.clusters import connect
from tony.containers import Cluster
from tony.errors import NoSuchJob, TonyError
from tony.jobhandle import JobHandle
from tony.text import safe

F = TypeVar("F", bound=Callable[..., Any])

_FULL = re.compile(r"(?:application_\d{1,20}_\d{4,10}|local_\d{1,20}_\d{4,10})")


def cluster_option() -> Callable[[F], F]:
    """``--cluster`` for commands about jobs."""
    return click.option(
        "--cluster", "cluster_name", metavar="NAME", help="Where to look; default: where it was submitted."
    )


@contextlib.contextmanager
def default_cluster(invocation: Invocation, name: str | None) -> Iterator[Cluster]:
    """The cluster that was named, or the default one; closed at the end."""
    settings = settings_of(invocation)
    with contextlib.closing(connect(address_in(settings, name or settings.value("cluster")))) as cluster:
        yield cluster


@contextlib.contextmanager
def opened(invocation: Invocation, text: str | None, cluster_name: str | None = None) -> Iterator[JobHandle]:
    """A handle on the job that is meant. Raises NoSuchJob, UsageError, Unreachable."""
    with contextlib.ExitStack() as stack:
        application_id = job_id(invocation, text, cluster_name)
        known = address_of(application_id) if cluster_name is None else None
        if known is not None:
            cluster = stack.enter_context(contextlib.closing(connect(known)))
        else:
            cluster = stack.enter_context(default_cluster(invocation, cluster_name))
        yield stack.enter_context(contextlib.closing(attach(application_id, cluster)))


def job_id(invocation: Invocation, text: str | None, cluster_name: str | None = None) -> str:
    """The full id. Without `text`, the job submitted last from here; a part of an id, where only one job fits.

    A number that several clusters have is that on the one where the last job was submitted.
    """
    if text is not None and _FULL.fullmatch(text):
        return text
    recent = [record.application_id for record in records_kept()]
    if text is None:
        if recent:
            return recent[0]
        raise NoSuchJob(
            "no job was submitted from here", hint="Name one: tony ls --all lists what the cluster knows."
        )
    fitting = [one for one in recent if fits(one, text)]
    if len(fitting) > 1 and text.isdigit():
        # The numbers begin anew with each resource manager that has lost its memory.
        fitting = [one for one in fitting if one.rpartition("_")[0] == recent[0].rpartition("_")[0]] or fitting
    if not fitting:
        with contextlib.suppress(TonyError), default_cluster(invocation, cluster_name) as cluster:
            fitting = [report.application_id for report in cluster.list() if fits(report.application_id, text)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise NoSuchJob(f"no job fits {safe(text)!r}", hint="tony ls lists the jobs.")
    raise NoSuchJob(f"{len(fitting)} jobs fit {safe(text)!r}: {', '.join(fitting[:4])}", hint="Write more of the id.")


def fits(application_id: str, text: str) -> bool:
    """Whether the text is the beginning of that id, its end, or its last number."""
    if text.isascii() and text.isdigit():
        return int(application_id.rpartition("_")[2]) == int(text)
    return len(text) >= 5 and (application_id.startswith(text) or application_id.endswith(text))
