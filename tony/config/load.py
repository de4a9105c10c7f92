"""YAML files (JSON is YAML), read safely and with line numbers. The only place that knows PyYAML.

Refused, each with its line: tags (``!!python/object``), duplicate keys, tabs as indentation, anchors that expand
to very much, several documents, files that are not UTF-8 or far too long.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from tony.config.nodes import Items, Node, Scalar, Table
from tony.errors import Problem, UsageError

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 32

_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_PREFIX + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value"))
_NULL = _PREFIX + "null"
_MERGE = _PREFIX + "merge"


def read_file(path: Path) -> Table:
    """The map in that file. Raises UsageError with the line of what is wrong."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(f"cannot read {path}: {error.strerror}", str(path)) from error
    if len(raw) > MAX_BYTES:
        raise _refused("the file is longer than 1 MB. Is it really a job file?", path.name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _refused("the file is not UTF-8 text.", f"{path.name}:{line}") from error
    return read_table(text, path.name)


def read_table(text: str, name: str) -> Table:
    """The map in that text; `name` is what messages call it. Raises UsageError."""
    node = read_node(text, name)
    if isinstance(node, Scalar) and node.null:
        return Table({})
    if not isinstance(node, Table):
        raise _refused("the file must be a map of keys and values.", f"{name}:{node.line}")
    return node


def read_node(text: str, name: str) -> Node:
    """The one document in that text. Raises UsageError."""
    text = _without_tabs(text, name)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise _refused(f"not YAML: {said}.", f"{name}:{mark.line + 1}" if mark else name) from error
    except yaml.YAMLError as error:
        raise _refused(f"not YAML: {str(error).splitlines()[0]}.", name) from error
    except RecursionError as error:
        raise _refused("nested far too deep.", name) from error
    if root is None:
        return Scalar("", 1, null=True)
    return _Conversion(name).node(root, 0)


def _without_tabs(text: str, name: str) -> str:
    """The text; tabs that indent are refused in YAML and turned into spaces in JSON, where they mean nothing."""
    if "\t" not in text:
        return text
    is_json = text.lstrip().startswith(("{", "["))
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        indent = line[: len(line) - len(line.lstrip(" \t"))]
        if "\t" in indent and line.strip():
            if not is_json:
                raise _refused("a tab indents this line; YAML wants spaces.", f"{name}:{number}")
            lines[number - 1] = indent.replace("\t", "    ") + line[len(indent) :]
    return "\n".join(lines)


class _Conversion:
    """One file's walk from PyYAML's nodes to ours, with its budget."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_NODES

    def node(self, node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise _refused("anchors and aliases of this file expand to far too much.", f"{self._name}:{line}")
        if isinstance(node, yaml.ScalarNode):
            if node.tag not in _PLAIN_TAGS:
                raise self._tag_refused(node)
            return Scalar(node.value, line, null=node.tag == _NULL)
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            return Items(tuple(self.node(item, depth + 1) for item in node.value), line)
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            return self._table(node, depth)
        raise self._tag_refused(node)

    def _table(self, node: yaml.MappingNode, depth: int) -> Table:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged = self._merged(value, depth) | merged
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _PLAIN_TAGS:
                raise _refused("a key must be a word.", f"{self._name}:{line}")
            if key.value in entries:
                raise _refused(f"the key {key.value!r} appears twice.", f"{self._name}:{line}")
            entries[key.value] = _at(self.node(value, depth + 1), line)
        return Table(merged | entries, node.start_mark.line + 1)

    def _merged(self, value: yaml.Node, depth: int) -> dict[str, Node]:
        found = self.node(value, depth + 1)
        tables = found.nodes if isinstance(found, Items) else (found,)
        entries: dict[str, Node] = {}
        for table in reversed(tables):
            if not isinstance(table, Table):
                raise _refused("<< must name a map.", f"{self._name}:{value.start_mark.line + 1}")
            entries |= table.entries
        return entries

    def _tag_refused(self, node: yaml.Node) -> UsageError:
        tag = node.tag.replace(_PREFIX, "!!")
        return _refused(f"the tag {tag} is not allowed in a job file.", f"{self._name}:{node.start_mark.line + 1}")


def _at(node: Node, line: int) -> Node:
    if isinstance(node, Scalar):
        return Scalar(node.text, line, node.null)
    if isinstance(node, Items):
        return Items(node.nodes, line)
    return Table(node.entries, line)


def _refused(message: str, origin: str) -> UsageError:
    return UsageError([Problem(key="", message=message, origin=origin)])
