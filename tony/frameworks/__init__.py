"""What each framework's processes need in their environment to find each other. No framework is imported here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from tony.errors import Problem, UsageError
from tony.frameworks.auto import Auto
from tony.frameworks.base import Framework, common_environment
from tony.frameworks.elastic import size_problems
from tony.frameworks.horovod import Horovod
from tony.frameworks.layout import Layout, ranked
from tony.frameworks.mxnet import MXNet
from tony.frameworks.pytorch import PyTorch
from tony.frameworks.standalone import Standalone
from tony.frameworks.tensorflow import TensorFlow
from tony.spec import ClusterSpec, JobSpec, TaskId

__all__ = ["Framework", "common_environment", "framework", "names", "peers", "problems", "ranked", "task_environment"]

_FRAMEWORKS: dict[str, Framework] = {
    one.name: one for one in (Auto(), TensorFlow(), PyTorch(), Horovod(), MXNet(), Standalone())
}


def names() -> list[str]:
    """The values of ``framework`` in a job, the default first."""
    return list(_FRAMEWORKS)


def framework(name: str) -> Framework:
    """The framework of that name. Raises UsageError with the nearest name."""
    if name in _FRAMEWORKS:
        return _FRAMEWORKS[name]
    near = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.5)
    hint = f'Did you mean "{near[0]}"?' if near else f"Choose one of {', '.join(names())}."
    raise UsageError([Problem(key="framework", value=name, message=f'no framework "{name}".', hint=hint)])


def problems(job: JobSpec) -> list[Problem]:
    """What in the job its framework could never run with."""
    chosen = framework(job.framework)
    return [*chosen.check(job), *size_problems(job, chosen.elastic)]


def peers(task: TaskId, cluster: ClusterSpec, job: JobSpec) -> dict[str, str]:
    """Whom that task must be able to reach, and where; two at most. Empty for a job whose tasks do not talk."""
    if not job.check_peers or job.framework == Standalone.name or job.role(task.role).sidecar:
        return {}
    return {str(one): str(cluster.endpoints[one]) for one in Layout.of(cluster, job).neighbours(task)}


def task_environment(task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]) -> dict[str, str]:
    """Everything that the user process of `task` is told of its job and its peers.

    `extra` is described in `tony.frameworks.base`. The user's own variables and secrets are not in it.
    """
    return common_environment(task, cluster, job, extra) | framework(job.framework).environment(
        task, cluster, job, extra
    )
