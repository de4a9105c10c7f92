"""The default: the variables of TensorFlow, PyTorch and Horovod, so that a script of each finds its own."""

from __future__ import annotations

from collections.abc import Mapping

from tony.frameworks.base import Framework
from tony.frameworks.horovod import Horovod
from tony.frameworks.pytorch import PyTorch
from tony.frameworks.tensorflow import TensorFlow
from tony.spec import ClusterSpec, JobSpec, TaskId

_PARTS: tuple[Framework, ...] = (TensorFlow(), PyTorch(), Horovod())


class Auto(Framework):
    """Any roles: a framework whose roles are missing simply finds no variables."""

    name = "auto"
    rendezvous = any(part.rendezvous for part in _PARTS)
    elastic = True

    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """The variables of every part; their names do not overlap."""
        return {key: value for part in _PARTS for key, value in part.environment(task, cluster, job, extra).items()}
