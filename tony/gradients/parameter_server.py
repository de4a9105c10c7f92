"""Quantized gradients and weights between the workers and the parameter servers of TensorFlow.

    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        model = ...
    servers = ParameterServers(strategy, model.trainable_variables, lambda: keras.optimizers.SGD(0.1), bits=4)

    @tf.function
    def step(data):
        weights = servers.pull()
        with tf.GradientTape() as tape:
            tape.watch(weights)
            with standing_in(model, weights):
                loss = ...
        servers.push(tape.gradient(loss, weights))
        return loss

    servers.schedule(coordinator, step, args=(data,))

The strategy and its servers are TensorFlow's own. The codes are made and read by graph operations on both sides, so
that only codes cross the network. Residuals lie on the workers; what the pull rounds away stays in the difference
between the weights and the worker's view of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tony.gradients import server_checkpoint
from tony.gradients.errors import BadGradient, BadSetting, GradientError
from tony.gradients.exchange import Settings
from tony.gradients.quantizer import BLOCK, Floats
from tony.gradients.request import settings_for
from tony.gradients.server_pace import AtOwnPace
from tony.gradients.server_shard import Shard
from tony.gradients.standing_in import plain_variable, standing_in

log = logging.getLogger(__name__)

__all__ = ["ParameterServers", "standing_in"]


AUTO_BITS = 4
POLL_S = 0.002


@dataclass(frozen=True)
class Traffic:
    """Bytes of one step of one worker, without the network's headers; `plain`: both ways as float32."""

    pushed: int
    pulled: int
    plain: int

    @property
    def ratio(self) -> float:
        return self.plain / (self.pushed + self.pulled)


class ParameterServers:
    """Keeps `variables`, which lie on parameter servers, in touch with the workers.

    `optimizer`: a function that makes a Keras optimizer, or a function of gradients and variables that updates
    the variables; one is made for each server and works there. Further arguments as of
    `tony.gradients.request.settings_for`; rounding is to nearest, and "auto" means 4 bits. A step is a call of
    `pull` and then of `push` in a function that `schedule` hands to a worker. Each worker goes at its own pace, as
    the coordinator's queue has it: nothing in TensorFlow says that every worker gets one call of a step.
    """

    def __init__(
        self,
        strategy: Any,
        variables: Sequence[Any],
        optimizer: Callable[..., Any],
        *,
        settings: Settings | None = None,
        **arguments: Any,
    ) -> None:
        import tensorflow as tf

        if settings is not None and arguments:
            raise BadSetting(f"give either settings or {', '.join(sorted(arguments))}")
        self.settings = _accept(settings or settings_for(**arguments), variables)
        self.workers = sum("/job:worker/" in device.name for device in tf.config.list_logical_devices("CPU"))
        self._names = [_name(variable, index) for index, variable in enumerate(variables)]
        self._shapes = [tuple(variable.shape) for variable in variables]
        self.shards = self._shards(variables)
        self.optimizers = [self._optimize(strategy, shard, variables, optimizer) for shard in self.shards]
        self.discipline = AtOwnPace(self.shards, self.workers)
        self.scheduled = 0
        """Calls scheduled so far, also before a restart: the next one's number."""
        self._pulled: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()
        with strategy.scope():
            self._locals = [_Local(tf, shard) for shard in self.shards]

    def pull(self) -> list[Any]:
        """On a worker, in a scheduled function, first: the weights, as tensors in the order of the variables."""
        import tensorflow as tf

        worker = tf.cast(tf.distribute.coordinator.experimental_get_current_worker_index(), tf.int32)
        weights: list[Any] = [None] * len(self._names)
        residuals: list[Any] = []
        for shard, state, local in zip(self.shards, self.discipline.states, self._locals, strict=True):
            version = local.version.read_value()
            with tf.device(shard.device):
                answer = state.answer(worker, version)
            copy = local.copy.read_value()
            based = tf.cond(tf.size(answer.base) > 0, lambda b=answer.base: b, lambda c=copy: c)
            now = tf.cond(
                tf.size(answer.codes) > 0,
                lambda s=shard, b=based, a=answer: s.advance(b, a.codes),
                lambda b=based: b,
            )
            now = tf.ensure_shape(now, copy.shape)
            residual = local.residual.read_value()
            # TensorFlow does not order what is done with variables of the workers: first all is read
            with tf.control_dependencies([version, copy, residual]):
                local.copy.assign(now)
                local.version.assign(answer.version)
            residuals.append(tf.cond(tf.size(answer.owed) > 0, lambda a=answer: a.owed, lambda r=residual: r))
            for index, tensor in zip(shard.indices, shard.tensors(now, answer.exempt), strict=True):
                weights[index] = tensor
        self._pulled[tf.compat.v1.get_default_graph()] = residuals
        return weights

    def push(self, gradients: Sequence[Any], number: Any = -1) -> Any:
        """On a worker, after `pull`: hand the gradients in; a boolean tensor: whether they were applied.

        They are not when one is not finite, then no residual changes either; nor when a push of the same
        `number` was applied before (`ParameterServers.schedule` gives numbers). Raises BadGradient.
        """
        import tensorflow as tf

        gradients = self._checked(gradients)
        worker = tf.cast(tf.distribute.coordinator.experimental_get_current_worker_index(), tf.int32)
        pushed, finite = [], tf.constant(True)
        for shard, residual in zip(self.shards, self._residuals_now(), strict=True):
            one, fine = shard.encode([gradients[index] for index in shard.indices], residual)
            pushed.append(one)
            finite = tf.logical_and(finite, fine)
        applied = self.discipline.deliver(worker, pushed, finite, tf.cast(number, tf.int64))
        applied = tf.identity(applied)
        for one, local in zip(pushed, self._locals, strict=True):
            local.residual.assign(tf.cond(applied, lambda o=one: o.kept, lambda o=one: o.residual))
        return applied

    def schedule(self, coordinator: Any, step: Any, args: Sequence[Any] = ()) -> Any:
        """Schedule one step: one call of `step(*args, number)` on some worker. Returns TensorFlow's remote value.

        TensorFlow repeats a call whose worker was lost; the number tells `push` so.
        """
        import tensorflow as tf

        number = tf.constant(self.scheduled, tf.int64)
        self.scheduled += 1
        return coordinator.schedule(step, args=(*args, number))

    def join(self, coordinator: Any, timeout_s: float = 3600.0) -> None:
        """On the coordinator: as ``coordinator.join()``, but raises GradientError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not coordinator.done():
            if time.monotonic() > deadline:
                raise GradientError(f"the scheduled steps were not done after {timeout_s:g} s")
            time.sleep(POLL_S)

    def save(self, folder: str | Path) -> Path:
        """On the coordinator: see `tony.gradients.server_checkpoint.save`."""
        return server_checkpoint.save(self, Path(folder))

    def restore(self, folder: str | Path, resize: bool = False) -> int:
        """On the coordinator: see `tony.gradients.server_checkpoint.restore`."""
        return server_checkpoint.restore(self, Path(folder), resize)

    def residuals(self) -> list[list[Floats]]:
        """On the coordinator, while nothing is scheduled: what every worker owes, by server and worker."""
        return [[value.numpy() for value in local.residual.read_all()] for local in self._locals]

    def copies(self) -> list[list[Floats]]:
        """On the coordinator: the weights as every worker last pulled them, by server and worker."""
        return [[value.numpy() for value in local.copy.read_all()] for local in self._locals]

    def traffic(self) -> Traffic:
        """What one step of one worker sends."""
        plain = 4 * sum(shard.layout.exempt_elements for shard in self.shards)
        elements = sum(shard.layout.elements for shard in self.shards)
        pushed, pulled = (sum(s.coded_bytes for s in self.shards), sum(s.down_bytes for s in self.shards))
        return Traffic(pushed + plain, pulled + plain, 8 * elements)

    def _residuals_now(self) -> list[Any]:
        """The residuals inside a step, as `pull` left them.

        Not read again from their variables: TensorFlow does not order what is done with variables of the workers.
        """
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        while graph is not None:
            if graph in self._pulled:
                pairs = zip(self._pulled[graph], self.shards, strict=True)
                return [tf.ensure_shape(one, (shard.blocks, BLOCK)) for one, shard in pairs]
            graph = getattr(graph, "outer_graph", None)
        return [local.residual.read_value() for local in self._locals]

    def _checked(self, gradients: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        if len(gradients) != len(self._names):
            raise BadGradient(f"{len(gradients)} gradients for {len(self._names)} variables")
        if all(gradient is None for gradient in gradients):
            raise BadGradient("all gradients are None", "watch what pull() returned, and compute with it")
        made = []
        for name, shape, gradient in zip(self._names, self._shapes, gradients, strict=True):
            tensor = tf.zeros(shape) if gradient is None else tf.convert_to_tensor(gradient)
            if not tensor.dtype.is_floating:
                raise BadGradient(f"gradient {name!r} is {tensor.dtype.name}, not floating point")
            if not tensor.shape.is_compatible_with(shape):
                raise BadGradient(f"gradient {name!r} has the shape {tuple(tensor.shape)}, its variable {shape}")
            made.append(tensor)
        return made

    def _shards(self, variables: Sequence[Any]) -> list[Shard]:
        plain = [plain_variable(variable) for variable in variables]
        devices = sorted({variable.device for variable in plain})
        made = []
        for device in devices:
            indices = [index for index, variable in enumerate(plain) if variable.device == device]
            names = [self._names[index] for index in indices]
            made.append(Shard(device, [plain[index] for index in indices], names, indices, self.settings))
        return made

    def _optimize(self, strategy: Any, shard: Shard, variables: Sequence[Any], optimizer: Callable[..., Any]) -> Any:
        import tensorflow as tf

        own = [variables[index] for index in shard.indices]
        try:
            with strategy.scope():
                made = optimizer()
                made.build(own)
        except TypeError:
            shard.apply = lambda gradients: optimizer(gradients, own)
            return None

        def step(gradients: Sequence[Any]) -> None:
            with tf.device(shard.device):
                if hasattr(made, "apply"):
                    made.apply(gradients, own)
                else:
                    made.apply_gradients(list(zip(gradients, own, strict=True)))

        shard.apply = lambda gradients: strategy.run(step, args=(gradients,))
        return made


class _Local:
    """What each worker keeps for one server: its copy of the weights, its residual, the version of the copy."""

    def __init__(self, tf: Any, shard: Shard) -> None:
        shape = (shard.blocks, BLOCK)

        def variable(make: Callable[[], Any]) -> Any:
            return tf.Variable(make, trainable=False, per_worker_variable=True)

        self.copy = variable(lambda: tf.zeros(shape))
        self.residual = variable(lambda: tf.zeros(shape))
        self.version = variable(lambda: tf.zeros((), tf.int64))


def _accept(settings: Settings, variables: Sequence[Any]) -> Settings:
    """The settings as they are used here; raises for those, and for variables, that cannot be."""
    if settings.sparse:
        raise BadSetting("the mode 'sparse' is not possible with parameter servers", "use 2, 4 or 8 bits")
    if settings.ways and settings.up:
        log.info("parameter servers do not measure what is fastest: 'auto' means %d bits here", AUTO_BITS)
        settings = replace(settings, up=replace(settings.up, bits=AUTO_BITS), ways=())
    for scheme in (settings.up, settings.down):
        if scheme is not None and scheme.rounding != "nearest":
            raise BadSetting(f"rounding={scheme.rounding!r} is not possible with parameter servers", "use 'nearest'")
    if not variables:
        raise BadSetting("there are no variables", "build the model first")
    for index, variable in enumerate(variables):
        kind = getattr(variable.dtype, "name", variable.dtype)
        if "float" not in kind:
            raise BadGradient(f"variable {_name(variable, index)!r} is {kind}, not floating point")
    return settings


def _name(variable: Any, index: int) -> str:
    return f"{index}:{getattr(variable, 'path', None) or variable.name}"
