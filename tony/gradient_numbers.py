"""How the gradients of a task travel, as numbers that a script reports: their names, and back from the names.

A task reports `gradients/bits` and so on for all its gradients; the first worker also `gradients/LAYER/bits` for the
largest layers. Standard library only: scripts and commands both use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "gradients/"
NAME_CHARACTERS = 64
"""What a reported name may be long."""
_QUANTITIES = ("bits", "bytes", "owed", "error", "ratio")


@dataclass(frozen=True)
class GradientNumbers:
    """Of one layer, or of all together (`layer` is empty)."""

    layer: str
    bits: int
    bytes_per_step: float
    """What the task sends in a step, without network headers."""
    residual_norm: float
    quantization_error: float
    """Euclidean norm of the rounding error over that of the signal, when last measured."""
    ratio: float
    """Bytes of a float32 ring over `bytes_per_step`."""

    def named(self) -> dict[str, float]:
        """As numbers to report."""
        values = (self.bits, self.bytes_per_step, self.residual_norm, self.quantization_error, self.ratio)
        start = PREFIX + (f"{_short(self.layer)}/" if self.layer else "")
        return {start + quantity: float(value) for quantity, value in zip(_QUANTITIES, values, strict=True)}


def gradients_in(reported: Mapping[str, float]) -> list[GradientNumbers]:
    """What a task reported about its gradients: first all together, then layer by layer; empty if nothing."""
    found: dict[str, dict[str, float]] = {}
    for name, value in reported.items():
        if name.startswith(PREFIX):
            layer, _, quantity = name[len(PREFIX) :].rpartition("/")
            found.setdefault(layer, {})[quantity] = value
    return [_numbers(layer, found[layer]) for layer in sorted(found, key=_order)]


def without_gradients(reported: Mapping[str, float]) -> dict[str, float]:
    """The numbers that are about something else."""
    return {name: value for name, value in reported.items() if not name.startswith(PREFIX)}


def _numbers(layer: str, values: Mapping[str, float]) -> GradientNumbers:
    bits, sent, owed, error, ratio = (values.get(quantity, 0.0) for quantity in _QUANTITIES)
    return GradientNumbers(layer, int(bits), sent, owed, error, ratio)


def _order(layer: str) -> tuple[int, str]:
    """Layers are named "3:dense/kernel": in the order of the model."""
    number = layer.partition(":")[0]
    return (int(number) if number.isdecimal() else -1, layer)


def _short(layer: str) -> str:
    """The name with its begin left out where it is too long; its number stays."""
    room = NAME_CHARACTERS - len(PREFIX) - 1 - max(len(quantity) for quantity in _QUANTITIES)
    if len(layer) <= room:
        return layer
    number, found, _ = layer.partition(":")
    start = f"{number}:.." if found and number.isdecimal() else ".."
    return start + layer[len(layer) - room + len(start) :]
