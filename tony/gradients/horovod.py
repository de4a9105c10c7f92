"""The exchange's transport over Horovod, and the broadcast of initial values."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tony.gradients.quantizer import Bytes

SIZE_VARIABLES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def world_size() -> int:
    """Number of ranks of this job: as Horovod says if it was started, else by the environment; 1 outside of a job.

    Does not import Horovod.
    """
    started: Any = sys.modules.get("horovod.tensorflow")
    if started is not None and started.is_initialized():
        return int(started.size())
    return int(next((os.environ[name] for name in SIZE_VARIABLES if name in os.environ), "1"))


class HorovodTransport:
    """See Transport. Starts Horovod if the script has not; that blocks until all ranks have come.

    A lost rank shows as tensorflow.errors.UnknownError in every call.
    """

    def __init__(self) -> None:
        import horovod.tensorflow as hvd
        import tensorflow as tf

        if not hvd.is_initialized():
            hvd.init()
        self._hvd: Any = hvd
        self._tf: Any = tf
        self._rank = int(hvd.rank())
        self._size = int(hvd.size())

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def size(self) -> int:
        return self._size

    def alltoall(self, message: Bytes, lengths: Sequence[int]) -> list[Bytes]:
        """See Transport.alltoall."""
        with self._tf.device("/CPU:0"):
            splits = self._tf.constant(list(lengths), self._tf.int32)
            received, counts = self._hvd.alltoall(self._tf.constant(message), splits, name="tony.alltoall")
        return _cut(received.numpy(), counts.numpy())

    def allgather(self, message: Bytes, lengths: Sequence[int] | None = None) -> list[Bytes]:
        """See Transport.allgather. Horovod does not tell the lengths, so without them it takes two calls."""
        with self._tf.device("/CPU:0"):
            if lengths is None:
                length = self._tf.constant([len(message)], self._tf.int32)
                lengths = self._hvd.allgather(length, name="tony.lengths").numpy().tolist()
            received = self._hvd.allgather(self._tf.constant(message), name="tony.allgather")
        return _cut(received.numpy(), lengths)

    def broadcast(self, values: Sequence[Any]) -> list[Any]:
        """Tensors of equal shapes on all ranks: everywhere those of rank 0, in order."""
        return [self._hvd.broadcast(value, 0, name=f"tony.broadcast.{index}") for index, value in enumerate(values)]


def _cut(received: Bytes, counts: Any) -> list[Bytes]:
    ends = np.cumsum(counts)
    return [received[end - count : end] for end, count in zip(ends, counts, strict=True)]
