"""The settings of jobs that run in Docker containers."""

from __future__ import annotations

from tony.config.key import Key, Kind
from tony.spec import DOCKER_SHM_MB, DockerSpec
from tony.units import format_memory

_DOCKER = DockerSpec()

DOCKER_KEYS: tuple[Key, ...] = (
    Key("image", Kind.TEXT, "run every task in this Docker image", None, "--image", "docker", "IMAGE"),
    Key("role_image", Kind.PAIRS, "image of one role, or none", {}, "--role-image", "docker", "ROLE=IMAGE"),
    Key(
        "docker.mounts",
        Kind.WORDS,
        "file or folder of the nodes to be seen in the containers",
        (),
        "--mount",
        "docker",
        "SRC:DST[:ro|rw]",
    ),
    Key(
        "docker.network",
        Kind.TEXT,
        "network of the containers",
        _DOCKER.network,
        "--docker-network",
        "docker",
        "NAME",
    ),
    Key(
        "docker.shm_size",
        Kind.SIZE,
        "shared memory (/dev/shm); more than the default makes it a tmpfs of the node",
        format_memory(DOCKER_SHM_MB),
        "--docker-shm-size",
        "docker",
    ),
    Key(
        "docker.user_names",
        Kind.SWITCH,
        "mount the nodes' /etc/passwd and /etc/group, so that users have names",
        False,
        "--docker-user-names",
        "docker",
    ),
    Key(
        "docker.client_config",
        Kind.TEXT,
        "config.json of a Docker client, on shared storage, with the registry's credentials",
        None,
        "--docker-client-config",
        "docker",
        "URL",
    ),
    Key(
        "image_python",
        Kind.TEXT,
        "the image's Python: 3.11, or a path; default: asked of a local Docker, else as here",
        None,
        "--image-python",
        "docker",
        "PYTHON",
    ),
)
