"""Few elements of each block, sixty to a hundred times fewer bytes: the mode for very slow networks.

Of each block of 512 elements the largest few are sent, each as one byte: its sign, and how far it lies behind the one
before. They all stand for the mean magnitude of what the block sends. Everything else stays in the residual, on
both sides, and is sent when it has grown: nothing is lost, but small gradients wait longer.

A byte with 127 in its lower seven bits is no element, but 127 elements to skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tony.gradients.errors import BadSetting
from tony.gradients.parts import DOWN, UP, CodedPart
from tony.gradients.quantizer import BLOCK, TOO_LARGE, UNIT_BYTES, Bytes, Floats, units_from_wire, units_to_wire

SPARSE_BITS = 1
"""What stands for this mode where others have their bits."""
_SKIP = 127
_SIGN = 128
_LEAST = np.float32(2.0**-100)
SPAN = 8
"""Elements so many times smaller than their block's largest wait: the common magnitude would be far off for them."""


@dataclass(frozen=True)
class Sparse:
    """`density`: the share of the elements that is sent; 0.05 makes about 0.45 bits for each element."""

    density: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 0.25:
            raise BadSetting(
                f"density={self.density!r} is not between 0 and 0.25", "use a code of 2 bits for a larger share"
            )

    @property
    def elements(self) -> int:
        """How many of a block are sent."""
        return max(1, round(self.density * BLOCK))


def sparsify(values: Floats, most: int) -> tuple[Floats, Bytes, Floats]:
    """Units, bytes and what is not sent, of whole blocks (flat). `most`: elements of a block; more only where several
    are exactly as large. A block that is not finite has the unit NaN and sends nothing."""
    blocks = values.reshape(-1, BLOCK)
    sizes = np.abs(blocks)
    bad = sizes.view(np.int32).max(axis=1, initial=0) >= TOO_LARGE
    sizes[bad] = 0
    limits = np.partition(sizes, BLOCK - most, axis=1)[:, BLOCK - most]
    limits = np.maximum(limits, np.maximum(sizes.max(axis=1) * np.float32(1 / SPAN), _LEAST))
    chosen = sizes >= limits[:, None]
    counts = chosen.sum(axis=1)
    sums = np.where(chosen, sizes, np.float32(0)).sum(axis=1, dtype=np.float64)
    means = (sums / np.maximum(counts, 1)).astype(np.float32)
    units: Floats = ((means.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    positions = np.flatnonzero(chosen)
    negative = values[positions] < 0
    signs = np.where(negative, np.float32(-1), np.float32(1))
    rest = values.copy()
    rest[positions] -= signs * units[positions // BLOCK]
    units[bad] = np.nan
    return units, _gaps(positions, negative), rest


def _gaps(positions: np.ndarray[Any, Any], negative: np.ndarray[Any, Any]) -> Bytes:
    gaps = np.diff(positions, prepend=-1) - 1
    skips = gaps // _SKIP
    ends = np.cumsum(skips + 1)
    codes = np.full(int(ends[-1]) if len(ends) else 0, _SKIP, np.uint8)
    codes[ends - 1] = gaps % _SKIP + np.where(negative, _SIGN, 0)
    return codes


def spread(units: Floats, codes: Bytes, weight: float, out: Floats) -> None:
    """Add weight * what was sent to `out`, which has whole blocks. Raises ValueError for bytes that make no sense."""
    steps = (codes & (_SIGN - 1)).astype(np.int64)
    element = steps != _SKIP
    positions = (np.cumsum(steps + element) - 1)[element]
    if len(positions) and positions[-1] >= len(out):
        raise ValueError("a sparse message reaches beyond its bucket")
    values = (units * np.float32(weight))[positions // BLOCK]
    values[codes[element] >= _SIGN] *= np.float32(-1)
    out[positions] += values
    broken = np.isnan(units)
    if broken.any():
        out.reshape(-1, BLOCK)[broken] = np.nan


class SparsePart(CodedPart):
    """A bucket that travels in this mode. Its messages have lengths that only their sender knows."""

    fixed = False

    def __init__(self, most: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._most = most
        self._messages: list[Bytes] = []
        self._down_message: Bytes = np.zeros(0, np.uint8)

    def begin(self, seed: int, step: int, measure: bool) -> None:
        """See CodedPart.begin. Makes the messages of the first phase already, so that their lengths are known."""
        super().begin(seed, step, measure)
        self._measure = measure
        self._messages = []
        for low, high in [(0, self.bounds[-1])] if self.direct else zip(self.bounds, self.bounds[1:], strict=False):
            with np.errstate(over="ignore", invalid="ignore"):
                values = self.gradient[low:high] + self.residuals[UP][low:high]
            message, rest = self._message(values, self.residuals[UP][low:high], UP, low // BLOCK)
            self._kept[UP][low:high] = rest
            self._messages.append(message)

    def up_bytes(self, owner: int) -> int:
        return len(self._messages[0 if self.direct else owner])

    def write_up(self, owner: int, message: Bytes) -> None:
        message[:] = self._messages[0 if self.direct else owner]

    def read_up(self, received: Sequence[Bytes]) -> None:
        low, high = self._range(self.rank)
        out = self.average[low:high]
        out[:] = 0
        for message in received:
            self._add(message, 1 / self.size, out)
        if not self.direct:
            with np.errstate(over="ignore", invalid="ignore"):
                values = out + self.residuals[DOWN]
            self._down_message, self._kept[DOWN][:] = self._message(values, self.residuals[DOWN], DOWN, 0)

    def down_bytes(self, owner: int) -> int:
        """Of this rank only."""
        return 0 if self.direct else len(self._down_message)

    def write_down(self, message: Bytes) -> None:
        message[:] = self._down_message

    def read_down(self, owner: int, message: Bytes) -> None:
        low, high = self._range(owner)
        out = self.average[low:high]
        out[:] = 0
        self._add(message, 1.0, out)

    def travel_as(self, *_: object) -> None:
        """Nothing: this mode has one code."""

    def bytes_of(self, blocks: int) -> tuple[float, float]:
        """See CodedPart.bytes_of: the mean of the last step."""
        share = blocks * BLOCK / max(1, self.bounds[-1])
        up = float(sum(len(message) for message in self._messages))
        return share * up, share * len(self._down_message) * self.size

    def _message(self, values: Floats, owed: Floats, phase: int, first: int) -> tuple[Bytes, Floats]:
        """The bytes to send and the new residual; a block that is not finite keeps the old one."""
        units, codes, rest = sparsify(values, self._most)
        broken = np.isnan(units)
        rest.reshape(-1, BLOCK)[broken] = owed.reshape(-1, BLOCK)[broken]
        if self._measures(phase):
            last = first + len(units)
            mine = self.units if phase == UP else self._own_units
            mine[first:last] = np.where(broken, 0, 1)
            for column, vector in enumerate((rest, values)):
                rows = vector.reshape(-1, BLOCK)
                self.stats[phase][first:last, column] = np.einsum("ij,ij->i", rows, rows)
        message = np.empty(UNIT_BYTES * len(units) + len(codes), np.uint8)
        units_to_wire(units, message[: UNIT_BYTES * len(units)])
        message[UNIT_BYTES * len(units) :] = codes
        return message, rest

    def _add(self, message: Bytes, weight: float, out: Floats) -> None:
        end = UNIT_BYTES * (len(out) // BLOCK)
        units = units_from_wire(message[:end].copy())
        self.finite = self.finite and not bool(np.isnan(units).any())
        spread(units, message[end:], weight, out)
