"""Which Python a Docker image has: as its user says, else as a Docker on this machine says that has the image."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tony.docker import python as python_problem
from tony.errors import Problem, UsageError
from tony.packaging.runtime import this_python
from tony.paths import cache_dir

_VERSIONED = re.compile(r"python(3\.[0-9]{1,2})$")
_MINOR = re.compile(r"3\.[0-9]{1,2}")
_ASK_IMAGE_S = 5.0
_RUN_IMAGE_S = 30.0
_UNPRIVILEGED = "65534:65534"
_NOT_FOUND = (126, 127)
_DOCKER_FAILED = 125
# One line: minor version, kind of libc, path. The path comes last because it may hold blanks.
_QUESTION = (
    "import os,sys; names=getattr(os,'confstr_names',{}); libc='CS_GNU_LIBC_VERSION' in names and "
    "(os.confstr('CS_GNU_LIBC_VERSION') or '').split(' ')[0]; "
    "print('%d.%d' % sys.version_info[:2], libc or 'other', sys.executable)"
)
_IN_BASH = 'exec "$0" -I -c "$1"'


@dataclass(frozen=True)
class InsidePython:
    """An interpreter of an image: a path or a name in its PATH. `known`: somebody has said or seen its version."""

    program: str
    minor: str
    known: bool


def inside_python(image: str, wanted: str | None) -> InsidePython:
    """The Python of the image. `wanted` is what the user says of it: a minor version, a path, None.

    Only where the answer is open, a Docker on this machine is asked, if it has the image: half a second, remembered
    by the image's id. Raises UsageError for an image that is seen to be unfit.
    """
    if wanted is not None and _MINOR.fullmatch(wanted):
        return InsidePython(f"python{wanted}", wanted, True)
    named = _VERSIONED.search(wanted) if wanted is not None else None
    if wanted is not None and named:
        return InsidePython(wanted, named[1], True)
    program = wanted or "python3"
    return _asked(image, program) or InsidePython(program, this_python(), False)


def _asked(image: str, program: str) -> InsidePython | None:
    docker = shutil.which("docker")
    if docker is None:
        return None
    inspected = _run([docker, "image", "inspect", "--format", "{{.Id}}", image], _ASK_IMAGE_S)
    if inspected is None or inspected.returncode != 0:
        return None
    key = hashlib.sha256(f"{inspected.stdout.strip()} {program}".encode()).hexdigest()
    kept = cache_dir() / "images" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_text("utf-8"))
        return InsidePython(str(known["program"]), str(known["minor"]), True)
    found = _answer(docker, image, program)
    if found is not None:
        _keep(kept, found)
    return found


def _answer(docker: str, image: str, program: str) -> InsidePython | None:
    """What the image says of itself in a container without network or rights. Raises UsageError; None: no answer."""
    name = f"tony-ask-{secrets.token_hex(6)}"
    command = [docker, "run", "--rm", "--name", name, "--pull", "never", "--network", "none", "--read-only"]
    command += ["--cap-drop", "ALL", "--user", _UNPRIVILEGED, "--entrypoint", "bash", image]
    done = _run([*command, "-c", _IN_BASH, program, _QUESTION], _RUN_IMAGE_S)
    if done is None:
        _run([docker, "rm", "--force", name], _ASK_IMAGE_S)
        return None
    if done.returncode in _NOT_FOUND:
        if '"bash"' in done.stderr:
            message, advice = "has no bash, which YARN starts every task with.", "Install it in the image"
        else:
            message, advice = f"has no {program} in its PATH.", "Say which Python it has (--image-python)"
        hint = f"{advice}, or, if this copy is old: docker pull {image}"
        raise UsageError([Problem("image", message, image, hint=hint)])
    if done.returncode not in (0, _DOCKER_FAILED):
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError([Problem("image_python", f"in {image} it is no Python 3 that runs: {said}", program)])
    minor, _, rest = done.stdout.strip().partition(" ")
    libc, _, path = rest.partition(" ")
    if done.returncode != 0 or not _MINOR.fullmatch(minor) or not path:
        return None
    if libc != "glibc":
        message = "is built on another C library than glibc (Alpine?); tony's own packages need glibc."
        raise UsageError([Problem("image", message, image, hint="Take a Debian, Ubuntu or Red Hat image.")])
    problem = python_problem(minor)
    if problem:
        raise UsageError([Problem("image", f"has Python {minor}; {problem}", image)])
    # A path with unusual characters stays the name that was asked for.
    return InsidePython(program if python_problem(path) else path, minor, True)


def _keep(path: Path, found: InsidePython) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(f".{secrets.token_hex(4)}")
        partial.write_text(json.dumps({"program": found.program, "minor": found.minor}), "utf-8")
        partial.replace(path)


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """The finished command, or None when it could not be started or took too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
