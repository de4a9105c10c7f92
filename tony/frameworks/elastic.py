"""Which jobs may change their size. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tony.errors import Problem
from tony.frameworks.layout import AUXILIARY
from tony.spec import JobSpec, RestartPolicy, SuccessPolicy

_SERVING = ("ps", "scheduler", "server")
"""Roles whose clients are counted once, at their start."""


def size_problems(job: JobSpec, elastic: bool) -> list[Problem]:
    """Why the job cannot have an elastic role, where it has one. `elastic`: whether its framework can follow."""
    return list(_problems(job, elastic))


def _problems(job: JobSpec, elastic: bool) -> Iterator[Problem]:
    roles = [role for role in job.roles if role.elastic]
    if not roles:
        return
    key = f"roles.{roles[0].name}.{'min' if roles[0].least < roles[0].instances else 'max'}_instances"
    value = f"{roles[0].least} to {roles[0].most}"
    if not elastic:
        yield Problem(
            key, f"framework {job.framework} cannot change its size.", value, hint="Ask for a fixed number."
        )
    for role in roles[1:]:
        yield Problem(f"roles.{role.name}", f"role {roles[0].name} is elastic already; one role can be.")
    for role in roles:
        if not role.tracked or role.name in AUXILIARY:
            yield Problem(f"roles.{role.name}", "only a tracked role whose tasks train can be elastic.")
    for role in job.roles:
        if role.name in _SERVING and role.instances:
            said = f"cannot change: the tasks of role {role.name} are told once how many clients they have."
            yield Problem(key, said, value)
    if job.restart.policy is not RestartPolicy.GANG:
        yield Problem(key, "another size needs a restart of the gang.", value, hint="Use restart.policy: gang.")
    if job.success is not SuccessPolicy.ALL:
        yield Problem(key, "goes with success: all only.", value)
