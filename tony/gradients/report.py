"""What an exchange did, tensor by tensor, and how the job hears of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tony.context import Context, current
from tony.gradient_numbers import GradientNumbers
from tony.gradients.buckets import EXEMPT
from tony.gradients.exchange import Exchange
from tony.gradients.feedback import measured_gamma
from tony.gradients.parts import DOWN, UP
from tony.gradients.quantizer import BLOCK, blocks_of
from tony.gradients.whole import HALF_BITS, WHOLE_BITS

EVERY_S = 10.0
MOST_LAYERS = 32


@dataclass(frozen=True)
class TensorReport:
    """One tensor as this rank sends it. One that travels as floats has 32 or 16 bits and no gamma and residual."""

    name: str
    elements: int
    bits: int
    bytes_per_step: float
    """What this rank sends for it to other ranks in a step, without network headers."""
    ratio: float
    """Bytes of a float32 ring allreduce over the same ranks, divided by `bytes_per_step`."""
    gamma: float
    """Relative variance of the quantizer, |rounding error|^2 / |signal|^2, when last measured."""
    residual_norm: float


def report(exchange: Exchange) -> list[TensorReport]:
    """All tensors of the last step, in order; empty before the first one."""
    size = exchange.transport.size
    if exchange.layout is None or size < 2:
        return []
    lines = []
    for tensor, place in exchange.layout:
        ring = 2 * (size - 1) / size * 4 * tensor.size
        if place.bucket == EXEMPT or exchange.bits >= HALF_BITS:
            bits = exchange.bits if exchange.bits == HALF_BITS and exchange.floats else WHOLE_BITS
            sent = ring * bits / WHOLE_BITS
            lines.append(TensorReport(tensor.name, tensor.size, bits, sent, WHOLE_BITS / bits, 0.0, 0.0))
            continue
        part = exchange.parts[place.bucket]
        blocks = blocks_of(tensor.size)
        first = place.offset // BLOCK
        up, down = part.bytes_of(blocks)
        sent = up if part.direct else (size - 1) / size * (up + down)
        owed = part.residuals[UP][place.offset : place.offset + tensor.size]
        gamma = measured_gamma(part.units[first : first + blocks], part.stats[UP][first : first + blocks])
        lines.append(
            TensorReport(
                tensor.name,
                tensor.size,
                exchange.bits,
                sent,
                ring / sent if sent else 1.0,
                gamma,
                float(np.sqrt(np.dot(owed, owed))),
            )
        )
    return lines


def owner_residual_norm(exchange: Exchange) -> float:
    """Euclidean norm of what this rank owes to all as the owner of its chunks."""
    return float(np.sqrt(sum(float(np.dot(p.residuals[DOWN], p.residuals[DOWN])) for p in exchange.parts)))


class JobReport:
    """Tells the job now and then how gradients travel: `tony metrics` shows it, the history keeps it.

    Every rank tells the sums, the first one also its largest layers. Costs a pass over the residuals each time.
    """

    def __init__(self, context: Context | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context or current()
        self._clock = clock
        self._told_s = -math.inf

    def stepped(self, exchange: Exchange) -> None:
        """A step was made. Never blocks, never raises for what the job does with it."""
        if self._context.application_id is None or self._clock() - self._told_s < EVERY_S or exchange.deciding:
            return
        self._told_s = self._clock()
        lines = report(exchange)
        if not lines:
            return
        self._context.report(**together(lines, exchange.bits).named())
        if exchange.transport.rank == 0:
            largest = sorted(range(len(lines)), key=lambda index: -lines[index].elements)[:MOST_LAYERS]
            for index in sorted(largest):
                self._context.report(**_numbers(lines[index], _numbered(index, lines[index].name)).named())


def together(lines: list[TensorReport], bits: int) -> GradientNumbers:
    """All tensors as one, sent as `bits`."""
    sent = sum(line.bytes_per_step for line in lines)
    ring = sum(line.bytes_per_step * line.ratio for line in lines)
    coded = [line for line in lines if line.bits < HALF_BITS]
    owed = math.sqrt(sum(line.residual_norm**2 for line in coded))
    elements = sum(line.elements for line in coded)
    gamma = sum(line.gamma * line.elements for line in coded) / elements if elements else 0.0
    return GradientNumbers("", bits, sent, owed, math.sqrt(gamma), ring / sent if sent else 1.0)


def _numbers(line: TensorReport, layer: str) -> GradientNumbers:
    return GradientNumbers(
        layer, line.bits, line.bytes_per_step, line.residual_norm, math.sqrt(line.gamma), line.ratio
    )


def _numbered(index: int, name: str) -> str:
    """Names that TensorFlow's variables get here begin with their number already."""
    return name if name.partition(":")[0].isdecimal() else f"{index}:{name}"
