"""``tony stack``: where the user's code of every task is right now; tasks that stand at the same place together."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.cli.logs import chosen_tasks, ranks_of
from tony.errors import NotFinished
from tony.text import safe

SCHEMA = "tony.stack/1"
_NUMBERS = re.compile(r"0x[0-9a-f]+|container_\w+|(?<=[Pp]rocess )\d+|(?<=[Tt]hread )\d+")


@click.command(cls=TonyCommand)
@click.argument("job", required=False)
@click.option("--rank", metavar="LIST", help="Only these, like 0,3-5: indexes of the role, or ranks without --role.")
@click.option("--role", metavar="ROLE", help="Only tasks of this role.")
@cluster_option()
@click.pass_obj
def stack(
    invocation: Invocation, job: str | None, rank: str | None, role: str | None, cluster_name: str | None
) -> int:
    """Where the code of each task is: Python stacks where they can be had, else what the system tells of its threads.

    The tasks go on undisturbed. Default: the job submitted last.
    """
    output = invocation.output
    wanted = ranks_of(rank)
    with opened(invocation, job, cluster_name) as handle:
        snapshot = handle.snapshot()
        if snapshot.state.ended:
            raise NotFinished(f"{handle.application_id} has ended: nothing of it runs")
        order = {task.task: place for place, task in enumerate(snapshot.tasks)}
        found = [(one.task, one.host, one.text) for one in handle.stacks(chosen_tasks(snapshot, role, wanted))]
        found.sort(key=lambda one: order.get(one[0], len(order)))
    if output.json:
        rows = [{"task": task, "host": host, "text": text} for task, host, text in found]
        output.document({"schema": SCHEMA, "application_id": handle.application_id, "tasks": rows})
        return 0
    for tasks, text in grouped(found):
        output.data(output.style(f"── {', '.join(tasks)}", "bold", output.out))
        output.data("\n".join(safe(line) for line in text.splitlines()))
        output.data("")
    if not found:
        output.say("no task runs")
    return 0


def grouped(found: Iterable[tuple[str, str, str]]) -> list[tuple[list[str], str]]:
    """Tasks (with their hosts) whose stacks differ only in numbers of processes and threads, the largest group first.

    Shown is the text of the first of each group.
    """
    groups: dict[str, tuple[list[str], str]] = {}
    for task, host, text in found:
        groups.setdefault(_NUMBERS.sub("#", text), ([], text))[0].append(f"{task} on {host}" if host else task)
    return sorted(groups.values(), key=lambda group: -len(group[0]))
