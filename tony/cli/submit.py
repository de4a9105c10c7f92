"""``tony submit``: check, plan, upload, submit, follow, and end with the job's result."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from tony.asked import Asked, ask, planned
from tony.cli.ending import finish
from tony.cli.follow import Follower, Interrupted
from tony.cli.invocation import Invocation
from tony.cli.planning import show_plan
from tony.cli.progress import ProgressLine
from tony.cli.request import JobCommand, job_parameters, request_of
from tony.clusters import connect
from tony.errors import NotFinished
from tony.jobhandle import JobHandle


@click.command(cls=JobCommand, params=job_parameters())
@click.option("--dry-run", is_flag=True, help="Show the plan and stop; nothing leaves this machine.")
@click.pass_context
def submit(context: click.Context, /, dry_run: bool, **values: Any) -> int:
    """Submit a training job and follow it to its end.

    SCRIPT runs in every task that has no command of its own; its folder is the code. ARGS reach it unchanged.

    The exit code is the job's: 0 succeeded, 100 user code failed, 104 infrastructure, 105 timed out, 107 out of
    memory, 130 interrupted; 2 and 3 mean that nothing was submitted.
    """
    from tony.cli.main import interruptible

    invocation = context.find_object(Invocation)
    assert invocation is not None
    invocation.nothing_submitted = True
    invocation.output.goes_on = not dry_run
    interruptible()
    asked = ask(request_of(context, values))
    if dry_run:
        with ProgressLine(invocation.output) as progress, planned(asked, progress) as made:
            show_plan(made.plan, asked, made.cluster, invocation, dry=True)
        return 0
    return _submit(invocation, asked)


def _submit(invocation: Invocation, asked: Asked) -> int:
    from tony import client

    output = invocation.output
    with contextlib.ExitStack() as stack:
        handle = _submitted_before(asked, stack)
        if handle is None:
            with ProgressLine(output) as progress:
                made = stack.enter_context(planned(asked, progress, warm_up=True))
            show_plan(made.plan, asked, made.cluster, invocation)
            with ProgressLine(output) as progress:
                handle = client.submit(
                    made.plan,
                    made.cluster,
                    progress,
                    asked.resolved.secrets,
                    command_at=invocation.started_at,
                    idempotency_key=asked.resolved.idempotency_key,
                )
        stack.callback(handle.close)
        invocation.nothing_submitted = False
        application_id = handle.application_id
        known = f"attached   {application_id}, submitted before with this idempotency key"
        said = known if handle.attached else f"submitted  {application_id}"
        if asked.resolved.detach:
            output.say(said)
            return _detached(invocation, handle)
        try:
            output.say(said)
            follower = Follower(handle, output, grace_s=asked.resolved.job.times.stop_grace_s)
            outcome = follower.follow(asked.resolved.on_interrupt)
            code = outcome.exit_code
        except Interrupted as interrupted:
            if interrupted.outcome is None:
                output.tell(f"detached; the job goes on. Follow it: tony logs -f {application_id}")
                return NotFinished.exit_code
            outcome, code = interrupted.outcome, 130
        except KeyboardInterrupt:
            # Ctrl-C again and again, or in the moment before the following began.
            outcome, code = handle.kill(), 130
        finish(invocation, application_id, outcome, code, handle.cluster)
        return code


def _submitted_before(asked: Asked, stack: contextlib.ExitStack) -> JobHandle | None:
    """The job with the request's idempotency key; looked for first, so that nothing is packed in vain."""
    from tony import client

    key = asked.resolved.idempotency_key
    if key is None:
        return None
    cluster = connect(asked.address)
    stack.callback(cluster.close)
    return client.submitted(key, cluster)


def _detached(invocation: Invocation, handle: JobHandle) -> int:
    """Back at ACCEPTED: the id for programs, the next commands for people."""
    output, application_id = invocation.output, handle.application_id
    report = handle.report()
    if output.json:
        output.document(
            {
                "schema": "tony.submitted/1",
                "application_id": application_id,
                "name": report.name,
                "state": report.state.value,
                "tracking_url": report.tracking_url,
                "attached": handle.attached,
            }
        )
    else:
        output.data(application_id)
    output.say(f"  follow     tony logs -f {application_id}")
    output.say(f"  state      tony status {application_id}")
    output.say(f"  end it     tony kill {application_id}")
    return 0
