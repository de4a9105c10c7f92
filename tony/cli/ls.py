"""``tony ls``: jobs, the newest first."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Iterator

import click

from tony.asked import address_in
from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.settings import settings_of
from tony.cli.table import table
from tony.clusters import LOCAL, Address, connect
from tony.containers import AppReport, AppState
from tony.errors import UsageError
from tony.records import plain
from tony.units import format_duration

SCHEMA = "tony.list/1"
_MOST = 20
_HEADS = ("JOB", "NAME", "STATE", "QUEUE", "USER", "AGE", "TOOK", "TAGS")


@click.command(cls=TonyCommand)
@click.option("--all", "everything", is_flag=True, help="Jobs of every user, however old.")
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([state.value for state in AppState], case_sensitive=False),
    help="Only jobs in this state; may be repeated.",
)
@click.option("--tag", metavar="TAG", help="Only jobs with this tag.")
@click.option(
    "--cluster", "cluster_name", metavar="NAME", help="Where to look; default: the cluster and this machine."
)
@click.pass_obj
def ls(
    invocation: Invocation, everything: bool, state: tuple[str, ...], tag: str | None, cluster_name: str | None
) -> int:
    """Your latest jobs."""
    output = invocation.output
    user = None if everything else os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    reports: list[AppReport] = []
    for address in _addresses(invocation, cluster_name):
        with contextlib.closing(connect(address)) as cluster:
            whose = user if not address.local or everything else getpass.getuser()
            reports += cluster.list([AppState(one.upper()) for one in state], whose, tag)
    reports.sort(key=lambda report: report.started_at, reverse=True)
    if output.json:
        output.document({"schema": SCHEMA, "jobs": [plain(report) for report in reports]})
        return 0
    shown = reports if everything else reports[:_MOST]
    if not shown:
        output.say("no jobs")
        return 0
    for line in table(_HEADS, [_row(report, everything) for report in shown], output.width):
        output.data(line)
    if len(reports) > len(shown):
        output.say(f"{len(reports) - len(shown)} more: tony ls --all")
    return 0


def _addresses(invocation: Invocation, name: str | None) -> Iterator[Address]:
    """The cluster that was named; else the default one, if there is one, and the jobs of this machine."""
    settings = settings_of(invocation)
    name = name or settings.value("cluster")
    if name is not None:
        yield address_in(settings, name)
        return
    with contextlib.suppress(UsageError):
        yield address_in(settings, None)
    yield LOCAL


def _row(report: AppReport, with_user: bool) -> tuple[str, ...]:
    took_s = report.finished_at - report.started_at if report.finished_at and report.started_at else None
    age_s = time.time() - report.started_at if report.started_at else None
    return (
        report.application_id,
        report.name if len(report.name) <= 32 else report.name[:30] + "..",
        report.state.value,
        report.queue.removeprefix("root."),
        report.user if with_user else "",
        "" if age_s is None else format_duration(max(0.0, age_s)),
        "" if took_s is None else format_duration(max(0.0, took_s)),
        ",".join(tag for tag in report.tags if tag != "tony" and not tag.startswith("tony-")),
    )
