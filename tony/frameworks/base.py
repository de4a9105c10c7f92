"""What a framework's file provides, and the variables that every user process gets.

The values of `extra`, all text: ``application_id``; ``incarnation`` of the task (default ``1``); ``checkpoint_dir``
and ``tensorboard_port`` where there is one (empty, or port 0: none); ``rendezvous_address`` and ``rendezvous_port``
for the processes of a framework that meet there. The generation is that of the cluster spec.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from tony.errors import Problem
from tony.frameworks.layout import Layout
from tony.spec import ClusterSpec, JobSpec, TaskId

MAX_VALUE_BYTES = 120_000
"""Linux starts no process with a variable over 128 KiB (MAX_ARG_STRLEN), its name included."""


class Framework(ABC):
    """How the processes of one framework find each other. Pure: nothing here imports the framework it serves."""

    name: ClassVar[str]
    rendezvous: ClassVar[bool] = False
    """Whether its processes meet at a key-value store of the master."""
    elastic: ClassVar[bool] = False
    """Whether its processes find each other anew when the next generation has another size."""

    def check(self, job: JobSpec) -> list[Problem]:
        """What in the job this framework could never run with; called before anything is submitted."""
        return []

    @abstractmethod
    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """The framework's own variables for that task, to be added to those of `common_environment`."""


def one_process_each(job: JobSpec, framework: str) -> list[Problem]:
    """Problems of roles with several processes in a task, for a framework whose processes each need an address."""
    return [
        Problem(
            key=f"roles.{role.name}.procs_per_task",
            value=str(role.procs_per_task),
            message=f"{framework} runs one process in each task; it uses all GPUs of the task.",
            hint="Leave it out, or choose framework: pytorch, horovod or auto.",
        )
        for role in job.roles
        if role.procs_per_task > 1
    ]


def common_environment(task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]) -> dict[str, str]:
    """The ``TONY_*`` variables of a task, and the names under which TonY's users know them.

    Ranks are those of `tony.frameworks.layout`; a task without one (ps, evaluator, untracked, sidecar) has
    ``TONY_RANK=-1``, and ``RANK`` and ``WORLD`` are absent, so that a library which looks for them takes it for a
    process of its own. Every task is alone in its container. Where it has several processes, its rank is that of the
    first, with local rank 0, and whoever starts the others counts on.

    As in TonY, ``IS_CHIEF`` and ``TB_PORT`` are there for the chief only (a role named ``tensorboard`` gets the port,
    too), ``TASK_NUM`` counts the tracked tasks, and ``SESSION_ID`` is 0 until something was restarted.
    ``TASK_INDEX`` is the task's place in the cluster spec, which differs from ``TONY_INDEX`` when an elastic job goes
    on without a task before it.
    The two tables of endpoints are left out where they are longer than one variable can be.
    Raises KeyError when the task is not in the cluster spec.
    """
    layout = Layout.of(cluster, job)
    own = cluster.endpoints[task]
    rank = layout.rank(task)
    chief = task == layout.chief
    environment = {
        "TONY_APPLICATION_ID": extra["application_id"],
        "TONY_ROLE": task.role,
        "TONY_INDEX": str(task.index),
        "TONY_RANK": str(rank),
        "TONY_WORLD_SIZE": str(layout.world_size),
        "TONY_LOCAL_RANK": "0",
        "TONY_LOCAL_WORLD_SIZE": str(job.role(task.role).procs_per_task),
        "TONY_GENERATION": str(cluster.generation),
        "TONY_INCARNATION": extra.get("incarnation", "1"),
        "TONY_IS_CHIEF": "true" if chief else "false",
        "JOB_NAME": task.role,
        "TASK_INDEX": str(layout.place(task)),
        "TASK_NUM": str(layout.tracked),
        "JOB_ID": extra["application_id"],
        "SESSION_ID": str(cluster.generation - 1),
        "DISTRIBUTED_MODE": "GANG",
        "INIT_METHOD": f"tcp://{cluster.endpoints[layout.chief] if layout.chief else own}",
    }
    table = layout.table()
    if len(table) <= MAX_VALUE_BYTES:
        environment["TONY_CLUSTER_SPEC"] = environment["CLUSTER_SPEC"] = table
    if extra.get("checkpoint_dir"):
        environment["TONY_CHECKPOINT_DIR"] = extra["checkpoint_dir"]
    if job.quantize:
        environment["TONY_QUANTIZE"] = job.quantize
    if rank >= 0:
        environment["RANK"] = str(rank)
        environment["WORLD"] = str(layout.world_size)
    if chief:
        environment["IS_CHIEF"] = "true"
    if extra.get("tensorboard_port", "0") not in ("", "0") and (chief or task.role == "tensorboard"):
        environment["TB_PORT"] = extra["tensorboard_port"]
    return environment
