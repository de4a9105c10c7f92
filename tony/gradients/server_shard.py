"""What lies on one parameter server, and the operations that its processes run.

A server keeps a view: the weights as a worker believes them to be. What a worker pulls are the codes of the
difference to the weights, so that what rounding took away is part of the next difference. A worker pushes the codes
of its gradient plus its residual. Tensors that are exempt travel as float32 both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tony.gradients.buckets import EXEMPT, Tensor, lay_out
from tony.gradients.codec import graph
from tony.gradients.exchange import Settings
from tony.gradients.quantizer import BLOCK

ONE_BUCKET = 1 << 60


@dataclass(frozen=True)
class Pushed:
    """A gradient on its way: `message` (uint8) and `exempt` (float32). `kept`: the residual if it is applied."""

    message: Any
    exempt: Any
    kept: Any
    residual: Any


class Shard:
    """The variables of one device. `indices`: their places among all variables; `apply(gradients)` updates them."""

    def __init__(
        self, device: str, variables: Sequence[Any], names: Sequence[str], indices: Sequence[int], settings: Settings
    ) -> None:
        self.device = device
        self.variables = list(variables)
        self.indices = list(indices)
        tensors = [Tensor(name, tuple(v.shape), v.dtype.name) for name, v in zip(names, variables, strict=True)]
        exempt = (".*",) if settings.up is None else settings.exempt
        self.layout = lay_out(tensors, exempt, ONE_BUCKET, settings.exempt_below)
        self.elements = sum(self.layout.bucket_elements)
        self.blocks = self.elements // BLOCK
        self.apply: Callable[[Sequence[Any]], None] = lambda gradients: None
        self._settings = settings

    @property
    def coded_bytes(self) -> int:
        """Bytes of the codes of a push."""
        return self._settings.up.message_bytes(self.blocks) if self._settings.up else 0

    @property
    def down_bytes(self) -> int:
        """Bytes of the codes of a pull."""
        down = self._settings.down or self._settings.up
        return down.message_bytes(self.blocks) if down else 0

    def flatten(self, tensors: Sequence[Any]) -> tuple[Any, Any]:
        """Tensors in the shard's order as whole blocks of shape (blocks, 512), and the exempt ones as one vector."""
        import tensorflow as tf

        coded, exempt = [], []
        for index in reversed(range(len(tensors))):
            flat = tf.reshape(tf.cast(tensors[index], tf.float32), [-1])
            if self.layout.places[index].bucket == EXEMPT:
                exempt.append(flat)
            else:
                padding = -self.layout.tensors[index].size % BLOCK
                coded.append(tf.pad(flat, [[0, padding]]) if padding else flat)
        empty = tf.zeros([0], tf.float32)
        blocks = tf.reshape(tf.concat([empty, *coded], 0), (self.blocks, BLOCK))
        return blocks, tf.concat([empty, *exempt], 0)

    def tensors(self, blocks: Any, exempt: Any) -> list[Any]:
        """The opposite of flatten."""
        import tensorflow as tf

        flat = tf.reshape(blocks, [-1])
        made = []
        for tensor, place in self.layout:
            source = exempt if place.bucket == EXEMPT else flat
            piece = source[place.offset : place.offset + tensor.size]
            made.append(tf.cast(tf.reshape(piece, tensor.shape), tensor.dtype))
        return made

    def encode(self, gradients: Sequence[Any], residual: Any) -> tuple[Pushed, Any]:
        """On the worker: what to push, and whether the gradient is finite. `residual` of shape (blocks, 512)."""
        import tensorflow as tf

        blocks, exempt = self.flatten(gradients)
        finite = tf.reduce_all(tf.math.is_finite(exempt))
        up = self._settings.up
        if up is None or not self.blocks:
            return Pushed(tf.zeros([0], tf.uint8), exempt, residual, residual), finite
        feedback = self._settings.feedback
        alpha = feedback.beta if feedback.alpha is None else feedback.alpha
        made = graph.encode(blocks, residual, up, alpha, feedback.beta)
        return Pushed(made.message, exempt, made.kept, residual), tf.logical_and(finite, made.finite)

    def decode(self, message: Any, exempt: Any) -> list[Any]:
        """On the server: what a worker pushed, as tensors."""
        import tensorflow as tf

        up = self._settings.up
        blocks = tf.zeros((self.blocks, BLOCK), tf.float32)
        if up is not None and self.blocks:
            blocks = graph.decode(message, self.blocks, up.bits)
        return self.tensors(blocks, exempt)

    def difference(self, weights: Any, view: Any) -> tuple[Any, Any, Any]:
        """On the server: codes that lead from the view to the weights, the view after them, and if it is finite."""
        import tensorflow as tf

        down = self._settings.down or self._settings.up
        if down is None or not self.blocks:
            return tf.zeros([0], tf.uint8), view, tf.constant(True)
        made = graph.encode(weights - view, tf.zeros_like(view), down, 1.0, 1.0)
        return made.message, self.advance(view, made.message), made.finite

    def advance(self, view: Any, message: Any) -> Any:
        """The view after a difference: the same bits on the server and on the worker."""
        down = self._settings.down or self._settings.up
        if down is None or not self.blocks:
            return view
        return view + graph.decode(message, self.blocks, down.bits)
