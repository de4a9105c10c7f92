"""``tony resize``: another number of workers for a running job; returns when it runs with them."""

from __future__ import annotations

import time

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.cli.output import Output
from tony.errors import NotFinished, Problem, UsageError
from tony.jobhandle import JobHandle
from tony.snapshot import JobSnapshot
from tony.state import JobState
from tony.text import safe
from tony.units import parse_duration_s

SCHEMA = "tony.resize/1"
_LOOK_S = 0.5


@click.command(cls=TonyCommand)
@click.argument("job")
@click.argument("workers", type=click.IntRange(min=1))
@click.option("--timeout", metavar="TIME", help="Wait so long at most, then end with 101; the job goes on growing.")
@click.option("--no-wait", is_flag=True, help="Return when the job has taken it in.")
@cluster_option()
@click.pass_obj
def resize(
    invocation: Invocation, job: str, workers: int, timeout: str | None, no_wait: bool, cluster_name: str | None
) -> int:
    """Give a job more or fewer workers, within its --min-workers and --max-workers.

    All tasks are stopped politely and start again, from their checkpoints, in a world of the new size. New ones are
    prepared while the others train on. Ctrl-C ends the waiting, not the change.
    """
    try:
        timeout_s = parse_duration_s(timeout) if timeout is not None else None
    except ValueError as error:
        raise UsageError([Problem("--timeout", str(error), timeout, "on the command line")]) from error
    output = invocation.output
    with opened(invocation, job, cluster_name) as handle:
        before = handle.snapshot()
        if before.state.ended:
            raise UsageError(f"{handle.application_id} is over: {before.state.value}")
        handle.resize(workers)
        after = handle.snapshot() if no_wait else _wait(output, handle, workers, timeout_s)
        was = before.size.now if before.size is not None else workers
        now = after.size.now if after.size is not None else workers
        tasks = f"{now} task" + ("s" if now != 1 else "")
        output.say(f"{handle.application_id} {after.state.value} with {tasks}, generation {after.generation}")
        if output.json:
            output.document(
                {
                    "schema": SCHEMA,
                    "application_id": handle.application_id,
                    "state": after.state.value,
                    "generation": after.generation,
                    "before": was,
                    "now": now,
                    "target": workers,
                }
            )
    return 0


def _wait(output: Output, handle: JobHandle, workers: int, timeout_s: float | None) -> JobSnapshot:
    """Until it runs with that many. Raises NotFinished when the time is over, or the job."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    told = ""
    while True:
        snapshot = handle.snapshot()
        size = snapshot.size
        if snapshot.state.ended or snapshot.state is JobState.STOPPING:
            raise NotFinished(
                f"{handle.application_id} ended before it had {workers} tasks: {snapshot.state.value}",
                hint=f"tony wait {handle.application_id}",
            )
        if size is not None and size.target != workers:
            raise NotFinished(f"somebody else asked {handle.application_id} for {size.target} tasks meanwhile")
        if size is not None and size.now == workers and snapshot.state is JobState.RUNNING:
            return snapshot
        if snapshot.waiting_for and snapshot.waiting_for != told:
            told = snapshot.waiting_for
            output.say(safe(f"waiting: {told}"))
        if deadline is not None and time.monotonic() > deadline:
            raise NotFinished(
                f"{handle.application_id} does not have {workers} tasks yet: {told or snapshot.state.value}",
                hint=f"tony status {handle.application_id}",
            )
        time.sleep(_LOOK_S)
