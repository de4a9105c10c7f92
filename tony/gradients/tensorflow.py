"""Average TensorFlow gradients in a custom training loop, eagerly or inside a tf.function.

    gradients = tony.gradients.tensorflow.Gradients(bits=4)          # once: it holds the residuals
    with tf.GradientTape() as tape:
        loss = ...
    averages, finite = gradients.average(tape.gradient(loss, variables), variables)

The exchange itself runs in Python between two graph operations, so the function around it cannot be compiled
with XLA (``jit_compile=True``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tony.gradients.auto import exchange_for
from tony.gradients.errors import BadSetting
from tony.gradients.exchange import Settings
from tony.gradients.horovod import HorovodTransport, world_size
from tony.gradients.report import JobReport
from tony.gradients.request import settings_for


class Gradients:
    """One rank's side of the exchange. Arguments as of `settings_for`; outside of a job it changes nothing.

    `transport`: instead of Horovod, for example a `tony.gradients.collective.CollectiveTransport`.
    """

    def __init__(self, *, settings: Settings | None = None, transport: Any = None, **arguments: Any) -> None:
        if settings is not None and arguments:
            raise BadSetting(f"give either settings or {', '.join(sorted(arguments))}")
        chosen = settings or settings_for(**arguments)
        if transport is None and world_size() > 1:
            transport = HorovodTransport()
        self.transport = transport
        self.exchange = None if self.transport is None else exchange_for(self.transport, chosen)
        self._report = JobReport()
        self.flush_next = False
        """Set before a step to send all that is owed in it (for a checkpoint that needs no residuals)."""

    def average(self, gradients: Sequence[Any], variables: Sequence[Any]) -> tuple[list[Any], Any]:
        """The averages (None where the gradient is None) and a boolean tensor: false if any rank had a NaN.

        Sparse gradients become dense. When the second result is false, skip the step; the averages hold NaN.
        """
        import tensorflow as tf

        if self.exchange is None:
            return list(gradients), tf.constant(True)
        if tf.inside_function() and _compiled_by_xla(tf.compat.v1.get_default_graph()):
            raise BadSetting(
                "gradients cannot be exchanged inside an XLA-compiled function",
                "model.compile(..., jit_compile=False), or use the callback BroadcastInitialState, which sets it",
            )
        present = [index for index, gradient in enumerate(gradients) if gradient is not None]
        dense = [tf.convert_to_tensor(gradients[index]) for index in present]
        names = [_name(variables[index], index) for index in present]
        wide = [tensor if _is_numpy_float(tensor.dtype) else tf.cast(tensor, tf.float32) for tensor in dense]
        exchange = self.exchange

        def run(*arrays: Any) -> list[Any]:
            flush, self.flush_next = self.flush_next, False
            pairs = [(name, np.asarray(array)) for name, array in zip(names, arrays, strict=True)]
            result = exchange.average(pairs, flush)
            self._report.stepped(exchange)
            return [np.bool_(result.finite), *result.arrays]

        finite, *averages = tf.numpy_function(run, wide, [tf.bool] + [tf.float32] * len(wide))
        finite.set_shape(())
        results: list[Any] = [None] * len(gradients)
        for index, tensor, average in zip(present, dense, averages, strict=True):
            average.set_shape(tensor.shape)
            results[index] = tf.cast(average, tensor.dtype)
        return results, finite


def _name(variable: Any, index: int) -> str:
    """A name that no two variables of a model share, equal on all ranks."""
    return f"{index}:{getattr(variable, 'path', None) or variable.name}"


def _is_numpy_float(dtype: Any) -> bool:
    """Everything that numpy knows goes as it is, so that an integer is found and named; bfloat16 is cast."""
    return bool(dtype.is_integer or dtype.is_bool or dtype.name in ("float16", "float32", "float64"))


def _compiled_by_xla(graph: Any) -> bool:
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False
