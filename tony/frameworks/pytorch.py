"""PyTorch: what ``torch.distributed.init_process_group("…", init_method="env://")`` reads."""

from __future__ import annotations

from collections.abc import Mapping

from tony.errors import Problem
from tony.frameworks.base import Framework
from tony.frameworks.layout import AUXILIARY, Layout
from tony.spec import ClusterSpec, JobSpec, TaskId


class PyTorch(Framework):
    """Every task with a rank gets the variables of ``torchrun``; rank 0 listens on its own reserved port."""

    name = "pytorch"
    elastic = True

    def check(self, job: JobSpec) -> list[Problem]:
        """Somebody must have a rank."""
        if any(role.tracked and role.instances and role.name not in AUXILIARY for role in job.roles):
            return []
        return [
            Problem(
                key="roles",
                value=", ".join(role.name for role in job.roles),
                message="PyTorch needs tasks with a rank, and no role here has any.",
                hint="Name a tracked role, for example worker.",
            )
        ]

    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """Where rank 0 is and which rank this is; nothing for a task without rank.

        A container numbers its GPUs from 0, so the local rank is also the device; each task is a group of its own.
        """
        layout = Layout.of(cluster, job)
        rank = layout.rank(task)
        if rank < 0 or layout.chief is None:
            return {}
        master = cluster.endpoints[layout.chief]
        return {
            "MASTER_ADDR": master.host,
            "MASTER_PORT": str(master.port),
            "RANK": str(rank),
            "WORLD_SIZE": str(layout.world_size),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": str(job.role(task.role).procs_per_task),
            "GROUP_RANK": str(layout.groups[task]),
            "INIT_METHOD": f"tcp://{master}",
        }
