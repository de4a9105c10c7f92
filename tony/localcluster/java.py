"""Which Java runs the daemons: JAVA_HOME if it is set, else `java` on the PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tony.errors import Refused

MIN_VERSION = 17
_TIMEOUT_S = 60.0
_HINT = f"install a Java {MIN_VERSION} or newer (a JRE is enough), or point JAVA_HOME to one"


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home folder and feature version (17, 21, ...)."""

    home: Path
    version: int

    @property
    def command(self) -> Path:
        return self.home / "bin" / "java"


def find_java() -> Java:
    """The Java to use. Runs it once to ask for its version. Raises Refused when there is none or it is too old."""
    home = os.environ.get("JAVA_HOME")
    if home:
        command, origin = f"{home}/bin/java", f"JAVA_HOME={home}"
        if not os.access(command, os.X_OK):
            raise Refused(f"{origin} has no bin/java", _HINT)
    else:
        found = shutil.which("java")
        if found is None:
            raise Refused("no Java found: JAVA_HOME is not set and there is no java on the PATH", _HINT)
        command, origin = found, f"{found} on the PATH"
    java = parse_properties(_properties(command, origin), origin)
    if java.version < MIN_VERSION:
        raise Refused(f"Java {java.version} is too old for Hadoop: {origin}; {MIN_VERSION} is needed", _HINT)
    return java


def parse_properties(text: str, origin: str) -> Java:
    """The Java that printed these properties (`java -XshowSettings:properties -version`). Raises Refused."""
    home = re.search(r"^\s*java\.home = (.+?)\s*$", text, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", text, re.MULTILINE)
    if home is None or version is None:
        raise Refused(f"cannot tell the version of the Java at {origin}", _HINT)
    return Java(Path(home[1]), int(version[1]))


def _properties(command: str, origin: str) -> str:
    try:
        done = subprocess.run(
            [command, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"the Java at {origin} does not run: {error}", _HINT) from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise Refused(f"the Java at {origin} does not run: {last[0]}", _HINT)
    return done.stdout + done.stderr
