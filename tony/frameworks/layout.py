"""Who has which rank, and who leads: the one order in which the tasks of a stage are numbered.

Ranks go to the *training tasks*: those of tracked roles, except the roles that serve training or look at it
(`AUXILIARY`). ``chief`` comes first, then ``worker``, then other roles as written in the job; indexes ascend within
a role, and the processes of one task (`RoleSpec.procs_per_task`) follow each other. So rank 0 is the chief where
there is one, else ``worker:0``. Every other task has no rank, written -1.

Where user processes live on into another generation, the longest living ones come before all that: what the others
are to know, they get from rank 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from tony.spec import ClusterSpec, JobSpec, TaskId

AUXILIARY = frozenset({"ps", "evaluator", "scheduler", "server"})
"""Roles whose tasks have no rank even where they are tracked: no framework counts them among its processes."""

NO_RANK = -1

_FIRST = ("chief", "worker")


def ranked(job: JobSpec, tasks: Iterable[TaskId]) -> tuple[TaskId, ...]:
    """The training tasks among `tasks` (those of one stage), by rank."""
    order = {role.name: place for place, role in enumerate(job.roles) if role.tracked and role.name not in AUXILIARY}
    for place, name in enumerate(_FIRST):
        if name in order:
            order[name] = place - len(_FIRST)
    return tuple(
        sorted((task for task in tasks if task.role in order), key=lambda task: (order[task.role], task.index))
    )


@dataclass(frozen=True)
class Layout:
    """What is the same for every task of one release, worked out once: a release costs O(n), not O(n²)."""

    job: JobSpec
    cluster: ClusterSpec
    ranks: Mapping[TaskId, int]
    groups: Mapping[TaskId, int]
    """The place of each training task: its rank, were they all single processes."""
    world_size: int
    """How many processes have a rank."""
    order: tuple[TaskId, ...]
    chief: TaskId | None
    tracked: int
    addresses: Mapping[str, list[str]]
    _places: dict[str, dict[int, int]] = field(default_factory=dict, compare=False, repr=False)
    _tables: dict[tuple[str, ...], str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, cluster: ClusterSpec, job: JobSpec) -> Layout:
        """The layout of that release; the one of the latest call is kept, because tasks are asked for one by one."""
        global _latest
        latest = _latest
        if latest is None or latest.cluster is not cluster or latest.job is not job:
            latest = _latest = cls._build(cluster, job)
        return latest

    @classmethod
    def _build(cls, cluster: ClusterSpec, job: JobSpec) -> Layout:
        # The sort is stable: among equally old ones the usual order holds.
        order = tuple(sorted(ranked(job, cluster.tasks), key=cluster.since))
        procs = {role.name: role.procs_per_task for role in job.roles}
        firsts = list(accumulate((procs[task.role] for task in order), initial=0))
        addresses: dict[str, list[str]] = {}
        for task in sorted(cluster.tasks, key=lambda task: task.index):
            addresses.setdefault(task.role, []).append(str(cluster.endpoints[task]))
        addresses = {role.name: addresses[role.name] for role in job.roles if role.name in addresses}
        tracked = {role.name for role in job.roles if role.tracked}
        return cls(
            job=job,
            cluster=cluster,
            ranks=dict(zip(order, firsts, strict=False)),
            groups={task: place for place, task in enumerate(order)},
            world_size=firsts[-1],
            order=order,
            chief=order[0] if order else None,
            tracked=sum(task.role in tracked for task in cluster.tasks),
            addresses=addresses,
        )

    def rank(self, task: TaskId) -> int:
        """The rank of the task's first process among those of the training tasks, or `NO_RANK`."""
        return self.ranks.get(task, NO_RANK)

    def neighbours(self, task: TaskId) -> tuple[TaskId, ...]:
        """Whom the task must be able to reach: the chief, and the next rank, the first one after the last."""
        place, count = self.groups.get(task, NO_RANK), len(self.order)
        found = {} if self.chief in (None, task) else {self.chief: None}
        if place >= 0 and count > 1:
            found[self.order[(place + 1) % count]] = None
        return tuple(one for one in found if one is not None)

    def place(self, task: TaskId) -> int:
        """The task's place in the table of its role: its index, unless tasks before it are absent."""
        if task.role not in self._places:
            here = sorted(other.index for other in self.cluster.tasks if other.role == task.role)
            self._places[task.role] = {index: place for place, index in enumerate(here)}
        return self._places[task.role][task.index]

    def table(self, *roles: str) -> str:
        """JSON: role → addresses by index, of those among these roles that are there; without arguments of all."""
        if roles not in self._tables:
            named = roles or self.addresses
            self._tables[roles] = json.dumps({role: self.addresses[role] for role in named if role in self.addresses})
        return self._tables[roles]


_latest: Layout | None = None
