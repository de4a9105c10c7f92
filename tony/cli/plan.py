"""``tony plan``: what a submit would do. The same as ``tony submit --dry-run``."""

from __future__ import annotations

from typing import Any

import click

from tony.asked import ask, planned
from tony.cli.invocation import Invocation
from tony.cli.planning import show_plan
from tony.cli.progress import ProgressLine
from tony.cli.request import JobCommand, job_parameters, request_of


@click.command(cls=JobCommand, params=job_parameters())
@click.pass_context
def plan(context: click.Context, /, **values: Any) -> int:
    """Check a job and show what a submit would do. Nothing leaves this machine."""
    invocation = context.find_object(Invocation)
    assert invocation is not None
    invocation.nothing_submitted = True
    asked = ask(request_of(context, values))
    with ProgressLine(invocation.output) as progress, planned(asked, progress) as made:
        show_plan(made.plan, asked, made.cluster, invocation, dry=True)
    return 0
