"""The scripts of an environment's ``bin``, made to run wherever the environment is unpacked."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_SYSTEM = ("/usr/bin", "/bin", "/usr/local/bin")
_LONG_FORM = re.compile(
    rb"#!/bin/sh\n'''exec' (?P<python>\"[^\"\n]+\"|\S+)(?P<options>[^\n]*) \"\$0\" \"\$@\"\n' '''\n"
)
_SHORT_FORM = re.compile(rb"#!\s*(?P<python>/[^\n]*?/python[\d.]*)(?P<options>(?: +-[^\n]*)?)\r?\n")
# A shell runs the second line; Python sees a string. The script's own folder, links followed, names its Python.
_HERE = (
    b"#!/bin/sh\n"
    b"'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")/python\"%s \"$0\" \"$@\"\n"
    b"' '''\n"
)  # fmt: skip

# They would set the paths of the machine they were made on. Nodes call bin/python instead.
ACTIVATION = re.compile(r"bin/(?:[Aa]ctivate(?:\.\w+|_this\.py)?|deactivate(?:\.\w+)?)")


def relocatable(script: bytes) -> bytes | None:
    """The script with a first line that finds the Python beside it; None when it needs no change."""
    match = _LONG_FORM.match(script) or _SHORT_FORM.match(script)
    if match is None:
        return None
    python = PurePosixPath(match["python"].strip(b'"').decode("utf-8", "replace"))
    if str(python.parent) in _SYSTEM or not python.name.startswith("python") or not python.is_absolute():
        return None
    options = match["options"].strip()
    return _HERE % (b" " + options if options else b"") + script[match.end() :]
