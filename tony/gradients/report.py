"""What an exchange did, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tony.gradients.buckets import EXEMPT
from tony.gradients.exchange import Exchange
from tony.gradients.feedback import measured_gamma
from tony.gradients.parts import DOWN, UP
from tony.gradients.quantizer import BLOCK, blocks_of


@dataclass(frozen=True)
class TensorReport:
    """One tensor as this rank sends it. An exempt tensor has 32 bits and no gamma and residual."""

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
        if place.bucket == EXEMPT:
            sent = ring
            lines.append(TensorReport(tensor.name, tensor.size, 32, sent, 1.0, 0.0, 0.0))
            continue
        part = exchange.parts[place.bucket]
        blocks = blocks_of(tensor.size)
        first = place.offset // BLOCK
        up, down = (scheme.message_bytes(blocks) for scheme in part.schemes)
        sent = float(up) if part.direct else (size - 1) / size * (up + down)
        owed = part.residuals[UP][place.offset : place.offset + tensor.size]
        gamma = measured_gamma(part.units[first : first + blocks], part.stats[UP][first : first + blocks])
        lines.append(
            TensorReport(
                tensor.name,
                tensor.size,
                part.schemes[UP].bits,
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
