"""TensorFlow: ``TF_CONFIG`` for the parameter server and the MultiWorkerMirrored strategy."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tony.errors import Problem
from tony.frameworks.base import MAX_VALUE_BYTES, Framework, one_process_each
from tony.frameworks.layout import Layout
from tony.spec import ClusterSpec, JobSpec, TaskId

_MEMBERS = ("chief", "worker", "ps")
"""The task types of ``cluster`` in ``TF_CONFIG``; never the evaluator, who meets the others in the checkpoints."""

_ADDRESS_BYTES = 32
"""What a host name, a port and their quotes take, roughly; IPv4 addresses take less."""


class TensorFlow(Framework):
    """Tasks of the roles ``chief``, ``worker``, ``ps`` and ``evaluator`` get ``TF_CONFIG``; others get nothing."""

    name = "tensorflow"
    elastic = True

    def check(self, job: JobSpec) -> list[Problem]:
        """A chief or a worker must be there, at most one chief and evaluator, and somebody to use a ps."""
        count = {role.name: role.instances for role in job.roles}
        problems = one_process_each(job, "TensorFlow")
        for name in ("chief", "evaluator"):
            if count.get(name, 0) > 1:
                problems.append(
                    Problem(
                        key=f"roles.{name}.instances",
                        value=str(count[name]),
                        message=f"TensorFlow knows one {name} only.",
                        hint=f"Set roles.{name}.instances to 1.",
                    )
                )
        if not count.get("chief") and not count.get("worker"):
            problems.append(
                Problem(
                    key="roles",
                    value=", ".join(count),
                    message="TensorFlow needs a role named chief or worker.",
                    hint="Name a role worker, or choose framework: auto for roles of other names.",
                )
            )
        members = sum(count.get(name, 0) for name in _MEMBERS)
        if members * _ADDRESS_BYTES > MAX_VALUE_BYTES:
            problems.append(
                Problem(
                    key="roles",
                    value=f"{members} tasks",
                    message="TF_CONFIG names every task, and Linux allows 128 KiB for one variable.",
                    hint=f"At most {MAX_VALUE_BYTES // _ADDRESS_BYTES} chief, worker and ps tasks.",
                )
            )
        return problems

    def environment(
        self, task: TaskId, cluster: ClusterSpec, job: JobSpec, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """``TF_CONFIG``; without it for roles that TensorFlow does not know, and for several processes in a task."""
        if task.role not in (*_MEMBERS, "evaluator") or job.role(task.role).procs_per_task > 1:
            return {}
        layout = Layout.of(cluster, job)
        members = layout.table(*_MEMBERS)
        own = json.dumps({"type": task.role, "index": layout.place(task)})
        text = f'{{"cluster": {members}, "task": {own}}}'
        return {"TF_CONFIG": text} if len(text) <= MAX_VALUE_BYTES else {}
