"""``tony version``: what is installed here."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import click

import tony
from tony.cli.invocation import Invocation, TonyCommand

SCHEMA = "tony.version/1"
_PARTS = ("skein", "grpcio", "protobuf", "msgspec", "requests", "cryptography", "click", "rich", "PyYAML")


@click.command(cls=TonyCommand)
@click.option("--all", "everything", is_flag=True, help="Also the parts that tony is made of.")
@click.pass_obj
def version(invocation: Invocation, everything: bool) -> int:
    """The versions of tony and its parts."""
    output = invocation.output
    parts = {name: _version(name) for name in _PARTS} if everything or output.json else {}
    if output.json:
        output.document(
            {
                "schema": SCHEMA,
                "tony": tony.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "executable": sys.executable,
                "parts": parts,
            }
        )
        return 0
    output.data(f"tony {tony.__version__}")
    if everything:
        output.data(f"python {platform.python_version()} ({sys.executable})")
        output.data(f"platform {platform.platform()}")
        for name, text in parts.items():
            output.data(f"{name} {text or 'not installed'}")
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
