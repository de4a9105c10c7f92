"""``tony metrics``: the newest numbers of every task: what it uses, what its script reports, how gradients travel."""

from __future__ import annotations

import time
from typing import Any

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.cli.output import Output
from tony.cli.table import table
from tony.gradient_numbers import GradientNumbers, gradients_in, without_gradients
from tony.records import plain
from tony.snapshot import JobSnapshot, TaskSnapshot
from tony.text import safe
from tony.units import format_bytes, format_memory

SCHEMA = "tony.metrics/1"
_WATCH_S = 2.0
_HEADS = ("TASK", "STATE", "CPU", "MEMORY", "PROCESSES", "GPU", "GPU MEMORY", "REPORTED")
_GRADIENT_HEADS = ("TASK", "GRADIENT", "BITS", "SENT A STEP", "LESS BY", "OWED", "ERROR")


@click.command(cls=TonyCommand)
@click.argument("job", required=False)
@click.option("-w", "--watch", is_flag=True, help="Show them again every 2 s until the job has ended.")
@cluster_option()
@click.pass_obj
def metrics(invocation: Invocation, job: str | None, watch: bool, cluster_name: str | None) -> int:
    """The newest numbers of every task, also of a job that is over.

    Processor, memory and GPUs; what the script told with tony.current().report(); with quantized gradients also what
    travels, layer by layer. Default: the job submitted last.
    """
    output = invocation.output
    with opened(invocation, job, cluster_name) as handle:
        while True:
            snapshot = handle.snapshot()
            if output.json:
                output.document(metrics_document(snapshot), lines=watch)
            else:
                text = "\n".join(metrics_lines(output, snapshot))
                output.data("\x1b[H\x1b[J" + text if watch and output.out.isatty() else text)
            if not watch or snapshot.state.ended:
                return 0
            time.sleep(_WATCH_S)


def metrics_document(snapshot: JobSnapshot) -> dict[str, Any]:
    """``tony.metrics/1``."""
    return {
        "schema": SCHEMA,
        "application_id": snapshot.application_id,
        "name": snapshot.name,
        "state": snapshot.state.value,
        "tasks": [_task_document(task) for task in snapshot.tasks],
    }


def metrics_lines(output: Output, snapshot: JobSnapshot) -> list[str]:
    """The lines for people."""
    width = output.width if output.out.isatty() else 120
    lines = [f"{safe(snapshot.name)}  {snapshot.application_id}  {snapshot.state.value}"]
    if snapshot.tasks:
        lines += ["", *table(_HEADS, [_row(task) for task in snapshot.tasks], width)]
    gradients = [_gradient_row(task.task, one) for task in snapshot.tasks for one in gradients_in(task.progress)]
    if gradients:
        lines += ["", *table(_GRADIENT_HEADS, gradients, width)]
    return lines


def _task_document(task: TaskSnapshot) -> dict[str, Any]:
    gradients = [plain(one) for one in gradients_in(task.progress)]
    return {
        "task": task.task,
        "state": task.state.value,
        "metrics": dict(task.metrics),
        "reported": without_gradients(task.progress),
        "gradients": gradients[0] if gradients and not gradients[0]["layer"] else None,
        "layers": [one for one in gradients if one["layer"]],
    }


def _row(task: TaskSnapshot) -> tuple[str, ...]:
    def number(name: str, unit: str = "") -> str:
        value = task.metrics.get(name)
        return "" if value is None else f"{value:.0f}{unit}"

    def memory(name: str) -> str:
        value = task.metrics.get(name)
        return "" if value is None else format_memory(max(1, round(value)))

    reported = " ".join(f"{name}={value:.6g}" for name, value in sorted(without_gradients(task.progress).items()))
    return (
        task.task,
        task.state.value,
        number("cpu_percent", "%"),
        memory("memory_mb"),
        number("processes"),
        number("gpu_percent", "%"),
        memory("gpu_memory_mb"),
        reported,
    )


def _gradient_row(task: str, numbers: GradientNumbers) -> tuple[str, ...]:
    return (
        task,
        numbers.layer or "all",
        str(numbers.bits),
        format_bytes(round(numbers.bytes_per_step)),
        f"{numbers.ratio:.1f}x",
        f"{numbers.residual_norm:.3g}",
        f"{100 * numbers.quantization_error:.1f}%",
    )
