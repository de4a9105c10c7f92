"""Gradients that travel whole, as floats, through the transport's own average: the best on a fast network.

All gradients of a rank lie in one vector. Before them stand a few floats, the mark, which tell every rank whether
all others are at the same step with the same settings: so the check costs no message of its own. A rank that
cannot take part sends the alarm, a vector of the length that the others expect; all then take the long way, on
which every rank learns the reason.
"""

from __future__ import annotations

import hashlib

import numpy as np

from tony.gradients.quantizer import Floats

HALF_BITS, WHOLE_BITS = 16, 32
MARK_ELEMENTS = 128
_MARK_BITS = 64
"""Of the header's hash, one element each: zeros and ones, whose mean says exactly whether all ranks have the same."""
_ALARM = _MARK_BITS
MOST_RANKS = 1000
"""With more, the mean of the marks in float16 is too coarse."""


def write_mark(vector: Floats, header: bytes) -> None:
    """Put the mark of this header at the vector's begin."""
    vector[:MARK_ELEMENTS] = 0
    vector[:_MARK_BITS] = _bits(header)


def alarm(elements: int) -> Floats:
    """What a rank sends that cannot take part; `elements`: the length that the others expect, mark included."""
    vector = np.zeros(elements, np.float32)
    vector[_ALARM] = 1
    return vector


def marks_agree(average: Floats, header: bytes, ranks: int) -> bool:
    """Whether all ranks had the mark of this very header, and none sent the alarm. The same answer on all ranks."""
    limit = 0.4 / ranks
    return bool(abs(average[_ALARM]) < limit and np.all(np.abs(average[:_MARK_BITS] - _bits(header)) < limit))


def is_finite(vector: Floats) -> bool:
    """Whether no element is NaN or infinite; mostly one pass that allocates nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(vector, vector)) or np.isfinite(vector).all())


def _bits(header: bytes) -> Floats:
    digest = hashlib.sha256(header).digest()[: _MARK_BITS // 8]
    bits: Floats = np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32)
    return bits
