"""The settings of a command without a job, and the cluster that they name."""

from __future__ import annotations

from tony.cli.invocation import Invocation
from tony.config.layers import Request, Settings, gather
from tony.errors import UsageError


def settings_of(invocation: Invocation) -> Settings:
    """The settings of a command without a job. Raises UsageError when a layer is wrong."""
    settings = gather(Request(sets=tuple(invocation.sets), user_file=invocation.conf))
    if settings.problems:
        raise UsageError(settings.problems)
    return settings
