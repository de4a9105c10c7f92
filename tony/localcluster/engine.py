"""The Docker engine under the local cluster: whether it is there, what NodeManagers need for it, what may be left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tony.errors import Problem, Refused, UsageError
from tony.localcluster import containerexecutor
from tony.localcluster.conf import SYSTEM_PATH, write_whole

PROGRAM = "container-executor"
LABEL = "tony.local-cluster"
POLICY_KEYS = frozenset(
    {
        *("trusted-registries", "networks", "ro-mounts", "rw-mounts", "capabilities", "devices", "runtimes"),
        "inspect-max-retries",
    }
)
_ASK_S = 10.0
_REMOVE_S = 60.0
_MAX_POLICY_BYTES = 64 * 1024


def check(environ: Mapping[str, str] = os.environ) -> None:
    """Raises Refused when no Docker engine answers this user."""
    docker = shutil.which("docker", path=environ.get("PATH"))
    if docker is None:
        raise Refused("there is no `docker` on this machine", "apt-get install docker.io, or Docker's own packages")
    try:
        done = _client(["version", "--format", "{{.Server.Version}}"], _ASK_S)
    except subprocess.TimeoutExpired:
        raise Refused(f"the Docker engine does not answer within {_ASK_S:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise Refused(
            f"no Docker engine can be used: {said}",
            "Start it (systemctl start docker, or dockerd as root); you must be root or in the group docker.",
        )


def install(bin_dir: Path, home: Path, policy: Path | None, environ: Mapping[str, str] = os.environ) -> None:
    """Write the stand-in for YARN's native program, with its policy. Raises UsageError for a bad policy file."""
    values = {} if policy is None else read_policy(policy)
    values["binary"] = shutil.which("docker", path=environ.get("PATH")) or "docker"
    values["label"] = label(home)
    values["path"] = f"{SYSTEM_PATH}:{environ.get('PATH', '')}".rstrip(":")
    if environ.get("DOCKER_HOST"):
        values["host"] = environ["DOCKER_HOST"]
    bin_dir.mkdir(parents=True, exist_ok=True)
    # Isolated and without `site`: it is started a dozen times for each container.
    interpreter = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    source = Path(containerexecutor.__file__).read_text("utf-8")
    text = "".join(f"{key} = {value}\n" for key, value in sorted(values.items()))
    write_whole(bin_dir / f"{PROGRAM}.ini", text, mode=0o600)
    write_whole(bin_dir / PROGRAM, f"#!{interpreter} -IS\n{source}", mode=0o755)


def read_policy(path: Path) -> dict[str, str]:
    """What a policy file allows, by key. Raises UsageError with every line that cannot be understood."""
    try:
        text = path.read_bytes()[:_MAX_POLICY_BYTES].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError([Problem("--docker-policy", f"cannot be read: {error}", str(path))]) from error
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        key, separator, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not separator or key.strip() not in POLICY_KEYS:
            known = ", ".join(sorted(POLICY_KEYS))
            problems.append(Problem("--docker-policy", f"line {number}: not KEY = VALUE with one of {known}.", line))
        elif key.strip() == "inspect-max-retries" and not 1 <= _whole(value) <= 100:
            problems.append(Problem("--docker-policy", f"line {number}: a number from 1 to 100 is needed.", line))
        else:
            found[key.strip()] = value.strip()
    if problems:
        raise UsageError(problems)
    return found


def label(home: Path) -> str:
    """What marks the containers of the cluster at `home`."""
    return f"{LABEL}={home}"


def remove_containers(home: Path) -> int:
    """Remove containers that outlived their NodeManager; returns how many. Silent where there is no engine."""
    try:
        listed = _client(["ps", "--all", "--quiet", "--filter", f"label={label(home)}"], _ASK_S)
        found = listed.stdout.split() if listed.returncode == 0 else []
        if found:
            _client(["rm", "--force", "--volumes", *found], _REMOVE_S)
        return len(found)
    except (OSError, subprocess.TimeoutExpired):
        return 0


def properties(bin_dir: Path, user: str, group: str, uid: int) -> dict[str, str]:
    """What yarn-site.xml needs beside the rest."""
    executor = "yarn.nodemanager.linux-container-executor"
    runtime = "yarn.nodemanager.runtime.linux"
    lowest = "0" if uid == 0 else "1"
    return {
        "yarn.nodemanager.container-executor.class": (
            "org.apache.hadoop.yarn.server.nodemanager.LinuxContainerExecutor"
        ),
        f"{executor}.path": str(bin_dir / PROGRAM),
        f"{executor}.group": group,
        f"{executor}.nonsecure-mode.local-user": user,
        f"{executor}.nonsecure-mode.limit-users": "true",
        f"{executor}.resources-handler.class": (
            "org.apache.hadoop.yarn.server.nodemanager.util.DefaultLCEResourcesHandler"
        ),
        f"{runtime}.allowed-runtimes": "default,docker",
        f"{runtime}.docker.allowed-container-networks": "host",
        f"{runtime}.docker.default-container-network": "host",
        f"{runtime}.docker.userremapping-uid-threshold": lowest,
        f"{runtime}.docker.userremapping-gid-threshold": lowest,
        # A PATH here would take the place of the images' own. Plain containers get theirs from the stand-in.
        "yarn.nodemanager.admin-env": "MALLOC_ARENA_MAX=$MALLOC_ARENA_MAX",
        # This executor fetches the files of each container in a JVM of its own.
        "yarn.nodemanager.container-localizer.java.opts": "-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    }


def _client(arguments: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )


def _whole(text: str) -> int:
    return int(text) if text.strip().isdecimal() and len(text.strip()) < 9 else -1
