"""The codec in numpy: the definition that the native one is tested against, and the fallback without it."""

from __future__ import annotations

import numpy as np

from tony.gradients.feedback import encode_blocks
from tony.gradients.quantizer import BLOCK, Bytes, Floats, Scheme, blocks_of, dequantize, unpack


class Reference:
    """See Codec."""

    name = "numpy"

    def encode(
        self,
        gradient: Floats,
        residual: Floats,
        scheme: Scheme,
        alpha: float,
        beta: float,
        key: int,
        first: int,
        units: Floats,
        codes: Bytes,
        kept: Floats,
        stats: Floats | None,
    ) -> int:
        """See Codec.encode."""
        n = len(gradient)
        if n == 0:
            return 0
        made_units, made_codes, made_kept, made_stats, bad = encode_blocks(
            _whole(gradient), _whole(residual), scheme, alpha, beta, key, first
        )
        units[:] = made_units
        codes[:] = made_codes.reshape(-1)
        kept[:] = made_kept.reshape(-1)[:n]
        if stats is not None:
            stats[:] = made_stats
        return bad

    def decode(self, units: Floats, codes: Bytes, bits: int, weight: float, accumulate: bool, out: Floats) -> None:
        """See Codec.decode."""
        if len(out) == 0:
            return
        values = dequantize(units * np.float32(weight), unpack(codes.reshape(len(units), -1), bits))
        flat = values.reshape(-1)[: len(out)]
        if accumulate:
            out += flat
        else:
            out[:] = flat


def _whole(values: Floats) -> Floats:
    """A flat vector as blocks of 512, padded with zeros."""
    blocks = blocks_of(len(values))
    if len(values) == blocks * BLOCK:
        return values.reshape(blocks, BLOCK)
    padded = np.zeros(blocks * BLOCK, np.float32)
    padded[: len(values)] = values
    return padded.reshape(blocks, BLOCK)
