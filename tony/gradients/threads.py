"""Several ranks as threads of one process: for tests and for exact simulations of training with N workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tony.gradients.quantizer import Bytes, Floats

T = TypeVar("T")


class RankGone(ConnectionError):
    """Another rank ended, or did not come in time, so this collective call can never be completed."""


class _Table:
    """Where the ranks lay down what they send, one round after the other."""

    def __init__(self, size: int, timeout_s: float) -> None:
        self.size = size
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._rounds: dict[int, dict[int, Any]] = {}
        self._gone: set[int] = set()

    def meet(self, rank: int, number: int, sent: Any) -> list[Any]:
        """Lay down `sent` in round `number` and return what all ranks laid down, in rank order."""
        with self._changed:
            round_ = self._rounds.setdefault(number, {})
            round_[rank] = sent
            self._rounds.pop(number - 2, None)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(round_) == self.size or self._gone - round_.keys(), self._timeout_s)
            if len(round_) < self.size:
                raise RankGone(f"rank {rank} waits in vain for {sorted(set(range(self.size)) - round_.keys())}")
            return [round_[other] for other in range(self.size)]

    def leave(self, rank: int) -> None:
        """This rank makes no further call."""
        with self._changed:
            self._gone.add(rank)
            self._changed.notify_all()


class ThreadTransport:
    """A Transport between threads. Raises RankGone when another rank has ended."""

    def __init__(self, rank: int, table: _Table) -> None:
        self._rank = rank
        self._table = table
        self._round = 0

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def size(self) -> int:
        return self._table.size

    def alltoall(self, message: Bytes, lengths: Sequence[int]) -> list[Bytes]:
        """See Transport.alltoall."""
        ends = np.cumsum(lengths)
        parts = [message[end - length : end].copy() for end, length in zip(ends, lengths, strict=True)]
        return [sent[self._rank] for sent in self._meet(parts)]

    def allgather(self, message: Bytes, lengths: Sequence[int] | None = None) -> list[Bytes]:
        """See Transport.allgather."""
        return self._meet(message.copy())

    def mean(self, values: Floats, half: bool) -> Floats:
        """See AveragesFloats.mean."""
        with np.errstate(over="ignore", invalid="ignore"):
            sent = self._meet(values.astype(np.float16 if half else np.float32))
            total = sent[0].copy()
            for other in sent[1:]:
                total += other
            average: Floats = total.astype(np.float32) * np.float32(1 / self.size)
        return average

    def _meet(self, sent: Any) -> list[Any]:
        self._round += 1
        return self._table.meet(self._rank, self._round, sent)


def run_ranks(size: int, work: Callable[[ThreadTransport], T], timeout_s: float = 60.0) -> list[T | Exception]:
    """Run `work` once per rank, each in a thread; returns what every rank returned or raised, in rank order.

    Blocks until all are done. A rank that ends early releases the others with RankGone.
    """
    table = _Table(size, timeout_s)
    results: list[T | Exception] = [RuntimeError("never ran")] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadTransport(rank, table))
        except Exception as problem:  # noqa: BLE001 - handed to the caller
            results[rank] = problem
        finally:
            table.leave(rank)

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank-{rank}") for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
