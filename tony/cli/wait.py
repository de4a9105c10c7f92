"""``tony wait``: block until a job has ended, and end with its result."""

from __future__ import annotations

import click

from tony.cli.ending import finish
from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.errors import NotFinished, Problem, UsageError
from tony.units import parse_duration_s


@click.command(cls=TonyCommand)
@click.argument("job", required=False)
@click.option("--timeout", metavar="TIME", help="Give up after this long, with exit code 101.")
@cluster_option()
@click.pass_obj
def wait(invocation: Invocation, job: str | None, timeout: str | None, cluster_name: str | None) -> int:
    """Wait for a job; the exit code is the job's. Ctrl-C ends the waiting, not the job."""
    timeout_s = None
    invocation.output.goes_on = True
    if timeout is not None:
        try:
            timeout_s = parse_duration_s(timeout)
        except ValueError as error:
            raise UsageError([Problem("--timeout", str(error), timeout, "on the command line")]) from error
    with opened(invocation, job, cluster_name) as handle:
        try:
            outcome = handle.wait(timeout_s)
        except NotFinished as error:
            raise NotFinished(
                f"{handle.application_id} has not ended after {timeout}", hint=f"tony status {handle.application_id}"
            ) from error
        finish(invocation, handle.application_id, outcome, outcome.exit_code, handle.cluster)
        return outcome.exit_code
