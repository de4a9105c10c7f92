"""From what was asked for to a plan on a connected cluster: for the command line and for schedulers alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tony.client import Progress, plan
from tony.clusters import Address, connect, find
from tony.config.layers import Request, Settings, clusters_of, gather
from tony.config.resolve import Resolved, resolve_settings
from tony.containers import Cluster
from tony.errors import Problem, Refused, UsageError
from tony.plan import Plan


@dataclass(frozen=True)
class Asked:
    """A resolved request, with the settings that tell where each value came from."""

    resolved: Resolved
    settings: Settings

    @property
    def address(self) -> Address:
        """Where it is to run. Raises UsageError when there is no such cluster."""
        return address_in(self.settings, self.resolved.cluster)

    def located(self, error: UsageError | Refused) -> UsageError | Refused:
        """The same error with the origin and the text of every value that a setting gave."""
        return type(error)([self._located(problem) for problem in error.problems], error.hint)

    def _located(self, problem: Problem) -> Problem:
        """A role's value may come from the whole job's key, or (chief, evaluator) from the workers'."""
        if problem.origin is not None or not problem.key:
            return problem
        last = problem.key.rpartition(".")[2]
        candidates = [problem.key, problem.key.replace("_", ".", 1), last]
        candidates[1:1] = (
            [f"roles.worker.{last}"] if problem.key.startswith(("roles.chief.", "roles.evaluator.")) else []
        )
        given = next((found for name in candidates if (found := self.settings.get(name)) is not None), None)
        if given is None:
            return problem
        return replace(problem, origin=given.origin, value=given.text if problem.value is None else problem.value)


@dataclass(frozen=True)
class Planned:
    """A plan and the cluster that it is for."""

    plan: Plan
    cluster: Cluster
    address: Address


def ask(request: Request) -> Asked:
    """Gather and resolve. Raises UsageError with every problem."""
    return asked_in(gather(request), request)


def asked_in(settings: Settings, request: Request) -> Asked:
    """Resolve settings that were gathered already. Raises UsageError with every problem."""
    resolved = resolve_settings(settings, request)
    if settings.problems:
        raise UsageError(list(dict.fromkeys(settings.problems)))
    return Asked(resolved, settings)


def address_in(settings: Settings, name: str | None) -> Address:
    """The cluster of that name as the settings see it. Raises UsageError when there is none."""
    return completed(find(name, clusters_of(settings)), settings)


def completed(address: Address, settings: Settings) -> Address:
    """The address with what the settings say of every cluster, where it says nothing itself."""
    if address.local:
        return replace(address, node_python=settings.value("node_python") or "")
    return replace(
        address,
        storage=address.storage or settings.value("storage") or "",
        node_python=address.node_python or settings.value("node_python") or "",
        beat=settings.value("fast_beat"),
    )


@contextlib.contextmanager
def planned(
    asked: Asked, progress: Progress | None = None, warm_up: bool = False, address: Address | None = None
) -> Iterator[Planned]:
    """Connect and plan; the cluster is closed at the end. `warm_up`: start its submit driver beside the packing.

    `address`: where, when it is not what the settings say. Raises UsageError and Refused with origins, Unreachable,
    PackagingError.
    """
    address = address or asked.address
    with contextlib.closing(connect(address)) as cluster:
        start = getattr(cluster, "warm_up", None)
        if warm_up and start is not None:
            start()
        try:
            made = plan(asked.resolved.job, cluster, address.node_python or None, progress)
        except (UsageError, Refused) as error:
            raise asked.located(error) from error
        yield Planned(made, cluster, address)
