"""What an exchange needs from the outside: two collective calls, in one order on every rank, and maybe a third."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tony.gradients.quantizer import Bytes, Floats


class Transport(Protocol):
    """One rank's end. Every call blocks until all ranks have made it and raises if one of them is lost."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def alltoall(self, message: Bytes, lengths: Sequence[int]) -> list[Bytes]:
        """Send consecutive slices of `message`, `lengths[r]` bytes to rank r; returns what each rank sent here.

        The lengths may differ between ranks and may be zero. The result is valid until the next call.
        """
        ...

    def allgather(self, message: Bytes, lengths: Sequence[int] | None = None) -> list[Bytes]:
        """The messages of all ranks, in rank order; their lengths may differ.

        `lengths`: of the messages of all ranks, where every rank knows them; saves a call.
        """
        ...


@runtime_checkable
class AveragesFloats(Protocol):
    """A transport that averages floats by itself; without it floats travel through the two calls above."""

    def mean(self, values: Floats, half: bool) -> Floats:
        """The mean over all ranks of a vector of one length on all, the same bits on every rank; a new array.

        `half`: as float16 on the wire and in the sum, which may overflow.
        """
        ...
