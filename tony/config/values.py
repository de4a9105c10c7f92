"""From what was written to typed values, by the kind of the key. Every refusal is a ValueError with a sentence."""

from __future__ import annotations

import re
from typing import Any

from tony.config import names
from tony.config.key import Key, Kind
from tony.config.nodes import Items, Node, Scalar, Table
from tony.errors import UsageError
from tony.units import MAX_MEMORY_MB, format_memory, parse_duration_s, parse_memory_mb

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_BARE_SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)?")

CLUSTER_KEYS = ("conf_dir", "bin_dir", "storage", "node_python", "default")


def parse(key: Key, node: Node) -> Any:
    """The value: str, int (memory in MiB), float (seconds), bool, tuple of str, or dict. Raises ValueError."""
    if key.kind is Kind.WORDS:
        return tuple(_word(key, item) for item in _items(node))
    if key.kind is Kind.PAIRS:
        return {name: _text(key, value) for name, value in _table(node).items()}
    if key.kind is Kind.COUNTS:
        return {name: _whole(key, _text(key, value)) for name, value in _table(node).items()}
    if key.kind is Kind.CLUSTERS:
        return {name: _cluster(name, entry) for name, entry in _table(node).items()}
    text = _text(key, node)
    if key.kind is Kind.INTEGER:
        return _whole(key, text)
    if key.kind is Kind.SIZE:
        return _size(text)
    if key.kind is Kind.DURATION:
        return parse_duration_s(text)
    if key.kind is Kind.SWITCH:
        return _switch(text)
    if key.kind is Kind.CHOICE and text not in key.choices:
        raise ValueError(f"must be one of {', '.join(key.choices)}.")
    return text


def node_of(key: Key, texts: tuple[str, ...], origin: str) -> Node:
    """What flags, variables and ``-c`` give, as if it stood in a file. Raises ValueError.

    Lists and maps may be written as YAML (``[a, b]``, ``{A: b}``); else each text is one word, or one ``NAME=VALUE``.
    """
    if not key.repeats and key.kind is not Kind.CLUSTERS:
        return Scalar(texts[-1])
    if key.kind is Kind.CLUSTERS or (len(texts) == 1 and _is_yaml(key, texts[0])):
        from tony.config.load import read_node

        try:
            return read_node(texts[0], origin)
        except UsageError as error:
            raise ValueError(error.problems[0].message) from error
    if key.kind is Kind.WORDS:
        return Items(tuple(Scalar(text) for text in texts))
    entries: dict[str, Node] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"{text!r} must be written NAME=VALUE.")
        entries[name] = Scalar(value)
    return Table(entries)


def _is_yaml(key: Key, text: str) -> bool:
    opening, closing = ("[", "]") if key.kind is Kind.WORDS else ("{", "}")
    return text.startswith(opening) and text.rstrip().endswith(closing)


def _items(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Items):
        return node.nodes
    raise ValueError("must be a list, like [a, b].")


def _table(node: Node) -> dict[str, Node]:
    if isinstance(node, Table):
        return dict(node.entries)
    raise ValueError("must be a map, like {NAME: value}.")


def _word(key: Key, node: Node) -> str:
    if not isinstance(node, Scalar):
        raise ValueError("must be a list of plain texts.")
    return _text(key, node)


def _text(key: Key, node: Node) -> str:
    if not isinstance(node, Scalar):
        raise ValueError(f"must be a {key.kind.value}.")
    if not key.literal:
        problem = names.template_left(node.text)
        if problem:
            raise ValueError(problem)
    if node.null and not (key.literal and node.text):
        raise ValueError("has no value. Write one, or leave the line out.")
    if "\0" in node.text:
        raise ValueError("holds a NUL character.")
    if not key.literal:
        hidden = names.unprintable(node.text)
        if hidden:
            raise ValueError(f"holds the invisible character {hidden}.")
    return node.text


def _whole(key: Key, text: str) -> int:
    span = f"a whole number from {key.low} to {key.high}"
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"must be {span}.")
    value = int(text)
    if not key.low <= value <= key.high:
        raise ValueError(f"out of range: it must be {span}.")
    return value


def _size(text: str) -> int:
    if _BARE_SIZE.fullmatch(text.strip()):
        raise ValueError(f"a size needs a unit. Write {text.strip()}g or {text.strip()}m.")
    try:
        return parse_memory_mb(text)
    except OverflowError as error:
        raise ValueError(f"out of range: at most {format_memory(MAX_MEMORY_MB)}.") from error


def _switch(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false.")


def _cluster(name: str, node: Node) -> dict[str, str]:
    entry = _table(node)
    unknown = [key for key in entry if key not in CLUSTER_KEYS]
    if unknown:
        raise ValueError(f"cluster {name!r}: unknown key {unknown[0]!r}. Known: {', '.join(CLUSTER_KEYS)}.")
    values = {key: value.text for key, value in entry.items() if isinstance(value, Scalar)}
    if "conf_dir" not in values:
        raise ValueError(f"cluster {name!r} needs conf_dir, the folder with Hadoop's configuration.")
    return values
