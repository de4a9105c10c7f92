"""The two implementations of the codes: numpy (`reference`) and C (`native`), equal bit for bit."""

from __future__ import annotations

from typing import Protocol

from tony.gradients.quantizer import Bytes, Floats, Scheme


class Codec(Protocol):
    """Works on flat float32 vectors of any length; a last block that is not full counts as padded with zeros.

    A message of n elements has b = blocks_of(n) units (float32) and b * scheme.block_bytes bytes of codes.
    Nothing is allocated that is as long as the vectors, except by the reference.
    """

    name: str

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
        """Write units, codes, the new residual (`kept`) and, if given, stats of shape (b, 2).

        `first`: index in the bucket of the first element. Returns the number of blocks that are not finite.
        """
        ...

    def decode(self, units: Floats, codes: Bytes, bits: int, weight: float, accumulate: bool, out: Floats) -> None:
        """out = or += weight * decoded. `weight` multiplies the unit first, then the unit the code."""
        ...
