"""The Docker part of a job from its settings: the image of each role, and what the containers share."""

from __future__ import annotations

from collections.abc import Mapping

from tony import docker
from tony.config import keys
from tony.config.dockerkeys import DOCKER_KEYS
from tony.config.layers import Given, Layer, Settings
from tony.spec import DOCKER_SHM_MB, DockerSpec, Mount, RoleSpec
from tony.units import format_memory

NO_IMAGE = "none"
_BY_USER = (Layer.FLAG, Layer.SET, Layer.JOB)


def image_of(settings: Settings, role: str, own: Given | None) -> str | None:
    """The image of a role: its own (`own`, or ``--role-image``, whichever speaks louder), else the job's."""
    by_flag = settings.merged("role_image").get(role)
    louder = [given for given in (by_flag, own) if given is not None]
    chosen = min(louder, key=lambda given: given.layer) if louder else settings.get("image")
    if chosen is None or chosen.value == NO_IMAGE:
        return None
    problem = docker.image(chosen.value)
    if problem:
        key = "role_image" if chosen is by_flag else f"roles.{role}.image" if chosen is own else "image"
        settings.problem(key, problem, given=chosen)
    return str(chosen.value)


def docker_of(settings: Settings, roles: tuple[RoleSpec, ...]) -> DockerSpec:
    """What all containers share. Problems go to the settings."""
    _check_strangers(settings, {role.name: role for role in roles})
    for key, check in (
        ("docker.network", docker.network),
        ("docker.client_config", docker.client_config),
        ("image_python", docker.python),
    ):
        text = settings.value(key)
        problem = check(text) if text is not None else None
        if problem:
            settings.problem(key, problem)
    if settings.value("docker.shm_size") < DOCKER_SHM_MB:
        settings.problem("docker.shm_size", f"Docker gives {format_memory(DOCKER_SHM_MB)}, and YARN no less.")
    if not any(role.image for role in roles):
        for one in DOCKER_KEYS:
            given = settings.get(one.name)
            if given is not None and given.layer in _BY_USER and one.name not in ("image", "role_image"):
                settings.problem(one.name, "says something of Docker, but no role has an image.", "Add --image.")
    return DockerSpec(
        mounts=_mounts(settings),
        network=settings.value("docker.network"),
        shm_mb=settings.value("docker.shm_size"),
        user_names=settings.value("docker.user_names"),
        client_config=settings.value("docker.client_config"),
        python=settings.value("image_python"),
    )


def _mounts(settings: Settings) -> tuple[Mount, ...]:
    given = settings.get("docker.mounts")
    found: dict[str, Mount] = {}
    for word in given.value if given else ():
        assert given is not None
        one = Given(word, word, given.origin, given.layer, given.folder)
        made, problem = docker.mount(word)
        if problem is None and made is not None and made.target in found:
            problem = "two mounts have this target."
        if problem is not None:
            settings.problem("docker.mounts", problem, given=one)
        elif made is not None:
            found[made.target] = made
    return tuple(found.values())


def _check_strangers(settings: Settings, roles: Mapping[str, RoleSpec]) -> None:
    for role, given in settings.merged("role_image").items():
        if role not in roles and given.layer in _BY_USER:
            near = keys.nearest("roles." + role, roles)
            hint = f'Did you mean "{near}"?' if near else f"The roles of this job: {', '.join(roles)}."
            settings.problem("role_image", f'no role "{role}".', hint, given)
