"""A Keras optimizer that averages gradients over all ranks as codes, and the two callbacks that go with it.

    optimizer = tony.gradients.keras.DistributedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9))
    model.compile(optimizer=optimizer, ...)
    model.fit(..., callbacks=[BroadcastInitialState(), SaveResiduals("/path/of/checkpoints")])

Works with Keras 3 (TensorFlow backend) and with tf-keras. Momentum, weight decay and clipping act on the average,
which has the same bits on every rank. A step in which any rank has a NaN is skipped by all.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from tony.gradients import checkpoint
from tony.gradients.errors import BadSetting, ResidualMismatch
from tony.gradients.tensorflow import Gradients

log = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 3


def DistributedOptimizer(optimizer: Any, **arguments: Any) -> Any:
    """An optimizer like `optimizer`, of a subclass of its class, that averages before it applies.

    Arguments as of `tony.gradients.request.settings_for`. Raises BadSetting for an optimizer that was used
    already, scales the loss, accumulates gradients, or is of the legacy module.
    """
    kind = type(optimizer)
    if getattr(optimizer, "built", False):
        raise BadSetting("the optimizer was used already", "wrap it before the model is compiled")
    if ".legacy." in kind.__module__:
        raise BadSetting(
            "an optimizer of the legacy module cannot be wrapped", "use the one of the same name outside it"
        )
    if kind.__name__ == "LossScaleOptimizer":
        raise BadSetting("an optimizer that scales the loss cannot be wrapped", "use bfloat16 instead of float16")
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise BadSetting(
            "gradient_accumulation_steps would quantize every part",
            "accumulate in a custom loop and call tony.gradients.tensorflow.Gradients.average once a step",
        )
    mixin = _Keras3 if kind.__module__.startswith("keras.") else _TfKeras
    made: Any = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__}).from_config(  # type: ignore[attr-defined]
        optimizer.get_config()
    )
    object.__setattr__(made, "tony_gradients", Gradients(**arguments))
    return made


class _Keras3:
    tony_gradients: Gradients

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        import tensorflow as tf

        inner: Any = super()
        if self.tony_gradients.exchange is None:
            return inner.apply(grads, trainable_variables)
        me: Any = self
        if trainable_variables is None:
            trainable_variables = me._trainable_variables
        elif not me.built:
            with tf.init_scope():
                me.build(trainable_variables)
        averages, finite = self.tony_gradients.average(grads, trainable_variables)

        def step() -> Any:
            inner.apply(averages, trainable_variables)
            return tf.constant(True)

        return tf.cond(finite, step, lambda: tf.constant(False))


class _TfKeras:
    tony_gradients: Gradients

    def apply_gradients(self, grads_and_vars: Any, *arguments: Any, **keywords: Any) -> Any:
        import tensorflow as tf

        inner: Any = super()
        if self.tony_gradients.exchange is None:
            return inner.apply_gradients(grads_and_vars, *arguments, **keywords)
        me: Any = self
        pairs = [(gradient, variable) for gradient, variable in grads_and_vars if gradient is not None]
        variables = [variable for _, variable in pairs]
        with tf.init_scope():
            me.build(variables)
        averages, finite = self.tony_gradients.average([gradient for gradient, _ in pairs], variables)

        def step() -> Any:
            inner.apply_gradients(list(zip(averages, variables, strict=True)), *arguments, **keywords)
            return tf.constant(True)

        tf.cond(finite, step, lambda: tf.constant(False))
        return me.iterations


def _nothing(*_arguments: Any, **_keywords: Any) -> None:
    """A hook that a callback does not have."""


_nothing._is_default = True  # type: ignore[attr-defined]  # Keras 3 looks for it to see which hooks are used


class _Callback:
    """What Keras 3 and tf-keras call on a callback, without importing either of them."""

    model: Any = None
    params: Any = None
    _chief_worker_only = None
    _supports_tf_logs = True

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: Any) -> None:
        self.params = params

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)

    def _implements_train_batch_hooks(self) -> bool:
        return "on_train_batch_end" in dir(type(self))

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def _gradients(self) -> Gradients:
        gradients = getattr(self.model.optimizer, "tony_gradients", None)
        if not isinstance(gradients, Gradients):
            raise BadSetting("the model's optimizer was not made by tony.gradients.keras.DistributedOptimizer")
        return gradients


class BroadcastInitialState(_Callback):
    """Before training, give all ranks the weights and the optimizer's state of rank 0.

    Must come after a callback that restores a checkpoint. Also switches XLA off for the model, in which gradients
    cannot be exchanged. Integer variables stay as they are, so that every rank keeps its own dropout.
    """

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self._gradients().exchange is not None and getattr(model, "jit_compile", False):
            model.jit_compile = False
            log.info("the model is not compiled by XLA: gradients are exchanged inside its training step")

    def on_train_begin(self, logs: Any = None) -> None:
        transport = self._gradients().transport
        if transport is None:
            return
        if not self.model.built:
            raise BadSetting("the model has no weights yet", "give its first layer an input shape, or build it")
        optimizer = self.model.optimizer
        if not getattr(optimizer, "_built", getattr(optimizer, "built", False)):
            optimizer.build(self.model.trainable_variables)
        variables = [v for v in [*self.model.variables, *optimizer.variables] if _is_floating(v)]
        variables.append(optimizer.iterations)
        for variable, value in zip(
            variables, transport.broadcast([_tensor(variable) for variable in variables]), strict=True
        ):
            variable.assign(value)


class SaveResiduals(_Callback):
    """Keep the residuals with the checkpoints, so that a resumed run has the bits of an uninterrupted one.

    Every rank writes ``<folder>/step-<iterations>/residuals-<rank>-of-<size>.npz`` at the end of each epoch, or
    every `every_steps` steps, and keeps the last three. When training begins with an optimizer that has made
    steps before, the residuals of that very step are taken back: put this callback after the one that restores
    the weights. `folder` must be reachable by every rank, or be each rank's own. Raises ResidualMismatch.
    """

    def __init__(self, folder: str | Path, every_steps: int | None = None) -> None:
        if every_steps is not None and every_steps < 1:
            raise BadSetting(f"every_steps={every_steps} is not possible")
        self.folder = Path(folder)
        self.every_steps = every_steps

    def on_train_begin(self, logs: Any = None) -> None:
        exchange = self._gradients().exchange
        iterations = self._iterations()
        if exchange is None or iterations == 0 or exchange.step > 0:
            return
        folder = self._folder_of(iterations)
        here = (folder / checkpoint.file_name(exchange.transport.rank, exchange.transport.size)).exists()
        found = [
            json.loads(answer.tobytes())
            for answer in exchange.transport.allgather(np.frombuffer(json.dumps(here).encode(), np.uint8))
        ]
        if any(found):
            checkpoint.restore(exchange, folder)
        elif self.folder.exists() and any(self.folder.glob("step-*")):
            raise ResidualMismatch(f"{self.folder} has no residuals of step {iterations}, only of others")
        else:
            log.warning("training goes on at step %d without residuals: %s has none", iterations, self.folder)

    def on_train_batch_end(self, batch: Any = None, logs: Any = None) -> None:
        if self.every_steps and self._iterations() % self.every_steps == 0:
            self._save()

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        if not self.every_steps:
            self._save()

    def _save(self) -> None:
        exchange = self._gradients().exchange
        if exchange is None:
            return
        checkpoint.save(exchange, self._folder_of(self._iterations()))
        for old in sorted(self.folder.glob("step-*"))[:-KEPT_CHECKPOINTS]:
            (old / checkpoint.file_name(exchange.transport.rank, exchange.transport.size)).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another rank still has its file there, or was first
                old.rmdir()

    def _iterations(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _folder_of(self, iterations: int) -> Path:
        return self.folder / f"step-{iterations:010d}"


def _tensor(variable: Any) -> Any:
    """The value of a Keras 3 or TensorFlow variable."""
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value if not callable(getattr(variable, "value", None)) else variable)


def _is_floating(variable: Any) -> bool:
    dtype = variable.dtype
    return "float" in (dtype if isinstance(dtype, str) else dtype.name)
