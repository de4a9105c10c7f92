"""What a cluster has to give: nodes, queues, and the limits of its scheduler. Values only; `tony.rm` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GPU = "yarn.io/gpu"


@dataclass(frozen=True)
class Size:
    """An amount of resources: MiB, virtual cores, and other resource types by name (GPUs are ``yarn.io/gpu``)."""

    memory_mb: int
    vcores: int
    other: Mapping[str, int] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        return self.other.get(GPU, 0)


@dataclass(frozen=True)
class Node:
    """A NodeManager; `host` may be shared by several on a test machine, `id` is unique."""

    id: str
    host: str
    http_address: str
    state: str
    rack: str
    labels: tuple[str, ...]
    total: Size
    health: str = ""

    @property
    def usable(self) -> bool:
        """Whether containers can be placed on it."""
        return self.state == "RUNNING"


@dataclass(frozen=True)
class Queue:
    """A queue; `path` is ``root.a.b``. `max_share` is the part of the cluster that it may ever use, from 0 to 1.

    `labels` is None where the scheduler does not tell; ``*`` in it means every label.
    """

    name: str
    path: str
    leaf: bool
    running: bool = True
    labels: tuple[str, ...] | None = None
    max_share: float = 1.0
    largest: Size | None = None


@dataclass(frozen=True)
class Scheduler:
    """The queues, and the least and the largest container that the scheduler hands out (None where not told)."""

    kind: str
    queues: tuple[Queue, ...]
    largest: Size | None = None
    smallest: Size | None = None
    resource_types: tuple[str, ...] | None = None

    def queue(self, name: str) -> Queue | None:
        """The queue of that name or path."""
        by_path = {queue.path: queue for queue in self.queues}
        by_name = {queue.name: queue for queue in self.queues}
        return by_path.get(name) or by_path.get(f"root.{name}") or by_name.get(name)
