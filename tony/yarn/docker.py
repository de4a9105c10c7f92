"""How YARN is told to run a role's containers in Docker: variables of the launch environment, nothing else."""

from __future__ import annotations

from tony.errors import Problem
from tony.hadoop import HadoopConf
from tony.spec import DOCKER_SHM_MB, JobSpec, Mount, RoleSpec

_RUNTIME = "YARN_CONTAINER_RUNTIME_"
_DOCKER = _RUNTIME + "DOCKER_"
_USER_LISTS = (Mount("/etc/passwd", "/etc/passwd"), Mount("/etc/group", "/etc/group"))
_ALLOWED = "yarn.nodemanager.runtime.linux.allowed-runtimes"
_EXECUTOR = "yarn.nodemanager.container-executor.class"
_NETWORKS = "yarn.nodemanager.runtime.linux.docker.allowed-container-networks"
_STOCK_NETWORKS = "host,none,bridge"


def docker_environment(job: JobSpec, role: RoleSpec) -> dict[str, str]:
    """The variables for the tasks of a role; empty for a role without an image."""
    if role.image is None:
        return {}
    found = {
        f"{_RUNTIME}TYPE": "docker",
        f"{_DOCKER}IMAGE": role.image,
        f"{_DOCKER}CONTAINER_NETWORK": job.docker.network,
    }
    mounts = [*job.docker.mounts, *(_USER_LISTS if job.docker.user_names else ())]
    if mounts:
        found[f"{_DOCKER}MOUNTS"] = ",".join(str(mount) for mount in mounts)
    if job.docker.shm_mb > DOCKER_SHM_MB:
        # YARN has no size for it. A tmpfs of the node's is as large as half of its memory.
        found[f"{_DOCKER}TMPFS_MOUNTS"] = "/dev/shm"
    if job.docker.client_config is not None:
        found[f"{_DOCKER}CLIENT_CONFIG"] = job.docker.client_config
    return found


def cluster_problems(job: JobSpec, conf: HadoopConf) -> list[Problem]:
    """What the cluster's own configuration says against it, where the client has a copy of that part."""
    if not job.images:
        return []
    runtimes, executor = conf.get(_ALLOWED), conf.get(_EXECUTOR)
    shown = ", ".join(job.images)
    ask = "Ask an administrator for it; on this machine: tony cluster start --docker"
    if executor and not executor.endswith("LinuxContainerExecutor"):
        return [Problem("image", f"this cluster runs no Docker containers ({_EXECUTOR}).", shown, hint=ask)]
    if runtimes and "docker" not in _words(runtimes):
        return [Problem("image", f"this cluster runs no Docker containers ({_ALLOWED}).", shown, hint=ask)]
    networks = _words(conf.get(_NETWORKS) or _STOCK_NETWORKS)
    if runtimes and job.docker.network not in networks:
        message = f"this cluster allows {', '.join(networks)}."
        return [Problem("docker.network", message, job.docker.network)]
    return []


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
