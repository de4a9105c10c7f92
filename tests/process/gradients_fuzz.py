"""Random bytes through one compiled codec, beside the reference: argv is the library and the number of rounds."""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from tony.gradients.codec import Codec
from tony.gradients.codec.native import Native
from tony.gradients.codec.reference import Reference
from tony.gradients.quantizer import BLOCK, Scheme, blocks_of


def outcome(codec: Codec, random: np.random.Generator, n: int, scheme: Scheme) -> list[bytes]:
    """Everything that encoding and decoding write, for vectors that are any bit pattern."""
    gradient = random.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    residual = random.standard_normal(n).astype(np.float32)
    blocks = blocks_of(n)
    units, codes = np.zeros(blocks, np.float32), np.zeros(blocks * scheme.block_bytes, np.uint8)
    kept, stats = np.zeros(n, np.float32), np.zeros((blocks, 2), np.float32)
    alpha, beta = (1.0, 1.0) if n % 2 else (0.5, 0.9)
    key, first = int(random.integers(2**32)), BLOCK * int(random.integers(2**20))
    bad = codec.encode(gradient, residual, scheme, alpha, beta, key, first, units, codes, kept, stats)
    out = np.ones(n, np.float32)
    foreign = random.integers(0, 256, len(codes), dtype=np.uint8)
    codec.decode(units, codes, scheme.bits, 0.25, True, out)
    codec.decode(units, foreign, scheme.bits, 1.0, n % 3 == 0, out)
    return [array.tobytes() for array in (units, codes, kept, stats, out)] + [bytes([bad % 256])]


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    codecs: list[Codec] = [Reference(), *(Native(library, 1, isa) for isa in range(3)), Native(library, 3)]
    for round_ in range(int(sys.argv[2])):
        chosen = np.random.default_rng(round_)
        n = int(chosen.integers(0, 3000)) + (260 * 3 * BLOCK if round_ == 0 else 0)
        scheme = Scheme(int(chosen.choice([2, 4, 8])), str(chosen.choice(["nearest", "stochastic"])))  # type: ignore[arg-type]
        with np.errstate(all="ignore"):
            made = [outcome(codec, np.random.default_rng([round_, 1]), n, scheme) for codec in codecs]
        assert all(one == made[0] for one in made), (round_, n, scheme)
    print("equal", flush=True)


if __name__ == "__main__":
    main()
