"""TonY in Python: distributed deep-learning training as a Hadoop YARN application.

The public names are resolved on first use, so that a training script's ``from tony import current`` loads
nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tony.client import JobHandle, attach, plan, submit
    from tony.context import current
    from tony.errors import TonyError
    from tony.spec import JobSpec, Resources, RoleSpec

_WHERE = {
    "attach": "tony.client",
    "current": "tony.context",
    "JobHandle": "tony.client",
    "JobSpec": "tony.spec",
    "plan": "tony.client",
    "Resources": "tony.spec",
    "RoleSpec": "tony.spec",
    "submit": "tony.client",
    "TonyError": "tony.errors",
}

__all__ = [
    "JobHandle",
    "JobSpec",
    "Resources",
    "RoleSpec",
    "TonyError",
    "__version__",
    "attach",
    "current",
    "plan",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        import importlib

        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'tony' has no attribute {name!r}")
