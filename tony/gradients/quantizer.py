"""The codes: a vector of floats as small integers and one scale per block of 512 elements.

A code q of a block stands for ``q * unit`` with ``unit = scale / top`` and q in -levels .. top. The scale is the
largest magnitude of the block ("max") or, in the mode of the published method, its Euclidean norm ("l2"). Units are
rounded up to 16 bits (the upper half of a float32), so that they take two bytes on the wire and no code exceeds its
level. A block that holds a NaN, an infinity or a magnitude of 2**116 and more has the unit NaN, which every receiver
sees; a block below 2**-100 is sent as zero and stays in the residual whole.

With b bits there are ``2**b`` codes, one more than symmetric levels need. Rounding to nearest uses it (top = levels +
1): the unit takes the sign of the block's largest element, so that the extra code is on its side. With 2 bits
that halves the unit: codes stand for -1/2, 0, 1/2 and 1 of the largest. What is cut off on the other side stays in
the residual. Stochastic rounding has to be unbiased, so it stays symmetric (top = levels).

On the wire q is stored as ``q + levels``, planar inside its block: with 4 codes a byte, byte j holds the
elements j, j+128, j+256 and j+384. Everything here is the reference for the native codec, which gives the same
bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tony.gradients.errors import BadSetting

Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Integers: TypeAlias = npt.NDArray[np.int32]
Rounding: TypeAlias = Literal["nearest", "stochastic"]
Norm: TypeAlias = Literal["max", "l2"]

CODEC_VERSION = 2
"""Goes up when the meaning of a message changes; ranks of different versions refuse each other."""

BLOCK = 512
UNIT_BYTES = 2
LEVELS = {2: 1, 4: 7, 8: 127}
LANES = 16
ALIGNMENT = 64
"""Bytes; TensorFlow uses foreign memory that begins at a multiple of it."""

MAGNITUDE_MASK = 0x7FFFFFFF
TOO_LARGE = 0x79800000
"""Bit pattern of 2**116: sums over a block and over many ranks stay finite. Patterns of magnitudes order like
integers, so NaN and infinity lie above it too."""
TOO_SMALL = 0x0D800000
"""Bit pattern of 2**-100: far below it ``1 / unit`` would overflow."""


@dataclass(frozen=True)
class Scheme:
    """How a vector becomes codes. Raises BadSetting when made with values that do not exist."""

    bits: int = 4
    rounding: Rounding = "nearest"
    norm: Norm = "max"

    def __post_init__(self) -> None:
        if self.bits not in LEVELS:
            raise BadSetting(f"bits={self.bits!r} is not possible", "use 2, 4 or 8 bits")
        if self.rounding not in ("nearest", "stochastic"):
            raise BadSetting(f"rounding={self.rounding!r} is not possible", "use 'nearest' or 'stochastic'")
        if self.norm not in ("max", "l2"):
            raise BadSetting(f"norm={self.norm!r} is not possible", "use 'max', or 'l2' with stochastic rounding")
        if self.norm == "l2" and self.rounding != "stochastic":
            raise BadSetting("norm='l2' needs rounding='stochastic'", "almost every code would be rounded to zero")

    @property
    def levels(self) -> int:
        """Non-zero levels per sign."""
        return LEVELS[self.bits]

    @property
    def top(self) -> int:
        """The largest code."""
        return self.levels + (self.rounding == "nearest")

    @property
    def block_bytes(self) -> int:
        """Bytes of the codes of one block, without its unit."""
        return BLOCK * self.bits // 8

    def message_bytes(self, blocks: int) -> int:
        """Bytes of a message of `blocks` blocks: all units (two bytes each), then all codes."""
        return blocks * (UNIT_BYTES + self.block_bytes)

    @property
    def worst_gamma(self) -> float:
        """Upper bound of E|Q(v)-v|^2 / |v|^2 over all v of one block, for stochastic rounding."""
        levels = float(self.levels)
        return float(min(BLOCK / (4 * levels * levels), np.sqrt(BLOCK) / levels))


def aligned(elements: int, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Zeros that begin at a multiple of 64 bytes."""
    size = np.dtype(kind).itemsize
    room = np.zeros(elements * size + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    return room[begin : begin + elements * size].view(kind)


def blocks_of(elements: int) -> int:
    """Number of blocks that hold `elements` elements."""
    return -(-elements // BLOCK)


def stream_key(seed: int, step: int, bucket: int, rank: int, phase: int) -> int:
    """The 32-bit key of one stream of random numbers. Ranks and phases round independently of each other."""
    state = 0x9E3779B97F4A7C15
    for word in (seed, step, bucket, rank, phase):
        state = (state + (word & 0xFFFFFFFFFFFFFFFF)) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state & 0xFFFFFFFF


def dither(key: int, first: int, blocks: int) -> Integers:
    """Numbers from 0 to 65535 for whole blocks, shape (blocks, 512): a hash, no state. `first`: index of the first
    element, at the begin of a block. Each hash serves two elements, j and j + 256 of a block."""
    half = BLOCK // 2
    start = first // 2
    x = np.arange(start, start + blocks * half, dtype=np.uint64).astype(np.uint32)
    x = x * np.uint32(0x9E3779B9) + np.uint32(key)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    x = x.reshape(blocks, half)
    return np.concatenate([x & np.uint32(0xFFFF), x >> np.uint32(16)], axis=1).astype(np.int32)


@dataclass(frozen=True)
class Quantized:
    """Codes of whole blocks. Arrays of shape (blocks,), (blocks,), (blocks, 512) and (blocks, 512)."""

    units: Floats
    bad: npt.NDArray[np.bool_]
    codes: Integers
    scaled: Floats
    """The values in units, before rounding: what the codes were rounded from."""


def quantize(values: Floats, scheme: Scheme, key: int = 0, first: int = 0) -> Quantized:
    """Codes of `values` (shape (blocks, 512)); `first` is the index of its first element in the bucket."""
    magnitudes = values.view(np.int32) & np.int32(MAGNITUDE_MASK)
    scale_bits = magnitudes.max(axis=1, initial=0)
    bad = scale_bits >= TOO_LARGE
    if scheme.norm == "l2":
        safe = np.where(bad[:, None], np.float32(0), values).astype(np.float64)
        with np.errstate(over="ignore"):
            scale_bits = np.sqrt((safe * safe).sum(axis=1)).astype(np.float32).view(np.int32)
        bad |= scale_bits >= TOO_LARGE
    zero = scale_bits < TOO_SMALL
    dead = bad | zero
    scale = np.where(dead, np.int32(0x3F800000), scale_bits).astype(np.int32).view(np.float32)
    units = _rounded_up(scale / np.float32(scheme.top))
    if scheme.rounding == "nearest":
        units[values.view(np.int32).max(axis=1, initial=0) != scale_bits] *= np.float32(-1)
    inverse = np.float32(1) / units
    units[zero] = 0
    units[bad] = np.nan
    live = np.where(dead[:, None], np.float32(0), values)
    scaled = live * inverse[:, None]
    if scheme.rounding == "stochastic":
        # with 16 bits behind the point: a number below 1 is added and what is behind the point dropped
        fixed = (scaled * np.float32(65536)).astype(np.int32)
        rounded = (fixed + dither(key, first, len(values))) >> np.int32(16)
    else:
        rounded = np.rint(scaled).astype(np.int32)
    codes = np.clip(rounded, -scheme.levels, scheme.top)
    return Quantized(units, bad, codes.astype(np.int32), scaled)


def _rounded_up(units: Floats) -> Floats:
    """Positive floats, rounded up to those whose lower 16 bits are zero."""
    bits = (units.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    rounded: Floats = bits.view(np.float32)
    return rounded


def units_to_wire(units: Floats, message: Bytes) -> None:
    """Write units, whose lower 16 bits are zero, as two bytes each (little-endian)."""
    message.view("<u2")[:] = units.view(np.uint32) >> np.uint32(16)


def units_from_wire(message: Bytes) -> Floats:
    """The opposite of units_to_wire."""
    units: Floats = (message.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return units


def lane_sum(values: Floats) -> Floats:
    """Sum of every block in one fixed order (16 lanes, then halves), the order of the native codec."""
    rows = values.reshape(len(values), BLOCK // LANES, LANES)
    lanes = np.zeros((len(values), LANES), np.float32)
    for row in range(BLOCK // LANES):
        lanes += rows[:, row]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def pack(codes: Integers, bits: int) -> Bytes:
    """Codes of shape (blocks, 512) as the bytes of a message, of shape (blocks, 512 * bits / 8)."""
    stored = (codes + np.int32(LEVELS[bits])).astype(np.uint8)
    per_byte = 8 // bits
    planes = stored.reshape(len(codes), per_byte, BLOCK // per_byte)
    packed: Bytes = planes[:, 0].copy()
    for plane in range(1, per_byte):
        packed |= planes[:, plane] << np.uint8(plane * bits)
    return packed


def unpack(packed: Bytes, bits: int) -> Integers:
    """The opposite of pack."""
    per_byte = 8 // bits
    mask = np.uint8((1 << bits) - 1)
    planes = [(packed >> np.uint8(plane * bits)) & mask for plane in range(per_byte)]
    stored = np.stack(planes, axis=1).reshape(len(packed), BLOCK)
    codes: Integers = stored.astype(np.int32) - np.int32(LEVELS[bits])
    return codes


def dequantize(units: Floats, codes: Integers) -> Floats:
    """What the codes stand for; a block with the unit NaN becomes NaN."""
    return codes.astype(np.float32) * units[:, None]
