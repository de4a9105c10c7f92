"""Row 6: speed of the codec on one thread and on all, beside memcpy of the same vectors in the same minute.

GB/s of float32 input. "encode" is quantize, feedback and pack; "decode" is unpack and accumulate. One thread is
measured in seconds of its processor, which other load hardly touches, several in seconds of the clock. The best of
several runs counts. Stochastic rounding measures gamma in every fourth step: "mixed" is the mean of such four.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

from tony.gradients.codec.build import load
from tony.gradients.codec.native import Native
from tony.gradients.quantizer import Scheme, blocks_of


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line a case. Returns 1 where there is no native codec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=25_600_000)
    parser.add_argument("--runs", type=int, default=9)
    chosen = parser.parse_args(arguments)
    library = load()
    if library is None:
        print("there is no native codec here", file=sys.stderr)
        return 1
    n, random = chosen.elements, np.random.default_rng(0)
    gradient = random.standard_normal(n, np.float32)
    residual, kept = np.full(n, 0.1, np.float32), np.ones(n, np.float32)
    threads = sorted({1, len(os.sched_getaffinity(0))})
    for count in threads:
        for isa in (1, 2):
            codec = Native(library, count, isa)
            for bits in (2, 4, 8):
                for rounding in ("nearest", "stochastic"):
                    scheme = Scheme(bits, rounding)
                    units = np.zeros(blocks_of(n), np.float32)
                    codes = np.zeros(len(units) * scheme.block_bytes, np.uint8)
                    stats = np.zeros((len(units), 2), np.float32)

                    def encode(measured: np.ndarray | None = None) -> None:
                        codec.encode(gradient, residual, scheme, 1.0, 1.0, 5, 0, units, codes, kept, measured)  # noqa: B023

                    def decode() -> None:
                        codec.decode(units, codes, bits, 1.0, True, kept)  # noqa: B023

                    cases = [lambda: np.copyto(kept, gradient), encode, decode, lambda: encode(stats)]  # noqa: B023
                    speeds = _best(cases, n, chosen.runs, time.thread_time if count == 1 else time.perf_counter)
                    line = {
                        "codec": codec.name,
                        "bits": bits,
                        "rounding": rounding,
                        "memcpy": round(speeds[0], 2),
                        "encode": round(speeds[1], 2),
                        "encode/memcpy": round(speeds[1] / speeds[0], 2),
                        "decode": round(speeds[2], 2),
                        "decode/memcpy": round(speeds[2] / speeds[0], 2),
                    }
                    if rounding == "stochastic":
                        mixed = 4 / (3 / speeds[1] + 1 / speeds[3])
                        line |= {"mixed": round(mixed, 2), "mixed/memcpy": round(mixed / speeds[0], 2)}
                    print(json.dumps(line), flush=True)
            codec.close()
    return 0


def _best(cases: list[Callable[[], None]], elements: int, runs: int, clock: Callable[[], float]) -> list[float]:
    """GB/s of each case, run in turns so that all see the same other load."""
    times = [float("inf")] * len(cases)
    for _ in range(runs):
        for index, case in enumerate(cases):
            began = clock()
            case()
            times[index] = min(times[index], clock() - began)
    return [4 * elements / seconds / 1e9 for seconds in times]


if __name__ == "__main__":
    sys.exit(main())
