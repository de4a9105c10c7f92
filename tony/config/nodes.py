"""A file's content with the line on which each value stands. Scalars keep the text as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scalar:
    """One word, number or quoted text. `null`: nothing was written, or ``null``."""

    text: str
    line: int = 0
    null: bool = False


@dataclass(frozen=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    line: int = 0


@dataclass(frozen=True)
class Table:
    """A map. The values' lines are those of their keys."""

    entries: Mapping[str, Node]
    line: int = 0


Node = Scalar | Items | Table


def written(node: Node) -> str:
    """The value as people write it on one line, shortened, for messages."""
    if isinstance(node, Scalar):
        return node.text if len(node.text) <= 60 else node.text[:57] + "..."
    if isinstance(node, Items):
        inner = ", ".join(written(item) for item in node.nodes[:6])
        return f"[{inner}{', ...' if len(node.nodes) > 6 else ''}]"
    inner = ", ".join(f"{name}: {written(value)}" for name, value in list(node.entries.items())[:6])
    return f"{{{inner}{', ...' if len(node.entries) > 6 else ''}}}"


def table_of(values: Mapping[str, Any]) -> Table:
    """Plain values as if they had been read from a file: maps, lists, texts, numbers, truth values and None."""
    return Table({str(name): _node_of(value) for name, value in values.items()})


def _node_of(value: Any) -> Node:
    if isinstance(value, Mapping):
        return table_of(value)
    if isinstance(value, (list, tuple)):
        return Items(tuple(_node_of(item) for item in value))
    if value is None:
        return Scalar("", null=True)
    return Scalar(str(value).lower() if isinstance(value, bool) else str(value))
