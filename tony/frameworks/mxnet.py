"""MXNet: the variables of its parameter server (ps-lite)."""

from __future__ import annotations

from collections.abc import Mapping

from tony.errors import Problem
from tony.frameworks.base import Framework, one_process_each
from tony.frameworks.layout import Layout
from tony.spec import ClusterSpec, JobSpec, TaskId

_ROLES = ("scheduler", "server", "worker")


class MXNet(Framework):
    """The roles ``scheduler`` (exactly one task), ``server`` and ``worker`` get ``DMLC_*``; others get nothing."""

    name = "mxnet"

    def check(self, job: JobSpec) -> list[Problem]:
        """One scheduler, and at least one server and one worker."""
        count = {role.name: role.instances for role in job.roles}
        problems = one_process_each(job, "MXNet") + [
            Problem(
                key=f"roles.{name}",
                value=str(count.get(name, 0)),
                message=f"MXNet needs at least one task of the role {name}.",
                hint=f"Add roles.{name} with instances: 1.",
            )
            for name in _ROLES
            if not count.get(name)
        ]
        if count.get("scheduler", 0) > 1:
            problems.append(
                Problem(
                    key="roles.scheduler.instances",
                    value=str(count["scheduler"]),
                    message="MXNet knows one scheduler only.",
                    hint="Set roles.scheduler.instances to 1.",
                )
            )
        return problems

    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """Where the scheduler is, and how many servers and workers there are.

        ``DMLC_PS_ROOT_URI`` is the scheduler's host as its peers name it. The scheduler can bind to an address only,
        not to a name; turning one into the other needs a look-up, which is left to the script.
        """
        addresses = Layout.of(cluster, job).addresses
        scheduler = cluster.endpoints.get(TaskId("scheduler", 0))
        if task.role not in _ROLES or scheduler is None:
            return {}
        return {
            "DMLC_ROLE": task.role,
            "DMLC_PS_ROOT_URI": scheduler.host,
            "DMLC_PS_ROOT_PORT": str(scheduler.port),
            "DMLC_LOCAL": "0",
            "DMLC_NUM_SERVER": str(len(addresses.get("server", ()))),
            "DMLC_NUM_WORKER": str(len(addresses.get("worker", ()))),
        }
