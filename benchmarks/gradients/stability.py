"""Row 9: the residual stays bounded, whatever the gradient, levels and scale, with the coefficients chosen by itself.

Feeds gradients made to hurt for many steps and prints the largest residual, in units of the largest gradient norm.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import numpy as np

from tony.gradients.codec import Codec
from tony.gradients.codec.choice import choose
from tony.gradients.feedback import Coefficients, Feedback, measured_gamma, measures_gamma_at
from tony.gradients.quantizer import BLOCK, Floats, Scheme, stream_key

BLOCKS = 4
LIMIT = 100.0
Source = Callable[[np.random.Generator, int], Floats]


def gaussian(random: np.random.Generator, step: int) -> Floats:
    made: Floats = random.standard_normal(BLOCKS * BLOCK, np.float32)
    return made


def constant(random: np.random.Generator, step: int) -> Floats:
    made: Floats = np.linspace(-1, 1, BLOCKS * BLOCK, dtype=np.float32)
    return made


def spikes(random: np.random.Generator, step: int) -> Floats:
    """Quiet, with one large element that moves; every 500 steps calm."""
    made: Floats = random.standard_normal(BLOCKS * BLOCK, np.float32)
    made *= np.float32(1e-3)
    if step % 1000 < 500:
        made[step % len(made)] = 30
    return made


def heavy(random: np.random.Generator, step: int) -> Floats:
    made: Floats = random.standard_t(2, BLOCKS * BLOCK).clip(-1000, 1000).astype(np.float32)
    return made


def scales(random: np.random.Generator, step: int) -> Floats:
    """The size of the gradient changes by ten orders of magnitude."""
    made: Floats = random.standard_normal(BLOCKS * BLOCK, np.float32)
    made *= np.float32(10.0 ** (step % 11 - 5))
    return made


SOURCES: dict[str, Source] = {f.__name__: f for f in (gaussian, constant, spikes, heavy, scales)}
SCHEMES = [
    Scheme(2),
    Scheme(4),
    Scheme(8),
    Scheme(2, "stochastic"),
    Scheme(4, "stochastic"),
    Scheme(2, "stochastic", "l2"),
    Scheme(4, "stochastic", "l2"),
]


def largest_residual(codec: Codec, source: Source, scheme: Scheme, steps: int) -> float:
    """Largest norm of the residual over the largest norm of a gradient; infinity when it is not finite."""
    random = np.random.default_rng(3)
    coefficients = Coefficients(scheme, Feedback())
    n = BLOCKS * BLOCK
    residual, kept = np.zeros(n, np.float32), np.zeros(n, np.float32)
    units, stats = np.zeros(BLOCKS, np.float32), np.zeros((BLOCKS, 2), np.float32)
    codes = np.zeros(BLOCKS * scheme.block_bytes, np.uint8)
    worst, largest = 0.0, 0.0
    for step in range(steps):
        gradient = source(random, step)
        key = stream_key(0, step, 0, 0, 0)
        codec.encode(gradient, residual, scheme, coefficients.alpha, 1.0, key, 0, units, codes, kept, stats)
        residual, kept = kept, residual
        if measures_gamma_at(step):
            coefficients.observe(measured_gamma(units, stats))
        largest = max(largest, float(np.linalg.norm(gradient)))
        worst = max(worst, float(np.linalg.norm(residual)))
    return worst / largest if np.isfinite(residual).all() else float("inf")


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line a case. Returns 1 if a residual passed 100 times the largest gradient."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    chosen = parser.parse_args(arguments)
    codec = choose(1)
    missed = 0
    for scheme in SCHEMES:
        ratios = {name: round(largest_residual(codec, f, scheme, chosen.steps), 2) for name, f in SOURCES.items()}
        missed += max(ratios.values()) > LIMIT
        case = f"{scheme.bits} bit, {scheme.rounding}, {scheme.norm}"
        print(json.dumps({"case": case, "steps": chosen.steps} | ratios), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
