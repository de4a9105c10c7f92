"""Frozen dataclasses to and from JSON, for everything that is kept or crosses a process: one pair of functions."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

from tony.errors import ProtocolError

T = TypeVar("T")

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}
_making = threading.Lock()
"""msgspec looks into a type when it meets it first; two that do so at once crash the process (0.22)."""


def encode(value: object) -> bytes:
    """Compact JSON of a dataclass (or of a container of them)."""
    return msgspec.json.encode(value)


def decode(raw: bytes | str, kind: type[T]) -> T:
    """The value of that type. Unknown fields are ignored (a newer writer); a wrong type raises ProtocolError."""
    decoder = _decoders.get(kind)
    if decoder is None:
        with _making:
            decoder = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    try:
        return decoder.decode(raw)  # type: ignore[no-any-return]
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ProtocolError(f"not a readable {kind.__name__}: {error}") from error


def plain(value: object) -> Any:
    """The value as dicts, lists, strings and numbers, for YAML or a table."""
    return msgspec.to_builtins(value)
