"""Find out how gradients travel best in this job: as codes of 2, 4 or 8 bits, as float16, or as float32.

The first steps of the training try the ways one after the other, each in its turn, so that other load hits all of
them. Every rank measures; after each turn the ranks show each other what they measured, and all compute the same
decision from the same numbers. It falls on the most exact way whose step, computing included, is as short as the
shortest but for two in a hundred: where the network is fast enough, gradients stay float32.

It is made once a job and kept in the residual checkpoint. Nothing is lost while it is being made: what one way
rounded away stays in the residual and travels with the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tony.gradients.codec import Codec
from tony.gradients.exchange import Averages, Exchange, Gradient, Settings
from tony.gradients.quantizer import Bytes
from tony.gradients.transport import Transport
from tony.gradients.whole import HALF_BITS, WHOLE_BITS

log = logging.getLogger(__name__)

WAYS = (WHOLE_BITS, HALF_BITS, 8, 4)
"""Of these it chooses by default. Two bits cost accuracy in some models, so a script has to ask for them."""
TURNS = 5
"""The first turn only warms up."""
HOPELESS = 1.5
"""A way whose step takes so many times the shortest is not tried again."""
TOLERANCE = 1.02
LONGEST_S = 1e6

Clock = Callable[[], float]


@dataclass(frozen=True)
class Decision:
    """`seconds`: of an exchange by each way that was tried to the end; `compute_s`: between two exchanges."""

    bits: int
    seconds: dict[int, float]
    compute_s: float

    def __str__(self) -> str:
        tried = ", ".join(f"{way_name(bits)} {1000 * self.seconds[bits]:.3g} ms" for bits in sorted(self.seconds))
        return (
            f"gradients travel as {way_name(self.bits)}: an exchange took {tried}; "
            f"computing between two takes {1000 * self.compute_s:.3g} ms"
        )


def way_name(bits: int) -> str:
    """The words for people."""
    return f"float{bits}" if bits >= HALF_BITS else f"{bits}-bit codes"


class Trial:
    """Which way comes next, what was measured, and the decision in the end. Pure: the same answers on all ranks
    lead to the same state on all of them."""

    def __init__(self, ways: Sequence[int]) -> None:
        self.left = list(dict.fromkeys(ways))
        self._turn = 0
        self._next = 0
        self._measured: list[float] = []
        self._compute: list[float] = []
        self._costs: dict[int, list[float]] = {bits: [] for bits in self.left}
        self._computes: list[float] = []

    @property
    def bits(self) -> int:
        """The way of the coming step."""
        return self.left[self._next]

    def note(self, exchange_s: float, compute_s: float | None) -> bool:
        """Take one step's times on this rank; whether the turn is over and the ranks have to `settle`."""
        self._measured.append(exchange_s)
        if compute_s is not None:
            self._compute.append(compute_s)
        self._next += 1
        return self._next == len(self.left)

    def measured(self) -> Bytes:
        """What this rank measured in the turn, as bytes for the others."""
        compute = min(self._compute) if self._compute else 0.0
        return np.array([*self._measured, compute], "<f8").view(np.uint8)

    def settle(self, answers: Sequence[Bytes]) -> Decision | None:
        """End the turn with what all ranks measured; the decision after the last one, or when one way is left."""
        table = np.array([answer.view("<f8") for answer in answers])
        slowest = np.nan_to_num(table, nan=LONGEST_S, posinf=LONGEST_S, neginf=0.0).clip(0, LONGEST_S).max(axis=0)
        if self._turn > 0:
            self._computes.append(float(slowest[-1]))
            for bits, seconds in zip(self.left, slowest, strict=False):
                self._costs[bits].append(float(seconds))
        self._turn += 1
        self._next = 0
        self._measured.clear()
        self._compute.clear()
        if not self._computes:
            return None
        compute_s = float(np.median(self._computes))
        costs = {bits: float(np.median(self._costs[bits])) for bits in self.left}
        shortest = compute_s + min(costs.values())
        self.left = [bits for bits in self.left if compute_s + costs[bits] <= HOPELESS * shortest]
        if self._turn < TURNS and len(self.left) > 1:
            return None
        good = [bits for bits in self.left if compute_s + costs[bits] <= TOLERANCE * shortest]
        return Decision(max(good), costs, compute_s)


class AutoExchange(Exchange):
    """An Exchange that finds out how gradients travel best. `decision` is None until it knows."""

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        codec: Codec | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """`settings.up` is not None; its bits do not matter, its rounding does."""
        super().__init__(transport, settings, codec)
        self.decision: Decision | None = None
        # Float16 is only there where the transport has it.
        self._trial: Trial | None = Trial([b for b in settings.ways if b != HALF_BITS or self.floats])
        self._clock = clock
        self._ended_s: float | None = None

    @property
    def deciding(self) -> bool:
        """See Exchange.deciding."""
        return self._trial is not None

    def decided(self, bits: int) -> None:
        """See Exchange.decided."""
        self._trial = None
        super().decided(bits)

    def average(self, gradients: Sequence[Gradient], flush: bool = False) -> Averages:
        """See Exchange.average."""
        trial = self._trial
        if trial is None or flush or self.transport.size == 1:
            return super().average(gradients, flush)
        arrived_s = self._clock()
        compute_s = None if self._ended_s is None else arrived_s - self._ended_s
        self.travel(trial.bits)
        if self._agreed is not None:
            # All begin together: to wait for a slower rank is not part of the exchange.
            self.transport.allgather(np.zeros(1, np.uint8), [1] * self.transport.size)
        pays_back = trial.bits >= HALF_BITS and self._owing
        began_s = self._clock()
        averages = super().average(gradients)
        # The first floats after codes also carry what those owed: that is not what floats cost.
        if not pays_back and trial.note(self._clock() - began_s, compute_s):
            measured = trial.measured()
            answers = self.transport.allgather(measured, [len(measured)] * self.transport.size)
            self.decision = trial.settle(answers)
            if self.decision is not None:
                self._trial = None
                self.travel(self.decision.bits)
                log.info("%s", self.decision)
        self._ended_s = self._clock()
        return averages


def exchange_for(transport: Transport, settings: Settings) -> Exchange:
    """The exchange that the settings ask for: one way, or the choice among several."""
    return AutoExchange(transport, settings) if settings.ways else Exchange(transport, settings)
