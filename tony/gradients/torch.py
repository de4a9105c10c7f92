"""The exchange's transport over torch.distributed (its gloo back-end, on CPU)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tony.gradients.errors import BadSetting
from tony.gradients.quantizer import Bytes, Floats


class TorchTransport:
    """See Transport. The process group must exist; raises BadSetting if not. A lost rank shows as RuntimeError."""

    def __init__(self, group: Any = None) -> None:
        import torch
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise BadSetting("torch.distributed is not started", "call torch.distributed.init_process_group first")
        self._torch: Any = torch
        self._dist: Any = dist
        self._group = group
        self._rank = int(dist.get_rank(group))
        self._size = int(dist.get_world_size(group))

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def size(self) -> int:
        return self._size

    def alltoall(self, message: Bytes, lengths: Sequence[int]) -> list[Bytes]:
        """See Transport.alltoall. Two calls: the lengths, then the bytes."""
        torch, dist = self._torch, self._dist
        counts = torch.empty(self._size, dtype=torch.int64)
        dist.all_to_all_single(counts, torch.tensor(list(lengths), dtype=torch.int64), group=self._group)
        sizes = [int(count) for count in counts]
        received = torch.empty(sum(sizes), dtype=torch.uint8)
        dist.all_to_all_single(received, self._tensor(message), sizes, list(lengths), group=self._group)
        return _cut(received.numpy(), sizes)

    def allgather(self, message: Bytes, lengths: Sequence[int] | None = None) -> list[Bytes]:
        """See Transport.allgather. Shorter messages are padded to the longest."""
        torch, dist = self._torch, self._dist
        if lengths is None:
            counts = [torch.empty(1, dtype=torch.int64) for _ in range(self._size)]
            dist.all_gather(counts, torch.tensor([len(message)], dtype=torch.int64), group=self._group)
            lengths = [int(count) for count in counts]
        sizes = list(lengths)
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(message)] = self._tensor(message)
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded, group=self._group)
        return [piece.numpy()[:size] for piece, size in zip(received, sizes, strict=True)]

    def mean(self, values: Floats, half: bool) -> Floats:
        """See AveragesFloats.mean."""
        torch, dist = self._torch, self._dist
        sent = torch.from_numpy(values.copy())
        if half:
            sent = sent.half()
        dist.all_reduce(sent, group=self._group)
        average: Floats = sent.float().mul_(1 / self._size).numpy()
        return average

    def _tensor(self, message: Bytes) -> Any:
        """The same memory as a tensor; torch wants it writable."""
        return self._torch.from_numpy(message if message.flags.writeable else message.copy())


def _cut(received: Bytes, sizes: Sequence[int]) -> list[Bytes]:
    ends = np.cumsum(sizes)
    return [received[end - size : end] for end, size in zip(ends, sizes, strict=True)]
