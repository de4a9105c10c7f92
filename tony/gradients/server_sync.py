"""All workers in step: a step is the mean of one push of every worker, added in the workers' order.

Pushes meet in a queue on each server. The closure of worker 0 takes them out, has them applied, and then lets
everybody go on; no worker can push twice in a step. All workers have the same weights, so there is one view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tony.gradients.quantizer import BLOCK, Floats
from tony.gradients.server_async import Answer, Known, take
from tony.gradients.server_shard import Pushed, Shard


class OneView(Known):
    """One server with one view of all workers, and the codes that led to it."""

    def __init__(self, shard: Shard, workers: int) -> None:
        import tensorflow as tf

        super().__init__(shard, workers, 1)
        with tf.device(shard.device):
            self.codes = tf.Variable(tf.zeros([shard.down_bytes], tf.uint8), trainable=False, name="codes")
            self.whole = tf.Variable(True, trainable=False, name="whole")

    def take_back(self, owed: Sequence[Floats], views: Sequence[Floats] | None, started: Sequence[bool]) -> None:
        """See Known.take_back."""
        super().take_back(owed, views, started)
        if any(started):
            self.version.assign(1)

    def answer(self, worker: Any, version: Any) -> Answer:
        """To a pull of a worker that shows this version. Runs on the server, before any push of the step."""
        import tensorflow as tf

        shard = self._shard
        known, restored = tf.gather(self.known, worker), tf.gather(self.restored, worker)
        tf.debugging.Assert(self.version > 0, ["steps are to be scheduled by ParameterServers.schedule"])
        tf.debugging.Assert(
            tf.equal(known, version),
            ["a worker was started anew in the middle of synchronous training: go on from a checkpoint", worker],
        )
        weights, exempt = shard.flatten(shard.variables)

        current = self.version.read_value()
        nothing = tf.zeros([0, BLOCK])
        base, codes = tf.cond(
            tf.logical_or(tf.equal(known, 0), self.whole),
            lambda: (self.views[0].read_value(), tf.zeros([0], tf.uint8)),
            lambda: (nothing, self.codes.read_value()),
        )
        owed = self.owed_by(worker, restored)
        self.known.scatter_update(tf.IndexedSlices(current, worker))
        self.restored.scatter_update(tf.IndexedSlices(False, worker))
        return Answer(base, codes, exempt, owed, current)

    def begin(self) -> None:
        """On the coordinator, before the first step: the view is the weights, unless it was restored."""
        import tensorflow as tf

        if int(self.version.numpy()) == 0:
            with tf.device(self._shard.device):
                self.views[0].assign(self._shard.flatten(self._shard.variables)[0])
                self.version.assign(1)

    def advance(self) -> list[Any]:
        """After an update: the codes that every worker pulls next, or none when they must get it whole.

        Returns what must be done before any worker may pull: a value that is ready says nothing about another.
        """
        import tensorflow as tf

        weights, exempt = self._shard.flatten(self._shard.variables)
        codes, after, finite = self._shard.difference(weights, self.views[0].read_value())
        return [
            exempt,
            self.whole.assign(tf.logical_not(finite), read_value=False),
            self.views[0].assign(tf.cond(finite, lambda: after, lambda: weights), read_value=False),
            self.codes.assign(codes, read_value=False),
            self.version.assign_add(1, read_value=False),
        ]


class InStep:
    """Takes one push of every worker a step."""

    def __init__(self, shards: Sequence[Shard], workers: int) -> None:
        import tensorflow as tf

        self.shards = shards
        self.workers = workers
        self.states = [OneView(shard, workers) for shard in shards]
        self._pushes = []
        for shard in shards:
            with tf.device(shard.device):
                self._pushes.append(
                    tf.queue.FIFOQueue(
                        workers,
                        [tf.int32, tf.bool, tf.uint8, tf.float32],
                        [[], [], [shard.coded_bytes], [shard.layout.exempt_elements]],
                    )
                )
        with tf.device(shards[0].device):
            self._verdicts = [tf.queue.FIFOQueue(1, [tf.bool], [[]]) for _ in range(workers)]

    def begin(self) -> None:
        """On the coordinator, before the first step."""
        for state in self.states:
            state.begin()

    def deliver(self, worker: Any, pushed: Sequence[Pushed], finite: Any, number: Any) -> Any:
        """Hand in one worker's gradient and wait for all; a boolean: whether their mean was applied."""
        import tensorflow as tf

        for shard, queue, one in zip(self.shards, self._pushes, pushed, strict=True):
            with tf.device(shard.device):
                queue.enqueue((worker, finite, one.message, one.exempt))
        tf.cond(tf.equal(worker, 0), self._lead, lambda: False)
        with tf.device(self.shards[0].device):
            return take(self._verdicts, worker)

    def _lead(self) -> bool:
        """Worker 0 does this for all; everything in it runs on the servers."""
        import tensorflow as tf

        gathered, fine = [], tf.constant(True)
        for shard, queue in zip(self.shards, self._pushes, strict=True):
            with tf.device(shard.device):
                ranks, finite, messages, exempts = queue.dequeue_many(self.workers)
                order = tf.argsort(ranks)
                gathered.append((tf.gather(messages, order), tf.gather(exempts, order)))
                fine = tf.logical_and(fine, tf.reduce_all(finite))
        done = []
        for shard, state, (messages, exempts) in zip(self.shards, self.states, gathered, strict=True):
            with tf.device(shard.device):
                tf.cond(fine, lambda s=shard, m=messages, e=exempts: self._apply(s, m, e), lambda: False)
                done += state.advance()
        with tf.device(self.shards[0].device), tf.control_dependencies(done):
            for queue in self._verdicts:
                queue.enqueue((fine,))
        return True

    def _apply(self, shard: Shard, messages: Any, exempts: Any) -> bool:
        import tensorflow as tf

        with tf.device(shard.device):
            shard.apply(shard.decode(tf.unstack(messages, self.workers), tf.unstack(exempts, self.workers)))
        return True
