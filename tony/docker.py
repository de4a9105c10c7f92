"""What images, mounts and networks of Docker may look like. Each check returns what is wrong, or None.

YARN's own patterns are wider. What passes here can neither be read as an option by a Docker client, nor as two words
by bash, nor as two values by YARN. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from tony.errors import Problem
from tony.spec import JobSpec, Mount

_MAX_IMAGE = 255
_MAX_PATH = 1024
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
_PART = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")
_PATH = re.compile(r"/[A-Za-z0-9_./+@=-]*")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MINOR = re.compile(r"3\.[0-9]{1,2}")
_URL = re.compile(r"(?:hdfs|webhdfs|viewfs)://[A-Za-z0-9_./:%+=-]*/[A-Za-z0-9_./%+=-]+")
_OLDEST_MINOR = 10
_TAKEN = ("/", "/proc", "/sys", "/dev", "/dev/shm", "/etc", "/bin", "/usr", "/lib", "/lib64")


def image(text: str) -> str | None:
    """A reference like ``registry.example:5000/team/train:1``."""
    if len(text) <= _MAX_IMAGE and _IMAGE.fullmatch(text):
        return None
    if "@" in text:
        return "YARN takes no digests. Give the image a tag of its own."
    if "://" in text:
        return "is an address. An image is written registry/team/name:tag."
    if text != text.lower() and _IMAGE.fullmatch(text.lower()):
        return "Docker wants the name of an image in lower case; only registry and tag may have capitals."
    return "not the name of an image, like registry/team/name:tag."


def mount(text: str) -> tuple[Mount | None, str | None]:
    """The mount that is written ``SOURCE:TARGET[:ro|rw]`` (read-only when nothing is said), or what is wrong."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 3:
        return None, "must be written SOURCE:TARGET, or with :ro or :rw behind it."
    if len(parts) == 3 and parts[2] not in ("ro", "rw"):
        return None, "must end in :ro or :rw, or in nothing, which is :ro."
    found = Mount(parts[0], parts[1], parts[2:] == ["rw"])
    return found, mount_problem(found)


def mount_problem(found: Mount) -> str | None:
    """What is wrong with the paths of a mount."""
    for what, path in (("source", found.source), ("target", found.target)):
        if not path.startswith("/"):
            return f"its {what} must be an absolute path: it is one of the nodes."
        if len(path) > _MAX_PATH or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            return f"its {what} may hold letters, digits and _ . / + @ = - and no '..'."
    if str(PurePosixPath(found.target)) in _TAKEN:
        return "would hide what every container needs there."
    return None


def network(text: str) -> str | None:
    """A network of Docker's on the nodes."""
    if text == "none":
        return "a task without network cannot reach the application master."
    return None if _NETWORK.fullmatch(text) else "not the name of a network: letters, digits and _ . -"


def python(text: str) -> str | None:
    """An interpreter in an image: its path, or its minor version."""
    if _MINOR.fullmatch(text):
        if int(text.partition(".")[2]) < _OLDEST_MINOR:
            return f"tony needs Python 3.{_OLDEST_MINOR} or newer in images."
        return None
    if _PATH.fullmatch(text) and ".." not in text.split("/") and not text.endswith("/"):
        return None
    return "neither a minor version like 3.11 nor an absolute path in the image."


def client_config(text: str) -> str | None:
    """Where nodes find the configuration of a Docker client."""
    if _URL.fullmatch(text):
        return None
    return "must be an hdfs:// URL: the nodes read it, and credentials are not packed with a job."


def job_problems(job: JobSpec) -> Iterable[Problem]:
    """Everything that is wrong with the Docker part of a job, however it was made."""
    for role in job.roles:
        if role.image is not None and (problem := image(role.image)):
            yield Problem(f"roles.{role.name}.image", problem, role.image)
    targets = [str(PurePosixPath(one.target)) for one in job.docker.mounts]
    for one in job.docker.mounts:
        problem = mount_problem(one)
        if problem is None and targets.count(str(PurePosixPath(one.target))) > 1:
            problem = "two mounts have this target."
        if problem:
            yield Problem("docker.mounts", problem, str(one))
    for key, text, check in (
        ("docker.network", job.docker.network, network),
        ("docker.client_config", job.docker.client_config, client_config),
        ("image_python", job.docker.python, python),
    ):
        if text is not None and (problem := check(text)):
            yield Problem(key, problem, text)
