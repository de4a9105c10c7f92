"""``tony runtime build``: our own part for nodes whose Python is another one than the client's."""

from __future__ import annotations

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.units import format_bytes

SCHEMA = "tony.runtime/1"


@click.group()
def runtime() -> None:
    """Bundles for nodes with another Python."""


@runtime.command(cls=TonyCommand)
@click.option("--python", "minor", metavar="3.x", required=True, help="Minor version of the nodes' Python.")
@click.pass_obj
def build(invocation: Invocation, minor: str) -> int:
    """Build the runtime bundle for another Python. Needs the package index, once for each version of tony."""
    from tony.packaging.runtime import build_foreign_runtime
    from tony.paths import cache_dir, private_folder

    output = invocation.output
    output.say(f"building the runtime bundle for Python {minor}")
    archive = build_foreign_runtime(minor, private_folder(cache_dir() / "archives"))
    if output.json:
        document = {"schema": SCHEMA, "python": minor, "file": str(archive.path), "bytes": archive.size}
        output.document(document | {"sha256": archive.sha256})
    else:
        output.data(f"{archive.path}  {format_bytes(archive.size)}")
    return 0
