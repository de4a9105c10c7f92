"""Creating the file system of a new cluster: `namenode -format`, once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tony.errors import TonyError
from tony.localcluster import daemons
from tony.localcluster.java import Java

_TIMEOUT_S = 120.0
_LINES_SHOWN = 8


def format_once(home: Path, jars: Path, java: Java, tell: Callable[[str], None]) -> None:
    """Create an empty HDFS below `home` if there is none. Blocks about two seconds.

    Raises TonyError when it cannot be created, or when only half of an older one is there.
    """
    data = home / "data"
    if (data / "nn" / "current" / "VERSION").exists():
        return
    if (data / "dn" / "current").exists():
        raise TonyError(
            f"the local HDFS has lost its name data under {data}/nn, but there are still blocks",
            "to begin with an empty one: tony cluster stop --delete-data, then tony cluster start",
        )
    tell("creating an empty HDFS")
    line = daemons.java_command(java.command, home, jars, "format", heap_mb=128)
    try:
        done = subprocess.run(
            [*line, daemons.NAMENODE, "-format", "-nonInteractive", "-force"],
            env=daemons.environment(home, java.home, os.environ),
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TonyError(f"creating the HDFS took more than {_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        log = daemons.log_file(home, "format")
        lines = daemons.last_lines(log, _LINES_SHOWN) or done.stderr.splitlines()[-_LINES_SHOWN:]
        shown = "\n".join("    " + line for line in lines)
        raise TonyError(f"could not create the HDFS:\n{shown}", f"the whole log: {log}")
