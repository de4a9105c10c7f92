"""``tony env check``: whether an environment will run on the nodes."""

from __future__ import annotations

from pathlib import Path

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.errors import PackagingError, UsageError
from tony.text import safe

SCHEMA = "tony.environment/1"


@click.group()
def env() -> None:
    """Inspect an environment archive."""


@env.command(cls=TonyCommand)
@click.argument("archive")
@click.pass_obj
def check(invocation: Invocation, archive: str) -> int:
    """Look through an environment's archive or folder and say whether it will run on the nodes.

    The exit code is 2 when it will not.
    """
    from tony.packaging.environment_report import inspect_environment
    from tony.records import plain

    path = Path(archive)
    if not path.exists():
        raise PackagingError(f"there is no {archive}")
    report = inspect_environment(path)
    output = invocation.output
    if output.json:
        output.document({"schema": SCHEMA, **plain(report)})
        return 2 if report.problems else 0
    rows = {
        "kind": report.kind,
        "python": report.python,
        "machine": report.machine,
        "needs": f"{report.base} on every node" if report.base else None,
        "entries": str(report.entries) if report.entries else None,
    }
    for name, text in rows.items():
        if text:
            output.data(f"{name:<10} {safe(text)}")
    for text in report.notes:
        output.data(f"{'note':<10} {safe(text)}")
    for text in report.warnings:
        output.data(f"{'warning':<10} {safe(text)}")
    if report.problems:
        raise UsageError(report.problems)
    output.data("It will run on nodes like this one." if report.base else "It will run on the nodes.")
    return 0
