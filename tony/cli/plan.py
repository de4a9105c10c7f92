"""``tony plan``: what a submit would do. The same as ``tony submit --dry-run``."""

from __future__ import annotations

from typing import Any

import click

from tony.cli.invocation import Invocation
from tony.cli.planning import planned, show_plan
from tony.cli.request import JobCommand, ask, job_parameters, request_of


@click.command(cls=JobCommand, params=job_parameters())
@click.pass_context
def plan(context: click.Context, /, **values: Any) -> int:
    """Check a job and show what a submit would do. Nothing leaves this machine."""
    invocation = context.find_object(Invocation)
    assert invocation is not None
    invocation.nothing_submitted = True
    asked = ask(request_of(context, values))
    with planned(asked, invocation) as made:
        show_plan(made.plan, asked, made.cluster, invocation, dry=True)
    return 0
