"""The exchange's transport over Horovod, and the broadcast of initial values."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tony.gradients.quantizer import ALIGNMENT, Bytes, Floats

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

    A lost rank shows as an exception in every call: tensorflow.errors.UnknownError, or HorovodInternalError, so that
    ``hvd.elastic.run`` goes on from the last commit. Make another one then: rank and size are those of the beginning.
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
            try:
                received, counts = self._hvd.alltoall(self._tensor(message), splits, name="tony.alltoall")
            except self._tf.errors.UnknownError as error:
                # `hvd.elastic.run` knows a lost rank by this exception, or by the name of an operation in the text of
                # one that a graph has passed on; that of alltoall is not among those, and it would return as if done.
                from horovod.common.exceptions import HorovodInternalError

                raise HorovodInternalError(f"as in HorovodAllreduce, a rank is lost: {error.message}") from error
        return _cut(_array(received), counts.numpy())

    def allgather(self, message: Bytes, lengths: Sequence[int] | None = None) -> list[Bytes]:
        """See Transport.allgather. Horovod does not tell the lengths, so without them it takes two calls."""
        with self._tf.device("/CPU:0"):
            if lengths is None:
                length = self._tf.constant([len(message)], self._tf.int32)
                lengths = self._hvd.allgather(length, name="tony.lengths").numpy().tolist()
            received = self._hvd.allgather(self._tensor(message), name="tony.allgather")
        return _cut(_array(received), lengths)

    def mean(self, values: Floats, half: bool) -> Floats:
        """See AveragesFloats.mean."""
        with self._tf.device("/CPU:0"):
            sent = self._tensor(values)
            if half:
                sent = self._tf.cast(sent, self._tf.float16)
            received = self._hvd.allreduce(sent, op=self._hvd.Average, name=f"tony.mean.{16 if half else 32}")
            average: Floats = _array(self._tf.cast(received, self._tf.float32))
        return average

    def broadcast(self, values: Sequence[Any]) -> list[Any]:
        """Tensors of equal shapes on all ranks: everywhere those of rank 0, in order."""
        return [self._hvd.broadcast(value, 0, name=f"tony.broadcast.{index}") for index, value in enumerate(values)]

    def _tensor(self, array: Any) -> Any:
        """A tensor on the array's own memory, where TensorFlow can use that; it is not kept beyond the call."""
        if array.flags.writeable and array.ctypes.data % ALIGNMENT == 0 and len(array) > 0:
            return self._tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        return self._tf.constant(array)


def _array(tensor: Any) -> Any:
    """An array on the tensor's own memory, which lives as long as the array."""
    return np.asarray(memoryview(tensor))


def _cut(received: Bytes, counts: Any) -> list[Bytes]:
    ends = np.cumsum(counts)
    return [received[end - count : end] for end, count in zip(ends, counts, strict=True)]
