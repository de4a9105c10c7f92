"""The codec in C, through ctypes, on several threads. ctypes releases the interpreter lock during a call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tony.gradients.codec.reference import Reference
from tony.gradients.quantizer import BLOCK, Bytes, Floats, Scheme, blocks_of

BLOCKS_PER_TASK = 256
"""A thread gets at least so many blocks (half a megabyte of floats): less is not worth waking it."""
ISA_NAMES = ("plain C", "AVX2", "AVX-512")


class Native:
    """See Codec. Vectors must be contiguous. The result does not depend on `threads` nor on `isa`."""

    def __init__(self, library: ctypes.CDLL, threads: int = 1, isa: int | None = None) -> None:
        self._encode = library.tony_codec_encode
        self._encode.restype = ctypes.c_int64
        pointer, count, word, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_float
        self._encode.argtypes = [
            *(pointer,) * 6,
            *(count, word, word, number, number),
            *(ctypes.c_int,) * 3,
        ]
        self._decode = library.tony_codec_decode
        self._decode.restype = None
        self._decode.argtypes = [*(pointer,) * 3, count, number, *(ctypes.c_int,) * 3]
        best = int(library.tony_codec_best())
        self.isa = best if isa is None else min(isa, best)
        self.name = f"{ISA_NAMES[self.isa]}, {threads} thread{'s' if threads > 1 else ''}"
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "tony-codec") if threads > 1 else None
        self._reference = Reference()

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
        """See Codec.encode. The "l2" norm, which only the published method needs, is done by numpy."""
        if scheme.norm == "l2":
            return self._reference.encode(
                gradient, residual, scheme, alpha, beta, key, first, units, codes, kept, stats
            )
        n = len(gradient)
        addresses = [_address(array) for array in (gradient, residual, kept, units, codes)]
        stats_address = None if stats is None else _address(stats)
        stochastic = int(scheme.rounding == "stochastic")

        def run(low: int, high: int) -> int:
            g, h, k, u, c = addresses
            block = low // BLOCK
            return int(
                self._encode(
                    g + 4 * low,
                    h + 4 * low,
                    k + 4 * low,
                    u + 4 * block,
                    c + scheme.block_bytes * block,
                    None if stats_address is None else stats_address + 8 * block,
                    high - low,
                    key,
                    (first + low) & 0xFFFFFFFF,
                    alpha,
                    beta - alpha,
                    scheme.bits,
                    stochastic,
                    self.isa,
                )
            )

        return sum(self._split(n, run))

    def decode(self, units: Floats, codes: Bytes, bits: int, weight: float, accumulate: bool, out: Floats) -> None:
        """See Codec.decode."""
        u, c, o = _address(units), _address(codes), _address(out)

        def run(low: int, high: int) -> int:
            block = low // BLOCK
            self._decode(
                u + 4 * block,
                c + BLOCK * bits // 8 * block,
                o + 4 * low,
                high - low,
                weight,
                bits,
                int(accumulate),
                self.isa,
            )
            return 0

        self._split(len(out), run)

    def close(self) -> None:
        """End the threads. May be called twice; the codec cannot be used after it."""
        if self._pool is not None:
            self._pool.shutdown()

    def _split(self, n: int, run: Callable[[int, int], int]) -> list[int]:
        """Call run(low, high) for ranges of whole blocks that cover n elements, in parallel if that pays."""
        blocks = blocks_of(n)
        tasks = min(self._threads, blocks // BLOCKS_PER_TASK)
        if self._pool is None or tasks < 2:
            return [run(0, n)] if n else []
        bounds = [min(n, BLOCK * (blocks * task // tasks)) for task in range(tasks + 1)]
        others = [self._pool.submit(run, bounds[task], bounds[task + 1]) for task in range(1, tasks)]
        return [run(bounds[0], bounds[1]), *(other.result() for other in others)]


def _address(array: Floats | Bytes) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("the codec works on contiguous vectors")
    address: int = array.__array_interface__["data"][0]
    return address
