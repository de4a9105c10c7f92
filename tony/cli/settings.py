"""The settings of a command without a job, and the cluster that they name."""

from __future__ import annotations

from dataclasses import replace

from tony.cli.invocation import Invocation
from tony.clusters import Address, find
from tony.config.layers import Request, Settings, clusters_of, gather
from tony.errors import UsageError


def settings_of(invocation: Invocation) -> Settings:
    """The settings of a command without a job. Raises UsageError when a layer is wrong."""
    settings = gather(Request(sets=tuple(invocation.sets), user_file=invocation.conf))
    if settings.problems:
        raise UsageError(settings.problems)
    return settings


def address_in(settings: Settings, name: str | None) -> Address:
    """The cluster of that name as the settings see it."""
    address = find(name, clusters_of(settings))
    if address.local:
        return replace(address, node_python=settings.value("node_python") or "")
    return replace(
        address,
        storage=address.storage or settings.value("storage") or "",
        node_python=address.node_python or settings.value("node_python") or "",
        beat=settings.value("fast_beat"),
    )
