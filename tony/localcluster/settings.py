"""What the user may choose about the local cluster. All sizes are totals, split evenly over the nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import psutil

from tony.errors import Problem
from tony.units import format_memory

MAX_NODES = 16
MIN_NODE_MEMORY_MB = 512
MEMORY_STEP_MB = 64
DEFAULT_VCORES_PER_NODE = 16
DEFAULT_MEMORY_MB = 12 * 1024
DEFAULT_MEMORY_SHARE = 0.6
MAX_GPUS = 4096
MAX_VCORES = 4096

NO_POLICY = "none"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class ClusterSettings:
    """The size and shape of the local cluster.

    `memory_mb`, `vcores` and `gpus` are totals of all nodes. GPUs are counted by YARN's scheduler, not isolated:
    a container that was given two may still see every device of the machine.
    `docker`: containers may ask for Docker images; `docker_policy` is a file that says what is allowed to them.
    `labels` gives nodes a label: pairs (node number from 1, label). `port_base` None: free ports are chosen.
    """

    nodes: int
    memory_mb: int
    vcores: int
    gpus: int = 0
    queues: tuple[str, ...] = ("default",)
    labels: tuple[tuple[int, str], ...] = ()
    port_base: int | None = None
    docker: bool = False
    docker_policy: str | None = None

    @property
    def node_memory_mb(self) -> int:
        """Memory that one node offers, MiB: its share, rounded down to what the scheduler hands out."""
        return self.memory_mb // self.nodes // MEMORY_STEP_MB * MEMORY_STEP_MB

    @property
    def node_vcores(self) -> int:
        return self.vcores // self.nodes

    @property
    def node_gpus(self) -> int:
        return self.gpus // self.nodes

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(sorted({label for _, label in self.labels}))

    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong with these settings; empty when they can be used."""
        if not 1 <= self.nodes <= MAX_NODES:
            return (_problem("nodes", self.nodes, f"must lie between 1 and {MAX_NODES}."),)
        found: list[Problem] = []
        if self.node_memory_mb < MIN_NODE_MEMORY_MB:
            least = format_memory(MIN_NODE_MEMORY_MB * self.nodes)
            found.append(
                _problem(
                    "memory",
                    format_memory(self.memory_mb),
                    f"is the total of {self.nodes} node(s), and less than {MIN_NODE_MEMORY_MB} MiB for each.",
                    f"give at least {least}",
                )
            )
        for key, total, least_total, most in (
            ("vcores", self.vcores, 1, MAX_VCORES),
            ("gpus", self.gpus, 0, MAX_GPUS),
        ):
            if not least_total <= total <= most:
                found.append(_problem(key, total, f"must lie between {least_total} and {most}."))
            elif total % self.nodes:
                below = total // self.nodes * self.nodes
                near = [str(value) for value in (below, below + self.nodes) if value >= least_total]
                found.append(
                    _problem(
                        key,
                        total,
                        f"is the total of all nodes and does not divide by {self.nodes} nodes.",
                        f"try --{key} {' or '.join(near)}",
                    )
                )
        found.extend(self._name_problems())
        if self.port_base is not None and not 1024 <= self.port_base <= 65000:
            found.append(_problem("port-base", self.port_base, "must lie between 1024 and 65000."))
        if self.docker_policy is not None and not self.docker:
            found.append(_problem("docker-policy", self.docker_policy, "is of use with --docker only."))
        return tuple(found)

    def _name_problems(self) -> list[Problem]:
        found: list[Problem] = []
        if not self.queues:
            found.append(_problem("queues", "", "at least one queue is needed."))
        for queue in self.queues:
            if not _NAME.fullmatch(queue) or queue == "root":
                found.append(
                    _problem("queues", queue, "not a queue name: a letter, then letters, digits, - and _; not root.")
                )
        if len(set(self.queues)) < len(self.queues):
            found.append(_problem("queues", ",".join(self.queues), "a queue is named twice."))
        for node, label in self.labels:
            if not 1 <= node <= self.nodes:
                found.append(_problem("label", f"{node}={label}", f"there are nodes 1 to {self.nodes}."))
            if not _NAME.fullmatch(label):
                found.append(_problem("label", f"{node}={label}", "not a label: a letter, then letters, digits, - _"))
        if len({node for node, _ in self.labels}) < len(self.labels):
            found.append(_problem("label", "", "a node can have one label only."))
        return found

    def differences(self, other: ClusterSettings) -> list[str]:
        """``memory 8g → 12g`` for each setting in which `other` differs from this one; ports don't count."""
        found = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs and not (field.name == "port_base" and None in (mine, theirs)):
                found.append(f"{_title(field.name)} {_shown(field.name, mine)} → {_shown(field.name, theirs)}")
        return found

    def summary(self) -> str:
        """One line for people: ``2 nodes, 12g memory, 32 vcores, 8 GPUs (counted, not isolated), queues a, b``."""
        parts = [
            f"{self.nodes} node" + ("s" if self.nodes > 1 else ""),
            f"{format_memory(self.node_memory_mb * self.nodes)} memory",
            f"{self.vcores} vcores",
        ]
        if self.gpus:
            parts.append(f"{self.gpus} GPUs (counted, not isolated)")
        parts.append(f"queue{'s' if len(self.queues) > 1 else ''} {', '.join(self.queues)}")
        if self.labels:
            parts.append("labels " + ", ".join(f"{node}={label}" for node, label in self.labels))
        if self.docker:
            parts.append("Docker (no separation of users)")
        return ", ".join(parts)

    def to_record(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ClusterSettings:
        """The settings that `to_record` wrote. Raises KeyError, TypeError or ValueError on anything else."""
        port_base = record.get("port_base")
        return cls(
            nodes=int(record["nodes"]),
            memory_mb=int(record["memory_mb"]),
            vcores=int(record["vcores"]),
            gpus=int(record["gpus"]),
            queues=tuple(str(queue) for queue in record["queues"]),
            labels=tuple((int(node), str(label)) for node, label in record.get("labels", ())),
            port_base=None if port_base is None else int(port_base),
            docker=bool(record.get("docker", False)),
            docker_policy=record.get("docker_policy"),
        )


def default_memory_mb(machine_memory_mb: int | None = None) -> int:
    """12 GiB, or 60 % of the machine's memory where that is less."""
    if machine_memory_mb is None:
        machine_memory_mb = psutil.virtual_memory().total // (1024 * 1024)
    share = int(machine_memory_mb * DEFAULT_MEMORY_SHARE) // MEMORY_STEP_MB * MEMORY_STEP_MB
    return max(min(DEFAULT_MEMORY_MB, share), MIN_NODE_MEMORY_MB)


def chosen_settings(
    *,
    nodes: int | None = None,
    memory_mb: int | None = None,
    vcores: int | None = None,
    gpus: int | None = None,
    queues: tuple[str, ...] | None = None,
    labels: tuple[tuple[int, str], ...] | None = None,
    port_base: int | None = None,
    docker: bool | None = None,
    docker_policy: str | None = None,
    earlier: ClusterSettings | None = None,
) -> ClusterSettings:
    """The settings of a start: what was given, else what the cluster had before, else the defaults.

    When the number of nodes changes, totals that were not given again are not carried over unless they still divide.
    """
    if nodes is None:
        nodes = earlier.nodes if earlier else 1
    if vcores is None:
        keep = earlier is not None and earlier.vcores % max(nodes, 1) == 0
        vcores = earlier.vcores if earlier and keep else DEFAULT_VCORES_PER_NODE * nodes
    if gpus is None:
        gpus = earlier.gpus if earlier else 0
    if memory_mb is None:
        memory_mb = earlier.memory_mb if earlier else max(default_memory_mb(), MIN_NODE_MEMORY_MB * nodes)
    if labels is None:
        labels = earlier.labels if earlier else ()
    if docker is None:
        docker = docker_policy is not None or (earlier is not None and earlier.docker)
    if docker_policy is None and docker:
        docker_policy = earlier.docker_policy if earlier else None
    return ClusterSettings(
        nodes=nodes,
        memory_mb=memory_mb,
        vcores=vcores,
        gpus=gpus,
        queues=queues or (earlier.queues if earlier else ("default",)),
        labels=labels,
        port_base=port_base if port_base is not None else (earlier.port_base if earlier else None),
        docker=docker,
        docker_policy=docker_policy if docker_policy != NO_POLICY else None,
    )


def _problem(key: str, value: object, message: str, hint: str | None = None) -> Problem:
    return Problem(key=f"--{key}", value=str(value), message=message, hint=hint)


def _title(name: str) -> str:
    return {"memory_mb": "memory", "port_base": "port base", "docker_policy": "docker policy"}.get(name, name)


def _shown(name: str, value: Any) -> str:
    if name == "memory_mb":
        return format_memory(value)
    if name == "queues":
        return ",".join(value)
    if name == "labels":
        return ",".join(f"{node}={label}" for node, label in value) or "none"
    return str(value)
