"""YARN's edge, both sides of it: `YarnCluster` submits and asks, `YarnContainers` holds a job's containers.

skein is imported by one file here, `skeinlink`, and known to nobody outside. Names are resolved on first use, so that
asking for a status does not load what a submit needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tony.yarn.cluster import YarnCluster
    from tony.yarn.containers import MasterGone, YarnContainers
    from tony.yarn.keptdriver import KeptDriver, running_driver, start_driver, stop_driver

__all__ = [
    "KeptDriver",
    "MasterGone",
    "YarnCluster",
    "YarnContainers",
    "running_driver",
    "start_driver",
    "stop_driver",
]

_HOMES = {
    "KeptDriver": "keptdriver",
    "MasterGone": "containers",
    "YarnCluster": "cluster",
    "YarnContainers": "containers",
    "running_driver": "keptdriver",
    "start_driver": "keptdriver",
    "stop_driver": "keptdriver",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
