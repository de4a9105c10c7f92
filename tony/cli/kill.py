"""``tony kill``: the master is asked first, then the cluster; returns when the end is confirmed."""

from __future__ import annotations

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.errors import Problem, UsageError
from tony.state import Reason
from tony.units import parse_duration_s

SCHEMA = "tony.kill/1"


@click.command(cls=TonyCommand)
@click.argument("job", nargs=-1, required=True)
@click.option("--grace", metavar="TIME", default="30s", help="Time for the user's code to end by itself.")
@click.option("--reason", metavar="TEXT", default="", help="Kept in the job's history.")
@cluster_option()
@click.pass_obj
def kill(invocation: Invocation, job: tuple[str, ...], grace: str, reason: str, cluster_name: str | None) -> int:
    """End jobs. A job that has ended already is left as it is."""
    try:
        grace_s = parse_duration_s(grace)
    except ValueError as error:
        raise UsageError([Problem("--grace", str(error), grace, "on the command line")]) from error
    output = invocation.output
    output.goes_on = True
    ends = []
    for text in job:
        with opened(invocation, text, cluster_name) as handle:
            report = handle.report()
            before = report.state.ended
            if not before:
                output.say(f"stopping {handle.application_id}")
            outcome = handle.outcome() if before else handle.stop(reason or "tony kill", grace_s)
            if before and outcome.reason is Reason.AM_LOST:
                handle.kill()  # a master that was lost may have left tasks behind
            ends.append(
                {
                    "application_id": handle.application_id,
                    "state": outcome.state.value,
                    "reason": outcome.reason.value,
                    "ended_before": before,
                }
            )
            output.say(f"{handle.application_id} {outcome.state.value}{' already' if before else ''}")
    if output.json:
        output.document({"schema": SCHEMA, "jobs": ends})
    return 0
