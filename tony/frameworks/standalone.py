"""No framework: one process that needs nobody, such as a scikit-learn script or a notebook."""

from __future__ import annotations

from collections.abc import Mapping

from tony.errors import Problem
from tony.frameworks.base import Framework
from tony.spec import ClusterSpec, JobSpec, TaskId


class Standalone(Framework):
    """Exactly one task, sidecars aside; it gets the common variables only."""

    name = "standalone"

    def check(self, job: JobSpec) -> list[Problem]:
        """Exactly one task, sidecars aside."""
        count = sum(role.instances for role in job.roles if not role.sidecar)
        if count == 1:
            return []
        return [
            Problem(
                key="roles",
                value=f"{count} tasks",
                message="A standalone job has exactly one task.",
                hint="Set instances to 1, or choose framework: auto.",
            )
        ]

    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """Nothing beside the common variables."""
        return {}
