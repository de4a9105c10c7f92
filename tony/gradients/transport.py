"""What an exchange needs from the outside: two collective calls, in the same order on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tony.gradients.quantizer import Bytes


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
