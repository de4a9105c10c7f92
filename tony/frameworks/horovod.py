"""Horovod with gloo: each task is a host of its own, and the ranks find each other at the master's rendezvous.

Containers number their GPUs from 0, so two of them must not share local ranks even where they share a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tony.errors import Problem
from tony.frameworks.base import Framework
from tony.frameworks.layout import AUXILIARY, Layout
from tony.spec import ClusterSpec, JobSpec, RestartPolicy, TaskId

TIMEOUT = "HOROVOD_GLOO_TIMEOUT_SECONDS"
_TIMEOUT_S = "120"
"""Horovod's own 30 s are less than a slow network may take for a large tensor."""
_ELASTIC_TIMEOUT_S = "30"
"""With three ranks and more one that does not speak with the lost one itself notices the loss only by this."""


@dataclass(frozen=True)
class Place:
    """Where a task stands: its processes have the ranks from `rank` on; `host` is a name that no other task has."""

    rank: int
    size: int
    processes: int
    cross_rank: int
    cross_size: int
    host: str


def place(task: TaskId, cluster: ClusterSpec, job: JobSpec) -> Place | None:
    """The place of that task; None for a task without rank."""
    layout = Layout.of(cluster, job)
    rank = layout.rank(task)
    if rank < 0:
        return None
    return Place(
        rank=rank,
        size=layout.world_size,
        processes=job.role(task.role).procs_per_task,
        cross_rank=layout.groups[task],
        cross_size=len(layout.groups),
        host=f"{task.role}-{task.index}",
    )


class Horovod(Framework):
    """Every task with a rank gets ``HOROVOD_*``. Needs ``rendezvous_address`` and ``rendezvous_port`` in `extra`."""

    name = "horovod"
    elastic = True
    rendezvous = True

    def check(self, job: JobSpec) -> list[Problem]:
        """Somebody must have a rank, all tasks as many, and one rank cannot come back to the others alone."""
        problems = []
        training = [role for role in job.roles if role.tracked and role.instances and role.name not in AUXILIARY]
        other = next((role for role in training if role.procs_per_task != training[0].procs_per_task), None)
        if other is not None:
            problems.append(
                Problem(
                    key=f"roles.{other.name}.procs_per_task",
                    value=str(other.procs_per_task),
                    message=f"Horovod needs as many processes in each task; {training[0].name} has "
                    f"{training[0].procs_per_task}.",
                    hint="Give all roles the same number.",
                )
            )
        if not training:
            problems.append(
                Problem(
                    key="roles",
                    value=", ".join(role.name for role in job.roles),
                    message="Horovod needs tasks with a rank, and no role here has any.",
                    hint="Name a tracked role, for example worker.",
                )
            )
        if job.restart.policy is RestartPolicy.TASK:
            problems.append(
                Problem(
                    key="restart.policy",
                    value=job.restart.policy.value,
                    message="a Horovod rank cannot be started again without the others.",
                    hint="Choose gang, the default, or never.",
                )
            )
        return problems

    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """Rank, sizes and the rendezvous; nothing for a task without rank, or where there is no rendezvous.

        The ranks are those of the task's first process; whoever starts the others counts on. The controller and CPU
        operations are named for builds that have MPI, too.
        """
        own = place(task, cluster, job)
        if own is None or not extra.get("rendezvous_address"):
            return {}
        environment = {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": extra["rendezvous_address"],
            "HOROVOD_GLOO_RENDEZVOUS_PORT": extra["rendezvous_port"],
            "HOROVOD_RANK": str(own.rank),
            "HOROVOD_SIZE": str(own.size),
            "HOROVOD_LOCAL_RANK": "0",
            "HOROVOD_LOCAL_SIZE": str(own.processes),
            "HOROVOD_CROSS_RANK": str(own.cross_rank),
            "HOROVOD_CROSS_SIZE": str(own.cross_size),
            "HOROVOD_HOSTNAME": own.host,
            "HOROVOD_ELASTIC": "1",
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
        }
        if TIMEOUT not in {**job.env, **job.role(task.role).env}:
            environment[TIMEOUT] = _ELASTIC_TIMEOUT_S if job.role(task.role).elastic else _TIMEOUT_S
        return environment
