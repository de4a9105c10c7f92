"""Every worker at its own pace: a push is applied when it comes, and the servers keep one view a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tony.gradients.quantizer import BLOCK, Floats
from tony.gradients.server_shard import Pushed, Shard

REMEMBERED = 4096
"""So many numbers of pushes are remembered, to tell a repeated one."""


@dataclass(frozen=True)
class Answer:
    """What a server sends to a pull: `base` (float32, whole weights) or nothing, then `codes` (uint8) or nothing.

    `owed`: a restored residual, or nothing. `version`: what the worker is to show with its next pull.
    """

    base: Any
    codes: Any
    exempt: Any
    owed: Any
    version: Any


class Views:
    """One server with a view of each worker: the weights as that one has them, and the version it is to show."""

    def __init__(self, shard: Shard, workers: int) -> None:
        import tensorflow as tf

        shape = (shard.blocks, BLOCK)
        self._shard = shard
        with tf.device(shard.device):
            self.views = [tf.Variable(tf.zeros(shape), trainable=False, name=f"view_{i}") for i in range(workers)]
            self.known = tf.Variable(tf.zeros(workers, tf.int64), trainable=False, name="known")
            self.restored = tf.Variable(tf.zeros(workers, tf.bool), trainable=False, name="restored")
            self.owed = [tf.queue.FIFOQueue(1, [tf.float32], [shape]) for _ in range(workers)]

    def take_back(self, owed: Sequence[Floats], views: Sequence[Floats] | None, started: Sequence[bool]) -> None:
        """Before the first step: what the workers owed, and their views; None: as if they had pulled just now.

        `started`: per worker, whether it had pulled before.
        """
        import tensorflow as tf

        with tf.device(self._shard.device):
            weights, _ = self._shard.flatten(self._shard.variables)
            for index, view in enumerate(self.views):
                view.assign(weights if views is None else views[index])
            self.restored.assign(list(started))
            for queue, residual, had in zip(self.owed, owed, started, strict=True):
                if had:
                    queue.enqueue(tf.constant(residual))

    def answer(self, worker: Any, version: Any) -> Answer:
        """To a pull of a worker that shows this version. Runs on the server; one pull a worker at a time.

        A worker that the server does not know, because it is new or was started anew, gets the weights whole.
        """
        import tensorflow as tf

        shard = self._shard
        known, restored = tf.gather(self.known, worker), tf.gather(self.restored, worker)
        weights, exempt = shard.flatten(shard.variables)
        view = tf.switch_case(worker, [view.read_value for view in self.views])
        follows = tf.logical_or(restored, tf.logical_and(known > 0, tf.equal(version, known)))
        codes, after, finite = tf.cond(
            follows,
            lambda: shard.difference(weights, view),
            lambda: (tf.zeros([0], tf.uint8), weights, tf.constant(False)),
        )
        nothing = tf.zeros([0, BLOCK])
        codes, base, after = tf.cond(
            finite,
            lambda: (codes, tf.cond(restored, lambda: view, lambda: nothing), after),
            lambda: (tf.zeros([0], tf.uint8), weights, weights),
        )
        nothing_owed = tf.zeros([0, BLOCK])
        owed = tf.cond(restored, lambda: _take(self.owed, worker), lambda: nothing_owed)
        tf.switch_case(worker, [lambda v=v: _done(v.assign(after)) for v in self.views])
        self.known.scatter_update(tf.IndexedSlices(known + 1, worker))
        self.restored.scatter_update(tf.IndexedSlices(False, worker))
        return Answer(base, codes, exempt, owed, known + 1)


class AtOwnPace:
    """Takes pushes as they come."""

    def __init__(self, shards: Sequence[Shard], workers: int) -> None:
        import tensorflow as tf

        self.shards = shards
        self.states = [Views(shard, workers) for shard in shards]
        with tf.device(shards[0].device):
            self._numbers = tf.Variable(tf.fill([REMEMBERED], tf.constant(-1, tf.int64)), trainable=False)

    def deliver(self, worker: Any, pushed: Sequence[Pushed], finite: Any, number: Any) -> Any:
        """Hand in one worker's gradient; a boolean: whether it was applied."""
        import tensorflow as tf

        with tf.device(self.shards[0].device):
            place = tf.math.floormod(number, REMEMBERED)
            new = tf.logical_or(number < 0, tf.not_equal(tf.gather(self._numbers, place), number))
            self._numbers.scatter_update(tf.IndexedSlices(number, place))
            applied = tf.logical_and(finite, new)
        for shard, one in zip(self.shards, pushed, strict=True):
            with tf.device(shard.device):
                tf.cond(applied, lambda s=shard, p=one: _applied(s, p), lambda: False)
        return applied


def _applied(shard: Shard, pushed: Pushed) -> bool:
    import tensorflow as tf

    with tf.device(shard.device):
        shard.apply(shard.decode(pushed.message, pushed.exempt))
    return True


def _take(queues: Sequence[Any], index: Any) -> Any:
    """The next element of one of several queues."""
    import tensorflow as tf

    return tf.switch_case(index, [lambda q=queue: q.dequeue() for queue in queues])


def _done(_operation: Any) -> bool:
    return True
