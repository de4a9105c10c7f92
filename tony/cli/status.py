"""``tony status``: one line saying what the job waits for, and a row for each task."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.cli.output import Output
from tony.cli.table import table
from tony.records import plain
from tony.snapshot import JobSnapshot, TaskSnapshot
from tony.state import JobState
from tony.text import safe
from tony.units import format_duration, format_memory

SCHEMA = "tony.status/1"
_WATCH_S = 1.0
_MOST_WARNINGS = 8
_COLOURS = {JobState.SUCCEEDED: "green", JobState.FAILED: "red", JobState.KILLED: "yellow"}
_HEADS = ("TASK", "STATE", "HOST", "CONTAINER", "TRY", "AGE", "BEAT", "STEP", "MEMORY", "GPU", "GPUS", "EXIT")
_DEVICE_NUMBER = re.compile(r"GPU (\d+):")


@click.command(cls=TonyCommand)
@click.argument("job", required=False)
@click.option("-w", "--watch", is_flag=True, help="Show it again every second until the job has ended.")
@cluster_option()
@click.pass_obj
def status(invocation: Invocation, job: str | None, watch: bool, cluster_name: str | None) -> int:
    """What a job does, what it waits for, and where its tasks are. Default: the job submitted last."""
    output = invocation.output
    with opened(invocation, job, cluster_name) as handle:
        shown = ""
        while True:
            snapshot = handle.snapshot()
            if output.json:
                output.document(status_document(snapshot), lines=watch)
            else:
                text = "\n".join(status_lines(output, snapshot))
                if watch and output.out.isatty():
                    output.data("\x1b[H\x1b[J" + text)
                elif text != shown:
                    output.data(text)
                shown = text
            if not watch or snapshot.state.ended:
                return 0
            time.sleep(_WATCH_S)


def status_document(snapshot: JobSnapshot) -> dict[str, Any]:
    """``tony.status/1``."""
    document: dict[str, Any] = plain(snapshot)
    return {"schema": SCHEMA, **document}


def status_lines(output: Output, snapshot: JobSnapshot) -> list[str]:
    """The lines for people."""
    state = output.style(snapshot.state.value, _COLOURS.get(snapshot.state, "cyan"), output.out)
    verdict = snapshot.verdict
    parts = [f"{safe(snapshot.name)}  {snapshot.application_id}  {state}"]
    if verdict is not None and verdict.state is not JobState.SUCCEEDED:
        parts.append(f"({verdict.reason.value})")
    if snapshot.generation > 1:
        parts.append(f"generation {snapshot.generation}")
    end = verdict.timeline.finished if verdict is not None and verdict.timeline.finished else snapshot.now
    if snapshot.started_at and end >= snapshot.started_at:
        parts.append(format_duration(end - snapshot.started_at))
    lines = ["  ".join(parts)]
    size = snapshot.size
    if size is not None and not snapshot.state.ended:
        bounds = f"{size.least} to {size.most}"
        lines.append(safe(f"{size.now} of {size.target} {size.role} tasks; it may have {bounds}"))
    if snapshot.waiting_for and not snapshot.state.ended:
        lines.append(safe(snapshot.waits))
    if verdict is not None and verdict.state is not JobState.SUCCEEDED and verdict.message:
        lines.append(safe(verdict.message))
    for excluded in snapshot.excluded_nodes:
        left = format_duration(max(0.0, excluded.until - snapshot.now))
        lines.append(safe(f"keeps away from {excluded.node} for {left}: {excluded.why}"))
    lines += [f"warning: {safe(task.warning)}" for task in snapshot.tasks if task.warning][:_MOST_WARNINGS]
    if not snapshot.state.ended:
        lines += [f"{safe(kind)}  {safe(url)}" for kind, url in sorted(snapshot.urls.items())]
    if snapshot.tasks:
        width = output.width if output.out.isatty() else 120
        lines += ["", *table(_HEADS, [_row(task) for task in snapshot.tasks], width)]
    return lines


def _row(task: TaskSnapshot) -> tuple[str, ...]:
    memory_mb, gpu = task.metrics.get("memory_mb"), task.metrics.get("gpu_percent")
    step = task.progress.get("step")
    over = task.state.over
    return (
        task.task,
        task.state.value,
        task.host,
        task.container,
        str(task.incarnation) if task.incarnation > 1 else "",
        format_duration(task.age_s) if not over else "",
        "" if task.last_beat_s is None or over else f"{task.last_beat_s:.1f}s",
        "" if step is None else f"{step:g}",
        "" if memory_mb is None else format_memory(max(1, round(memory_mb))),
        "" if gpu is None else f"{gpu:.0f}%",
        ",".join(_device(name) for name in task.gpus),
        task.signal or ("" if task.exit_code is None else str(task.exit_code)),
    )


def _device(name: str) -> str:
    """The number of a device, or the name that the task's environment has for it. The document has all of it."""
    number = _DEVICE_NUMBER.match(name)
    return number[1] if number else name
