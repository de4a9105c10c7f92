"""The parts of a message: vectors that travel as float32, and buckets that travel as codes.

With three ranks or more every part is cut into one chunk a rank. "Up", every rank sends its piece of each chunk
to the chunk's owner, who adds them in rank order; "down", the owner sends the average to all. With two ranks
both send everything to each other ("direct"): the same bytes, one round and one rounding less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tony.gradients.codec import Codec
from tony.gradients.feedback import Coefficients, Feedback, measured_gamma, measures_gamma_at
from tony.gradients.quantizer import (
    BLOCK,
    UNIT_BYTES,
    Bytes,
    Floats,
    Scheme,
    blocks_of,
    stream_key,
    units_from_wire,
    units_to_wire,
)

UP, DOWN = 0, 1


class Part(Protocol):
    """One part of the messages of one round."""

    direct: bool
    fixed: bool
    """Whether all ranks know the lengths of all messages. Of a round only the last part may be without."""
    finite: bool
    """After the round: whether every rank's values were finite. The same on all ranks."""

    def up_bytes(self, owner: int) -> int: ...
    def write_up(self, owner: int, message: Bytes) -> None: ...
    def read_up(self, received: Sequence[Bytes]) -> None: ...
    def down_bytes(self, owner: int) -> int: ...
    def write_down(self, message: Bytes) -> None: ...
    def read_down(self, owner: int, message: Bytes) -> None: ...


class PlainPart:
    """A vector of float32 that is averaged without loss, in rank order.

    `bounds`: element index where each rank's chunk begins, and the end. `carry`: what the owner adds to its
    chunk's average.
    """

    fixed = True

    def __init__(
        self, values: Floats, average: Floats, bounds: Sequence[int], rank: int, carry: Floats | None = None
    ) -> None:
        self.values = values
        self.average = average
        self.bounds = bounds
        self.rank = rank
        self.carry = carry
        self.size = len(bounds) - 1
        self.direct = self.size == 2
        self.finite = True

    def up_bytes(self, owner: int) -> int:
        return 4 * len(self._chunk(self.values, owner))

    def write_up(self, owner: int, message: Bytes) -> None:
        message.view(np.float32)[:] = self._chunk(self.values, owner)

    def read_up(self, received: Sequence[Bytes]) -> None:
        out = self.average if self.direct else self._chunk(self.average, self.rank)
        with np.errstate(over="ignore", invalid="ignore"):
            for source, message in enumerate(received):
                if source == 0:
                    out[:] = message.view(np.float32)
                else:
                    out += message.view(np.float32)
            out *= np.float32(1 / self.size)
            if self.carry is not None and not self.direct:
                out += self.carry
        self.finite = bool(np.isfinite(out).all())

    def down_bytes(self, owner: int) -> int:
        return 0 if self.direct else 4 * len(self._chunk(self.values, owner))

    def write_down(self, message: Bytes) -> None:
        message.view(np.float32)[:] = self._chunk(self.average, self.rank)

    def read_down(self, owner: int, message: Bytes) -> None:
        part = message.view(np.float32)
        self._chunk(self.average, owner)[:] = part
        self.finite = self.finite and bool(np.isfinite(part).all())

    def _chunk(self, vector: Floats, owner: int) -> Floats:
        return vector if self.direct else vector[self.bounds[owner] : self.bounds[owner + 1]]


class CodedPart:
    """A bucket: its gradient, its two residuals and its average. `bounds` are in elements, at whole blocks.

    A step writes new residuals beside the old ones; only `commit` makes them valid.
    """

    fixed = True

    def __init__(
        self,
        index: int,
        bounds: Sequence[int],
        rank: int,
        codec: Codec,
        up: Scheme,
        down: Scheme,
        feedback: Feedback,
        server_feedback: bool,
        gradient: Floats | None = None,
    ) -> None:
        """`gradient`: where the bucket's gradient lies, if it has a place already."""
        elements = bounds[-1]
        self.index = index
        self.bounds = bounds
        self.rank = rank
        self.size = len(bounds) - 1
        self.direct = self.size == 2
        self.finite = True
        self.schemes = (up, down)
        self.coefficients = (Coefficients(up, feedback), Coefficients(down, feedback))
        self._feedback = feedback
        own = 0 if self.direct else bounds[rank + 1] - bounds[rank]
        self.gradient: Floats = np.zeros(elements, np.float32) if gradient is None else gradient
        self.average: Floats = np.zeros(elements, np.float32)
        self.residuals: list[Floats] = [np.zeros(elements, np.float32), np.zeros(own, np.float32)]
        self.units: Floats = np.zeros(blocks_of(elements), np.float32)
        self.stats: list[Floats] = [np.zeros((blocks_of(length), 2), np.float32) for length in (elements, own)]
        self._kept: list[Floats] = [np.empty(elements, np.float32), np.empty(own, np.float32)]
        self._own_units: Floats = np.zeros(blocks_of(own), np.float32)
        self._codec = codec
        self._server_feedback = server_feedback
        self._keys = [0, 0]
        self._measure = self._measure_stochastic = False

    def begin(self, seed: int, step: int, measure: bool) -> None:
        """Prepare a step; `measure` asks for stats even where no coefficient needs them."""
        self._keys = [stream_key(seed, step, self.index, self.rank, phase) for phase in (UP, DOWN)]
        self._measure = measure
        self._measure_stochastic = measures_gamma_at(step)
        self.finite = True

    def up_bytes(self, owner: int) -> int:
        low, high = self._range(owner)
        return self.schemes[UP].message_bytes(blocks_of(high - low))

    def write_up(self, owner: int, message: Bytes) -> None:
        low, high = self._range(owner)
        blocks = blocks_of(high - low)
        first = low // BLOCK
        last = first + blocks
        self._encode(
            UP,
            self.gradient[low:high],
            self.residuals[UP][low:high],
            self._kept[UP][low:high],
            low,
            self.units[first:last],
            message[UNIT_BYTES * blocks :],
            self.stats[UP][first:last],
        )
        units_to_wire(self.units[first:last], message[: UNIT_BYTES * blocks])

    def read_up(self, received: Sequence[Bytes]) -> None:
        low, high = self._range(self.rank)
        for source, message in enumerate(received):
            units, codes = _split(message, blocks_of(high - low))
            if self.direct:
                self.finite = self.finite and not bool(np.isnan(units).any())
            self._codec.decode(units, codes, self.schemes[UP].bits, 1 / self.size, source > 0, self.average[low:high])

    def down_bytes(self, owner: int) -> int:
        low, high = self._range(owner)
        return 0 if self.direct else self.schemes[DOWN].message_bytes(blocks_of(high - low))

    def write_down(self, message: Bytes) -> None:
        low, high = self._range(self.rank)
        blocks = blocks_of(high - low)
        self._encode(
            DOWN,
            self.average[low:high],
            self.residuals[DOWN],
            self._kept[DOWN],
            low,
            self._own_units,
            message[UNIT_BYTES * blocks :],
            self.stats[DOWN],
        )
        units_to_wire(self._own_units, message[: UNIT_BYTES * blocks])

    def read_down(self, owner: int, message: Bytes) -> None:
        low, high = self._range(owner)
        units, codes = _split(message, blocks_of(high - low))
        self.finite = self.finite and not bool(np.isnan(units).any())
        self._codec.decode(units, codes, self.schemes[DOWN].bits, 1.0, False, self.average[low:high])

    def commit(self) -> None:
        """The step is applied: the new residuals become the residuals, and gamma is taken from the stats."""
        for phase, units in ((UP, self.units), (DOWN, self._own_units)):
            if phase == UP or self._server_feedback:
                self.residuals[phase], self._kept[phase] = self._kept[phase], self.residuals[phase]
            if self._measures(phase) and len(units):
                self.coefficients[phase].observe(measured_gamma(units, self.stats[phase]))

    def travel_as(self, up: Scheme, down: Scheme) -> None:
        """Use other codes from the next step on; what is owed stays owed."""
        if (up, down) != self.schemes:
            self.schemes = (up, down)
            self.coefficients = (Coefficients(up, self._feedback), Coefficients(down, self._feedback))

    def bytes_of(self, blocks: int) -> tuple[float, float]:
        """Bytes of so many of its blocks up to all owners, and down to one rank."""
        up, down = (scheme.message_bytes(blocks) for scheme in self.schemes)
        return up, 0 if self.direct else down

    def flush_part(self) -> PlainPart:
        """The bucket with everything it owes, as floats; after it both residuals are to be cleared."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.gradient + self.residuals[UP]
        return PlainPart(values, self.average, self.bounds, self.rank, self.residuals[DOWN])

    def add_owed(self) -> None:
        """Add to the gradient what it owes, so that the mean of all ranks' gradients owes nothing."""
        with np.errstate(over="ignore", invalid="ignore"):
            self.gradient += self.residuals[UP]
            if not self.direct:
                own = self.gradient[self.bounds[self.rank] : self.bounds[self.rank + 1]]
                own += self.residuals[DOWN] * np.float32(self.size)

    def clear_residuals(self) -> None:
        for residual in self.residuals:
            residual[:] = 0

    def _measures(self, phase: int) -> bool:
        return self._measure or (self._measure_stochastic and self.schemes[phase].rounding == "stochastic")

    def _encode(
        self,
        phase: int,
        values: Floats,
        residual: Floats,
        kept: Floats,
        first: int,
        units: Floats,
        codes: Bytes,
        stats: Floats,
    ) -> None:
        coefficients = self.coefficients[phase]
        self._codec.encode(
            values,
            residual,
            self.schemes[phase],
            coefficients.alpha,
            coefficients.beta,
            self._keys[phase],
            first,
            units,
            codes,
            kept,
            stats if self._measures(phase) else None,
        )

    def _range(self, owner: int) -> tuple[int, int]:
        return (0, self.bounds[-1]) if self.direct else (self.bounds[owner], self.bounds[owner + 1])


def _split(message: Bytes, blocks: int) -> tuple[Floats, Bytes]:
    """The units and the codes of a message."""
    return units_from_wire(message[: UNIT_BYTES * blocks]), message[UNIT_BYTES * blocks :]
