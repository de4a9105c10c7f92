"""The codec as TensorFlow operations: for the processes of a parameter server, which run graphs and no Python.

Rounds to nearest; the bits are those of the reference. Tensors have the shape (blocks, 512).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tony.gradients.quantizer import BLOCK, TOO_LARGE, TOO_SMALL, UNIT_BYTES, Scheme

_MAGNITUDE_MASK = 0x7FFFFFFF
_UPPER_HALF = -0x10000
_ONE = 0x3F800000
_NAN = float("nan")


@dataclass(frozen=True)
class Encoded:
    """`message`: uint8, units and codes as on the wire. `kept`: the new residual. `finite`: no block was bad."""

    message: Any
    kept: Any
    finite: Any


def encode(gradient: Any, residual: Any, scheme: Scheme, alpha: float, beta: float) -> Encoded:
    """One step of feedback; see `tony.gradients.feedback.encode_blocks`. Blocks that are bad keep their residual."""
    import tensorflow as tf

    values = gradient + residual if alpha == 1.0 else gradient + tf.constant(alpha, tf.float32) * residual
    units, codes, bad = _quantize(values, scheme)
    kept = values - tf.cast(codes, tf.float32) * units[:, None]
    if beta != alpha:
        kept += tf.constant(beta - alpha, tf.float32) * residual
    kept = tf.where(bad[:, None], residual, kept)
    return Encoded(_message(units, codes, scheme), kept, tf.logical_not(tf.reduce_any(bad)))


def decode(message: Any, blocks: int, bits: int, weight: float = 1.0) -> Any:
    """`weight` times what a message stands for: the unit is multiplied first. NaN where a block was bad."""
    import tensorflow as tf

    halves = tf.bitcast(tf.reshape(message[: UNIT_BYTES * blocks], (blocks, UNIT_BYTES)), tf.uint16)
    units = tf.bitcast(tf.cast(halves, tf.int32) * 0x10000, tf.float32)
    packed = tf.reshape(message[UNIT_BYTES * blocks :], (blocks, BLOCK * bits // 8))
    mask = tf.constant((1 << bits) - 1, tf.uint8)
    planes = [
        tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, tf.constant(shift, tf.uint8)), mask)
        for shift in range(0, 8, bits)
    ]
    levels = float((1 << (bits - 1)) - 1)
    codes = tf.cast(tf.concat(planes, axis=1), tf.float32) - levels
    if weight != 1.0:
        units = units * tf.constant(weight, tf.float32)
    return codes * units[:, None]


def _quantize(values: Any, scheme: Scheme) -> tuple[Any, Any, Any]:
    """Units, codes (int32) and which blocks are bad."""
    import tensorflow as tf

    magnitudes = tf.bitwise.bitwise_and(tf.bitcast(values, tf.int32), _MAGNITUDE_MASK)
    scale_bits = tf.reduce_max(magnitudes, axis=1)
    bad = scale_bits >= TOO_LARGE
    zero = scale_bits < TOO_SMALL
    dead = tf.logical_or(bad, zero)
    scale = tf.bitcast(tf.where(dead, _ONE, scale_bits), tf.float32)
    # in float64, since TensorFlow makes x / 7 to x * (1 / 7): rounded to float32 both are the quotient's own bits
    exact = tf.cast(tf.cast(scale, tf.float64) / float(scheme.top), tf.float32)
    units = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(exact, tf.int32) + 0xFFFF, _UPPER_HALF), tf.float32)
    units = tf.where(tf.reduce_max(tf.bitcast(values, tf.int32), axis=1) == scale_bits, units, -units)
    inverse = tf.cast(1.0 / tf.cast(units, tf.float64), tf.float32)
    scaled = tf.where(dead[:, None], 0.0, values) * inverse[:, None]
    codes = tf.cast(tf.clip_by_value(tf.round(scaled), -float(scheme.levels), float(scheme.top)), tf.int32)
    units = tf.where(zero, 0.0, tf.where(bad, _NAN, units))
    return units, codes, bad


def _message(units: Any, codes: Any, scheme: Scheme) -> Any:
    import tensorflow as tf

    halves = tf.cast(tf.bitwise.right_shift(tf.bitcast(units, tf.uint32), tf.constant(16, tf.uint32)), tf.uint16)
    stored = tf.cast(codes + scheme.levels, tf.uint8)
    planes = tf.split(stored, 8 // scheme.bits, axis=1)
    packed = planes[0]
    for plane, part in enumerate(planes[1:], 1):
        packed = tf.bitwise.bitwise_or(
            packed, tf.bitwise.left_shift(part, tf.constant(plane * scheme.bits, tf.uint8))
        )
    return tf.concat([tf.reshape(tf.bitcast(halves, tf.uint8), [-1]), tf.reshape(packed, [-1])], axis=0)
