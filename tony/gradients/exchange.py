"""The exchange: gradients of all ranks in, their average out, the same bits on every rank.

Per bucket: an alltoall of codes, the sum on each chunk's owner (who keeps a residual of its own), an allgather
of codes. Two ranks do with one round. Both residuals change only when the average is finite on all ranks. Without
codes the floats go through the transport's own average, where it has one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from tony.gradients.agreement import HEADER_BYTES, Agreement, agrees, digest_of, explain
from tony.gradients.buckets import EXEMPT, Layout, Tensor, chunk_bounds, first_difference, lay_out
from tony.gradients.codec import Codec
from tony.gradients.codec.choice import choose
from tony.gradients.errors import BadGradient, GradientError, ResidualMismatch
from tony.gradients.feedback import Feedback
from tony.gradients.parts import UP, CodedPart, Part, PlainPart
from tony.gradients.quantizer import BLOCK, Bytes, Floats, Scheme, aligned
from tony.gradients.sparse import SPARSE_BITS, Sparse, SparsePart
from tony.gradients.transport import AveragesFloats, Transport
from tony.gradients.whole import (
    HALF_BITS,
    MARK_ELEMENTS,
    MOST_RANKS,
    WHOLE_BITS,
    alarm,
    is_finite,
    marks_agree,
    write_mark,
)

log = logging.getLogger(__name__)

MEASURE_EVERY = 100
"""With rounding to nearest, gamma is only for the report and is measured every so many steps."""

Gradient = tuple[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Settings:
    """How gradients are exchanged; must be equal on all ranks. `up` None: everything as float32.

    `down`: the codes of the second phase, by default those of the first. `server_feedback` False leaves out
    the owner's residual, which costs accuracy; it exists to show that. `ways`: the bits among which an
    AutoExchange chooses, 32 for float32 and 16 for float16; it begins with `up`. `sparse`: send few elements
    instead of `up`'s codes, which then do not matter.
    """

    up: Scheme | None = Scheme(4)
    down: Scheme | None = None
    feedback: Feedback = Feedback()
    server_feedback: bool = True
    seed: int = 0
    exempt: tuple[str, ...] = ()
    exempt_below: int = 1024
    bucket_bytes: int = 16 << 20
    ways: tuple[int, ...] = ()
    sparse: Sparse | None = None


@dataclass(frozen=True)
class Averages:
    """Result of a step: one float32 array per gradient, in order, valid until the next step.

    When `finite` is false some rank had a NaN or an infinity; then the averages hold NaN, and the residuals of
    all ranks are as before: skip the step.
    """

    arrays: list[Floats]
    finite: bool
    sent_bytes: int
    """What this rank handed to the transport for other ranks, without the network's own headers."""


class Exchange:
    """One rank's state. Every method that blocks must be called by all ranks, in the same order."""

    def __init__(self, transport: Transport, settings: Settings | None = None, codec: Codec | None = None) -> None:
        self.transport = transport
        self.settings = settings or Settings()
        self.step = 0
        self.layout: Layout | None = None
        self.parts: list[CodedPart] = []
        self.bits = self.settings.up.bits if self.settings.up else WHOLE_BITS
        if self.settings.sparse:
            self.bits = SPARSE_BITS
        """As what gradients travel: 2, 4 or 8 bit codes, or floats of 16 or 32 bits; 1 for few elements."""
        self.floats = isinstance(transport, AveragesFloats) and transport.size <= MOST_RANKS
        """Whether the transport averages floats by itself."""
        self._codec = codec or choose()
        self._vector: Floats = np.zeros(MARK_ELEMENTS, np.float32)
        self._starts: list[int] = []
        self._agreed: tuple[bytes, int] | None = None
        self._owing = False
        self._exempt: Floats = np.zeros(0, np.float32)
        self._exempt_average: Floats = np.zeros(0, np.float32)
        self._digest = bytes(16)
        self._message: Bytes = np.zeros(0, np.uint8)
        self._adopted = False
        self._skipped = 0
        self._described = asdict(self.settings) | {"size": transport.size}

    def average(self, gradients: Sequence[Gradient], flush: bool = False) -> Averages:
        """The mean of every gradient over all ranks. Blocks until all ranks have called it.

        With `flush`, everything owed is sent as float32 and the residuals end as zeros, so that a checkpoint
        made after this step needs none. Raises BadGradient or RanksDisagree, and then on every rank.
        """
        size = self.transport.size
        if size == 1:
            arrays = [np.asarray(array, np.float32) for _, array in gradients]
            return Averages(arrays, all(bool(np.isfinite(array).all()) for array in arrays), 0)
        problem = self._prepare(gradients)
        described = self._described | {"width": self.bits, "flush": flush, "deciding": self.deciding}
        agreement = Agreement(described, self._tensor_list(gradients), self.step, problem)
        header = agreement.header(digest_of(agreement.settings, self._digest))
        whole = self._average_whole(header, problem, gradients)
        if whole is not None:
            return whole
        flush = flush or self.bits >= HALF_BITS
        if problem:
            self.transport.alltoall(np.frombuffer(header * size, np.uint8), [HEADER_BYTES] * size)
            raise explain(self.transport, agreement)
        coded = self.parts
        for part in coded:
            part.begin(self.settings.seed, self.step, self.step % MEASURE_EVERY == 0)
        bounds = chunk_bounds(len(self._exempt), size)
        exempt = PlainPart(self._exempt, self._exempt_average, bounds, self.transport.rank)
        bodies: list[Part] = [part.flush_part() for part in coded] if flush else list(coded)
        rounds: list[list[Part]] = [[exempt, *bodies[:1]], *([body] for body in bodies[1:])]
        sent = 0
        for index, parts in enumerate(rounds):
            sent += self._round(parts, header if index == 0 else b"", agreement)
        finite = all(part.finite for parts in rounds for part in parts)
        if finite:
            for part in coded:
                part.clear_residuals() if flush else part.commit()
            self._owing = not flush
        self._agreed = (self._digest, len(self._vector))
        self._note(finite)
        self.step += 1
        return Averages(self._results(), finite, sent)

    @property
    def deciding(self) -> bool:
        """Whether it is still being found out how gradients travel best."""
        return False

    def travel(self, bits: int) -> None:
        """From the next step on, on all ranks alike: codes of 2, 4 or 8 bits, or floats of 16 or 32."""
        self.bits = bits
        self._agree_on_codes()

    def decided(self, bits: int) -> None:
        """Take over a decision of an earlier run. The next step compares it between the ranks."""
        self.travel(bits)
        self._agreed = None

    def residual_norm(self) -> float:
        """Euclidean norm of what this rank has not sent yet (worker side)."""
        return float(np.sqrt(sum(float(np.dot(p.residuals[UP], p.residuals[UP])) for p in self.parts)))

    def adopt(self, layout: Layout) -> None:
        """Lay out buckets before the first step, as a restore needs. Raises ResidualMismatch after it."""
        if self.layout is not None and self.layout.digest != layout.digest:
            raise ResidualMismatch("the gradients seen so far have another layout")
        if self.layout is None:
            self._build(layout)
        self._adopted = self._owing = True

    def lay_out(self, tensors: Sequence[Tensor]) -> Layout:
        """The layout that these tensors get under the settings."""
        settings = self.settings
        exempt = (".*",) if settings.up is None else settings.exempt
        return lay_out(tensors, exempt, settings.bucket_bytes, settings.exempt_below)

    def _average_whole(
        self, header: bytes, problem: GradientError | None, gradients: Sequence[Gradient]
    ) -> Averages | None:
        """A step with floats through the transport's own average; None if all ranks have to go the long way."""
        transport, agreed = self.transport, self._agreed
        if agreed is None or self.bits < HALF_BITS or not self.floats or not isinstance(transport, AveragesFloats):
            return None
        half = self.bits == HALF_BITS
        if problem or agreed[0] != self._digest:
            transport.mean(alarm(agreed[1]), half)
            return None
        write_mark(self._vector, header)
        if self._owing:
            for part in self.parts:
                part.add_owed()
        average = transport.mean(self._vector, half)
        if not marks_agree(average, header, transport.size):
            self._copy_in(gradients)
            return None
        finite = is_finite(average)
        if half and not finite:
            average = transport.mean(self._vector, False)
            finite = is_finite(average)
            if finite:
                log.warning("step %d: a gradient is too large for float16: float32 from now on", self.step)
                self.travel(WHOLE_BITS)
        if finite and self._owing:
            for part in self.parts:
                part.clear_residuals()
            self._owing = False
        self._note(finite)
        self.step += 1
        ring = 2 * (transport.size - 1) * len(average) * (self.bits // 8) // transport.size
        return Averages(self._results(average), finite, ring)

    def _agree_on_codes(self) -> None:
        """Give all buckets the codes of the way that gradients travel now."""
        asked = self.settings.up
        if asked is None or self.bits >= HALF_BITS or self.settings.sparse:
            return
        up = Scheme(self.bits, asked.rounding, asked.norm)
        for part in self.parts:
            part.travel_as(up, self.settings.down or up)

    def _round(self, parts: Sequence[Part], header: bytes, agreement: Agreement) -> int:
        """One round of one or more parts. Returns the bytes for other ranks."""
        transport = self.transport
        size, rank = transport.size, transport.rank
        lengths = [len(header) + sum(part.up_bytes(owner) for part in parts) for owner in range(size)]
        message = self._buffer(sum(lengths))
        start = 0
        for owner in range(size):
            if owner > 0 and all(part.direct for part in parts):
                message[start : start + lengths[0]] = message[: lengths[0]]
                start += lengths[0]
                continue
            message[start : start + len(header)] = np.frombuffer(header, np.uint8)
            start += len(header)
            for part in parts:
                end = start + part.up_bytes(owner)
                part.write_up(owner, message[start:end])
                start = end
        received = transport.alltoall(message, lengths)
        sent = sum(lengths) - lengths[rank]
        if header and not agrees(header, received):
            raise explain(transport, agreement)
        start = len(header)
        for part in parts:
            last = part is parts[-1]
            end = start + (0 if last else part.up_bytes(rank))
            part.read_up([piece[start:] if last else piece[start:end] for piece in received])
            start = end
        if all(part.direct for part in parts):
            return sent
        length = sum(part.down_bytes(rank) for part in parts)
        downs = None
        if all(part.fixed for part in parts):
            downs = [sum(part.down_bytes(owner) for part in parts) for owner in range(size)]
        message = self._buffer(length)
        start = 0
        for part in parts:
            end = start + part.down_bytes(rank)
            part.write_down(message[start:end])
            start = end
        received = transport.allgather(message, downs)
        for owner, piece in enumerate(received):
            start = 0
            for part in parts:
                last = part is parts[-1]
                end = start + (0 if last else part.down_bytes(owner))
                part.read_down(owner, piece[start:] if last else piece[start:end])
                start = end
        return sent + length * (size - 1)

    def _note(self, finite: bool) -> None:
        """One sentence when steps begin to be skipped, and one when that ends."""
        if not finite and self._skipped == 0:
            log.warning("step %d: a gradient is not finite on some rank: skipped, residuals unchanged", self.step)
        elif finite and self._skipped > 0:
            log.warning("step %d: gradients are finite again after %d skipped steps", self.step, self._skipped)
        self._skipped = 0 if finite else self._skipped + 1

    def _buffer(self, length: int) -> Bytes:
        if len(self._message) < length:
            self._message = aligned(length, np.uint8)
        return self._message[:length]

    def _prepare(self, gradients: Sequence[Gradient]) -> GradientError | None:
        """Lay out what came, if it is new, and copy it into the buckets. Returns what is wrong with it."""
        names = [name for name, _ in gradients]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            return BadGradient(f"two gradients have the name {twice!r}")
        for name, array in gradients:
            if array.dtype.kind != "f":
                return BadGradient(f"gradient {name!r} is {array.dtype}, not floating point")
        tensors = tuple(Tensor(name, tuple(array.shape), str(array.dtype)) for name, array in gradients)
        if self.layout is None or self.layout.tensors != tensors:
            if self.layout is not None and self._adopted:
                here, there = self._tensor_list(gradients), [[t.name, t.shape, t.dtype] for t, _ in self.layout]
                reason = first_difference(here, there)
                return ResidualMismatch(f"the restored residuals are of another model: {reason}")
            self._build(self.lay_out(tensors))
        assert self.layout is not None
        self._adopted = False
        self._copy_in(gradients)
        return None

    def _copy_in(self, gradients: Sequence[Gradient]) -> None:
        assert self.layout is not None
        for (_, array), (tensor, place) in zip(gradients, self.layout, strict=True):
            target = self._exempt if place.bucket == EXEMPT else self.parts[place.bucket].gradient
            with np.errstate(over="ignore"):
                target[place.offset : place.offset + tensor.size] = array.reshape(-1)

    def _build(self, layout: Layout) -> None:
        old_layout, old_parts = self.layout, self.parts
        up, settings, size = self.settings.up, self.settings, self.transport.size
        self.parts = []
        self._starts = [MARK_ELEMENTS + layout.exempt_elements]
        for elements in layout.bucket_elements:
            self._starts.append(self._starts[-1] + elements)
        self._vector = aligned(self._starts[-1], np.float32)
        for index, elements in enumerate(layout.bucket_elements):
            assert up is not None
            bounds = [BLOCK * block for block in chunk_bounds(elements // BLOCK, size)]
            arguments = (
                index,
                bounds,
                self.transport.rank,
                self._codec,
                up,
                settings.down or up,
                settings.feedback,
                settings.server_feedback,
                self._vector[self._starts[index] : self._starts[index + 1]],
            )
            sparse = settings.sparse
            self.parts.append(SparsePart(sparse.elements, *arguments) if sparse else CodedPart(*arguments))
        self._agree_on_codes()
        self._exempt = self._vector[MARK_ELEMENTS : self._starts[0]]
        self._exempt_average = np.zeros(layout.exempt_elements, np.float32)
        self.layout = layout
        self._digest = layout.digest
        if old_layout is not None:
            self._carry_over(old_layout, old_parts)

    def _carry_over(self, old_layout: Layout, old_parts: Sequence[CodedPart]) -> None:
        """Keep the worker residuals of tensors that stayed; what the owners owed is lost, and logged."""
        assert self.layout is not None
        new = {(tensor.name, tensor.shape): place for tensor, place in self.layout}
        for tensor, place in old_layout:
            target = new.get((tensor.name, tensor.shape))
            if place.bucket == EXEMPT or target is None or target.bucket == EXEMPT:
                continue
            owed = old_parts[place.bucket].residuals[UP][place.offset : place.offset + tensor.size]
            self.parts[target.bucket].residuals[UP][target.offset : target.offset + tensor.size] = owed
        lost = float(np.sqrt(sum(float(np.dot(p.residuals[1], p.residuals[1])) for p in old_parts)))
        log.info("the gradients have a new layout; owner residuals of norm %.3g were dropped", lost)

    def _results(self, whole: Floats | None = None) -> list[Floats]:
        """The averages as they lie in the buckets, or in a vector that travelled whole."""
        assert self.layout is not None
        results = []
        for tensor, place in self.layout:
            if whole is not None:
                source = whole[MARK_ELEMENTS if place.bucket == EXEMPT else self._starts[place.bucket] :]
            else:
                source = self._exempt_average if place.bucket == EXEMPT else self.parts[place.bucket].average
            results.append(source[place.offset : place.offset + tensor.size].reshape(tensor.shape))
        return results

    @staticmethod
    def _tensor_list(gradients: Sequence[Gradient]) -> list[list[object]]:
        return [[name, list(array.shape), str(array.dtype)] for name, array in gradients]
