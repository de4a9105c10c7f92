"""Where each tensor lies: flat buckets for what is quantized, one flat vector for what is not.

Tensors are laid into buckets in the reverse of the order they come in (the last layers' gradients exist
first). Each begins at a block of its own, so that no two tensors share a scale. One-dimensional and small
tensors, and those the user names, are exempt: they travel as float32.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tony.gradients.quantizer import BLOCK, blocks_of

EXEMPT = -1


@dataclass(frozen=True)
class Tensor:
    """Name, shape and dtype of one gradient."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which bucket (or EXEMPT), from which element on."""

    bucket: int
    offset: int


@dataclass(frozen=True)
class Layout:
    """All tensors in the order the caller gives them, with their places."""

    tensors: tuple[Tensor, ...]
    places: tuple[Place, ...]
    bucket_elements: tuple[int, ...]
    """Length of every bucket: a multiple of 512 each."""
    exempt_elements: int

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that differ when anything of the layout differs."""
        text = json.dumps([[t.name, t.shape, t.dtype, p.bucket, p.offset] for t, p in self], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()[:16]

    def __iter__(self) -> Iterator[tuple[Tensor, Place]]:
        return iter(zip(self.tensors, self.places, strict=True))

    @property
    def elements(self) -> int:
        """Elements of all tensors together, without padding."""
        return sum(tensor.size for tensor in self.tensors)


def lay_out(
    tensors: Sequence[Tensor],
    exempt: Sequence[str] = (),
    bucket_bytes: int = 16 << 20,
    exempt_below: int = 1024,
) -> Layout:
    """Place the tensors. `exempt`: regular expressions searched in names; `bucket_bytes`: of float32.

    A tensor larger than a bucket has one of its own. With `exempt_below` 0 only those named are exempt.
    """
    patterns = [re.compile(pattern) for pattern in exempt]
    limit = max(BLOCK, bucket_bytes // 4)
    places: dict[int, Place] = {}
    buckets: list[int] = []
    free = 0
    for index in reversed(range(len(tensors))):
        tensor = tensors[index]
        if (
            (len(tensor.shape) < 2 and exempt_below > 0)
            or tensor.size < exempt_below
            or any(pattern.search(tensor.name) for pattern in patterns)
        ):
            places[index] = Place(EXEMPT, free)
            free += tensor.size
            continue
        padded = blocks_of(tensor.size) * BLOCK
        if not buckets or buckets[-1] + padded > limit:
            buckets.append(0)
        places[index] = Place(len(buckets) - 1, buckets[-1])
        buckets[-1] += padded
    return Layout(tuple(tensors), tuple(places[index] for index in range(len(tensors))), tuple(buckets), free)


def chunk_bounds(blocks: int, size: int) -> list[int]:
    """Where the chunks of the ranks begin and end, in blocks: `size` + 1 numbers from 0 to `blocks`."""
    return [blocks * rank // size for rank in range(size + 1)]


def first_difference(mine: Sequence[Sequence[object]], other: Sequence[Sequence[object]]) -> str | None:
    """A sentence about the first tensor that two descriptions [[name, shape, dtype], ...] differ in."""
    for left, right in zip(mine, other, strict=False):
        if left[0] != right[0]:
            return f"tensor {left[0]!r} here is {right[0]!r} there"
        if list(left[1]) != list(right[1]):  # type: ignore[call-overload]
            return f"tensor {left[0]!r} has the shape {_shape(left[1])} here and {_shape(right[1])} there"
        if left[2] != right[2]:
            return f"tensor {left[0]!r} is {left[2]} here and {right[2]} there"
    if len(mine) != len(other):
        longer = mine if len(mine) > len(other) else other
        where = "only here" if longer is mine else "only there"
        return f"tensor {longer[min(len(mine), len(other))][0]!r} exists {where}"
    return None


def _shape(shape: object) -> str:
    return "(" + ", ".join(str(length) for length in shape) + ")"  # type: ignore[attr-defined]
