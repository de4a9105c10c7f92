"""A training program over parameter servers that tests start as chief, workers and ps. The chief prints JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import numpy as np

CLASSES, INPUTS, HIDDEN, BATCH = 32, 64, 64, 32


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    x = random.standard_normal((512, INPUTS)).astype(np.float32)
    return x, (x[:, :10] * 3).argmax(axis=1)


def module(strategy: Any) -> tuple[Any, Any]:
    """A model of plain variables, and momentum."""
    import tensorflow as tf

    random = np.random.default_rng(2)

    class Perceptron(tf.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.hidden = tf.Variable((random.standard_normal((INPUTS, HIDDEN)) * 0.1).astype(np.float32))
            self.bias = tf.Variable(tf.zeros(HIDDEN))
            self.output = tf.Variable((random.standard_normal((HIDDEN, CLASSES)) * 0.1).astype(np.float32))

        def __call__(self, x: Any) -> Any:
            return tf.nn.relu(x @ self.hidden + self.bias) @ self.output

    def descend(gradients: list[Any], variables: list[Any]) -> None:
        for gradient, variable in zip(gradients, variables, strict=True):
            variable.assign_sub(0.1 * gradient)

    with strategy.scope():
        return Perceptron(), descend


def keras_model(strategy: Any, name: str) -> tuple[Any, Any]:
    import importlib

    keras = importlib.import_module(name)
    keras.utils.set_random_seed(3)
    with strategy.scope():
        layers = [keras.Input((INPUTS,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(CLASSES)]
        return keras.Sequential(layers), lambda: keras.optimizers.SGD(0.1, momentum=0.9)


def lead(resolver: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Train `steps` steps. `bad`: the step in which one gradient is NaN; `folder`: resume from and save there."""
    import tensorflow as tf

    from tony.gradients.errors import GradientError
    from tony.gradients.parameter_server import ParameterServers, standing_in

    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    model, optimizer = module(strategy) if wanted["model"] == "module" else keras_model(strategy, wanted["model"])
    variables = model.trainable_variables
    settings = {"bits": wanted.get("bits", 4), "down_bits": wanted.get("down_bits")}
    servers = ParameterServers(strategy, variables, optimizer, **settings)
    x, y = (tf.constant(array) for array in data())
    bad = wanted.get("bad", -1)

    @tf.function
    def step(number: Any) -> Any:
        begin = tf.cast(number * BATCH % 512, tf.int32)
        images, labels = x[begin : begin + BATCH], y[begin : begin + BATCH]
        weights = servers.pull()
        with tf.GradientTape() as tape:
            tape.watch(weights)
            with standing_in(model, weights):
                scores = model(images)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
        gradients = tape.gradient(loss, weights)
        poison = tf.where(tf.equal(number, bad), tf.constant(np.nan, tf.float32), 1.0)
        applied = servers.push([gradient * poison for gradient in gradients], number)
        return loss, applied, weights

    folder = wanted.get("folder")
    checkpoint = tf.train.Checkpoint(variables=[getattr(v, "_value", v) for v in variables])
    options = tf.train.CheckpointOptions(experimental_io_device="/job:chief")
    if folder and os.path.exists(os.path.join(folder, "parameter-servers.npz")):
        checkpoint.read(os.path.join(folder, "weights"), options)
        servers.restore(folder)
    values: list[Any] = []
    for _ in range(wanted["steps"]):
        values.append(servers.schedule(coordinator, step))
        if wanted.get("one_by_one") or len(values) == 50:
            servers.join(coordinator)
        if len(values) == 50:
            print("training", file=sys.stderr, flush=True)
    servers.join(coordinator)
    found = coordinator.fetch(values)
    twice = []
    if wanted.get("repeat"):
        again = coordinator.schedule(step, args=(tf.constant(0, tf.int64),))
        twice = [bool(coordinator.fetch(again)[1])]
    if folder:
        checkpoint.write(os.path.join(folder, "weights"), options)
        servers.save(folder)
    errors = []
    for call in (
        lambda: ParameterServers(strategy, variables, optimizer, bits=3),
        lambda: ParameterServers(strategy, variables, optimizer, mode="stochastic"),
        lambda: ParameterServers(strategy, [tf.Variable(1)], optimizer),
        lambda: servers._checked([tf.zeros((2, 3)) for _ in variables]),
        lambda: servers._checked([tf.zeros(v.shape, tf.int32) for v in variables]),
    ):
        try:
            call()
            errors.append("none")
        except GradientError as error:
            errors.append(error.message)
    final = [np.asarray(tf.convert_to_tensor(variable)) for variable in variables]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in final)).hexdigest()
    result = {
        "weights": digest,
        "losses": [float(loss) for loss, _, _ in found],
        "applied": [bool(applied) for _, applied, _ in found],
        "repeated": twice,
        "errors": errors,
        "shards": len(servers.shards),
        "owed": float(sum(np.abs(one).sum() for shard in servers.residuals() for one in shard)),
    }
    if wanted.get("trace"):
        np.savez(wanted["trace"], *final, *[weight for _, _, weights in found for weight in weights])
    return result


def main() -> None:
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type != "chief":
        tf.distribute.Server(resolver.cluster_spec(), resolver.task_type, resolver.task_id, protocol="grpc").join()
    print(json.dumps(lead(resolver, json.loads(sys.argv[1]))), flush=True)
    os._exit(0)  # the workers are killed next: a coordinator that notices would only log it


if __name__ == "__main__":
    main()
