"""The exchange's transport over TensorFlow's own collective operations, without Horovod.

    transport = CollectiveTransport()  # first thing in the script: TF_CONFIG says who is there
    gradients = tony.gradients.tensorflow.Gradients(bits=4, transport=transport)

The model is made outside of any strategy's scope: the exchange averages, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tony.gradients.errors import BadSetting, GradientError
from tony.gradients.quantizer import Bytes

GROUP = 0x746F6E79
"""TensorFlow's number for the group of ranks; no strategy of its own comes near it."""
FIRST_INSTANCE = 1
WORD = 4
"""TensorFlow's collectives know no bytes: messages travel as 32-bit words."""


class CollectiveTransport:
    """See Transport. Connects the processes of TF_CONFIG (chief and workers), and blocks until all have come.

    Must be made before TensorFlow has run anything; raises GradientError after that. A lost rank shows as
    tensorflow.errors.OpError.
    """

    def __init__(self, resolver: Any = None, timeout_s: float = 600.0) -> None:
        import tensorflow as tf

        resolver = resolver or tf.distribute.cluster_resolver.TFConfigClusterResolver()
        spec = resolver.cluster_spec()
        ranks = [(job, task) for job in ("chief", "worker") if job in spec.jobs for task in spec.task_indices(job)]
        here = (resolver.task_type, resolver.task_id)
        if here not in ranks:
            raise BadSetting(f"TF_CONFIG makes this process {here[0]}:{here[1]}", "only chief and worker are ranks")
        self._tf: Any = tf
        self._rank = ranks.index(here)
        self._size = len(ranks)
        self._timeout_s = timeout_s
        self._operations: dict[tuple[object, ...], Callable[[Any], Any]] = {}
        # makes the connections and starts the server of this process; its scope is not used
        try:
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        except RuntimeError as error:
            if "program startup" not in str(error):
                raise
            raise GradientError("TensorFlow has run something already", "make CollectiveTransport before") from error
        self._device = f"/job:{here[0]}/replica:0/task:{here[1]}/device:CPU:0"

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def size(self) -> int:
        return self._size

    def alltoall(self, message: Bytes, lengths: Sequence[int]) -> list[Bytes]:
        """See Transport.alltoall. Two calls: the lengths, then the bytes, each piece padded to the longest of all."""
        table = self._lengths(lengths)
        width = -(-int(table.max(initial=0)) // WORD)
        if width == 0:
            return [message[:0]] * self._size
        rows = np.zeros((self._size, width * WORD), np.uint8)
        ends = np.cumsum(lengths)
        for row, end, length in zip(rows, ends, lengths, strict=True):
            row[:length] = message[end - length : end]
        received = self._run("alltoall", rows.view(np.int32)).view(np.uint8)
        return [row[:length] for row, length in zip(received, table[:, self._rank], strict=True)]

    def allgather(self, message: Bytes, lengths: Sequence[int] | None = None) -> list[Bytes]:
        """See Transport.allgather. Shorter messages are padded to the longest."""
        sizes = [int(row[0]) for row in self._lengths([len(message)])] if lengths is None else list(lengths)
        width = -(-max(sizes) // WORD)
        if width == 0:
            return [message[:0]] * self._size
        padded = np.zeros(width * WORD, np.uint8)
        padded[: len(message)] = message
        received = self._run("gather", padded.view(np.int32)).view(np.uint8).reshape(self._size, -1)
        return [row[:size] for row, size in zip(received, sizes, strict=True)]

    def broadcast(self, values: Sequence[Any]) -> list[Any]:
        """Tensors of equal shapes on all ranks: everywhere those of rank 0, in order."""
        tf = self._tf
        made = []
        for value in values:
            data = np.ascontiguousarray(value.numpy())
            mine = data.reshape(-1).view(np.uint8) if self._rank == 0 else np.zeros(0, np.uint8)
            first = self.allgather(mine, [data.nbytes, *(0 for _ in range(self._size - 1))])[0]
            made.append(tf.constant(first.copy().view(data.dtype).reshape(data.shape)))
        return made

    def _lengths(self, mine: Sequence[int]) -> Any:
        """What all ranks gave, of shape (ranks, numbers)."""
        return self._run("gather", np.array(mine, np.int32)).reshape(self._size, -1)

    def _run(self, kind: str, words: Any) -> Any:
        """One collective operation over 32-bit words; all ranks give arrays of the same shape."""
        key = (kind, words.shape)
        if key not in self._operations:
            # every kind and shape has a number of its own, given out in the order of first use, the same on all ranks
            self._operations[key] = self._operation(kind, FIRST_INSTANCE + len(self._operations))
        with self._tf.device(self._device):
            return self._operations[key](self._tf.constant(words)).numpy()

    def _operation(self, kind: str, instance: int) -> Callable[[Any], Any]:
        tf = self._tf
        make = tf.raw_ops.CollectiveGatherV2 if kind == "gather" else tf.raw_ops.CollectiveAllToAllV2

        def run(words: Any) -> Any:
            return make(
                input=words,
                group_size=self._size,
                group_key=GROUP,
                instance_key=instance,
                ordering_token=[],
                communication_hint="RING",
                timeout_seconds=self._timeout_s,
            )

        made: Callable[[Any], Any] = tf.function(run)
        return made
