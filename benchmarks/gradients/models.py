"""Small models with hand-written gradients in numpy, so that a seed decides every bit of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Parameters = dict[str, Array]
Gradients = dict[str, Array]


@dataclass(frozen=True)
class Model:
    """`initial` makes parameters; `gradients` maps (parameters, inputs, labels) to (mean loss in nats, gradients);
    `logits` maps (parameters, inputs) to scores."""

    initial: Callable[[np.random.Generator], Parameters]
    gradients: Callable[[Parameters, npt.NDArray[np.generic], npt.NDArray[np.int64]], tuple[float, Gradients]]
    logits: Callable[[Parameters, npt.NDArray[np.generic]], Array]


def softmax_loss(scores: Array, labels: npt.NDArray[np.int64]) -> tuple[float, Array]:
    """Mean cross entropy in nats and its gradient by the scores."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(np.mean(np.log(sums[:, 0]) - shifted[rows, labels]))
    slope = powers / sums
    slope[rows, labels] -= 1
    return loss, (slope / len(labels)).astype(np.float32)


def _dense(random: np.random.Generator, rows: int, columns: int) -> Array:
    made: Array = (random.standard_normal((rows, columns)) * np.sqrt(2 / rows)).astype(np.float32)
    return made


def perceptron(sizes: tuple[int, ...]) -> Model:
    """Dense layers with ReLU between them; inputs of shape (batch, sizes[0])."""
    layers = len(sizes) - 1

    def initial(random: np.random.Generator) -> Parameters:
        made: Parameters = {}
        for i in range(layers):
            made[f"kernel{i}"] = _dense(random, sizes[i], sizes[i + 1])
            made[f"bias{i}"] = np.zeros(sizes[i + 1], np.float32)
        return made

    def forward(p: Parameters, x: Array) -> list[Array]:
        outputs = [x]
        for i in range(layers):
            x = x @ p[f"kernel{i}"] + p[f"bias{i}"]
            if i < layers - 1:
                x = np.maximum(x, 0)
            outputs.append(x)
        return outputs

    def gradients(p: Parameters, x: npt.NDArray[np.generic], y: npt.NDArray[np.int64]) -> tuple[float, Gradients]:
        outputs = forward(p, x)  # type: ignore[arg-type]
        loss, slope = softmax_loss(outputs[-1], y)
        return loss, _dense_backward(p, outputs, slope, layers)[0]

    return Model(initial, gradients, lambda p, x: forward(p, x)[-1])  # type: ignore[arg-type]


def _dense_backward(p: Parameters, outputs: list[Array], slope: Array, layers: int) -> tuple[Gradients, Array]:
    """Gradients of a perceptron's parameters, and of its input."""
    made: Gradients = {}
    for i in reversed(range(layers)):
        made[f"kernel{i}"] = outputs[i].T @ slope
        made[f"bias{i}"] = slope.sum(axis=0)
        slope = slope @ p[f"kernel{i}"].T
        if i > 0:
            slope = slope * (outputs[i] > 0)
    return {name: made[name] for name in sorted(made)}, slope


def characters(alphabet: int, context: int = 12, width: int = 24, hidden: int = 192) -> Model:
    """The next character from the last `context` ones: embedding, one hidden layer. Inputs: int, (batch, context)."""
    top = perceptron((context * width, hidden, alphabet))

    def initial(random: np.random.Generator) -> Parameters:
        table = (random.standard_normal((alphabet, width)) * 0.3).astype(np.float32)
        return {"embedding": table} | top.initial(random)

    def forward(p: Parameters, x: npt.NDArray[np.generic]) -> list[Array]:
        flat = p["embedding"][x].reshape(len(x), -1)
        hidden_out = np.maximum(flat @ p["kernel0"] + p["bias0"], 0)
        return [flat, hidden_out, hidden_out @ p["kernel1"] + p["bias1"]]

    def gradients(p: Parameters, x: npt.NDArray[np.generic], y: npt.NDArray[np.int64]) -> tuple[float, Gradients]:
        outputs = forward(p, x)
        loss, slope = softmax_loss(outputs[-1], y)
        made, below = _dense_backward(p, outputs, slope, 2)
        table = np.zeros_like(p["embedding"])
        np.add.at(table, x.reshape(-1).astype(np.int64), below.reshape(-1, width))
        return loss, {"embedding": table} | made

    return Model(initial, gradients, lambda p, x: forward(p, x)[-1])


def convolutional(side: int, classes: int, first: int = 16, second: int = 32) -> Model:
    """Two 3x3 convolutions, each followed by ReLU and 2x2 mean pooling, and a dense layer.

    Inputs of shape (batch, side, side); `side` must be a multiple of 4.
    """
    flat = (side // 4) ** 2 * second

    def initial(random: np.random.Generator) -> Parameters:
        return {
            "conv0": _dense(random, 9, first),
            "conv0_bias": np.zeros(first, np.float32),
            "conv1": _dense(random, 9 * first, second),
            "conv1_bias": np.zeros(second, np.float32),
            "kernel": _dense(random, flat, classes),
            "bias": np.zeros(classes, np.float32),
        }

    def forward(p: Parameters, x: Array) -> tuple[Array, ...]:
        columns0 = _columns(x[..., None])
        relu0 = np.maximum(columns0 @ p["conv0"] + p["conv0_bias"], 0)
        columns1 = _columns(_pool(relu0))
        relu1 = np.maximum(columns1 @ p["conv1"] + p["conv1_bias"], 0)
        last = _pool(relu1).reshape(len(x), -1)
        return columns0, relu0, columns1, relu1, last, last @ p["kernel"] + p["bias"]

    def gradients(p: Parameters, x: npt.NDArray[np.generic], y: npt.NDArray[np.int64]) -> tuple[float, Gradients]:
        columns0, relu0, columns1, relu1, last, scores = forward(p, x)  # type: ignore[arg-type]
        loss, slope = softmax_loss(scores, y)
        made: Gradients = {"kernel": last.T @ slope, "bias": slope.sum(axis=0)}
        slope1 = _unpool((slope @ p["kernel"].T).reshape(len(x), side // 4, side // 4, second)) * (relu1 > 0)
        made["conv1"] = np.tensordot(columns1, slope1, ([0, 1, 2], [0, 1, 2]))
        made["conv1_bias"] = slope1.sum(axis=(0, 1, 2))
        slope0 = _unpool(_gather(slope1 @ p["conv1"].T, first)) * (relu0 > 0)
        made["conv0"] = np.tensordot(columns0, slope0, ([0, 1, 2], [0, 1, 2]))
        made["conv0_bias"] = slope0.sum(axis=(0, 1, 2))
        return loss, {name: made[name] for name in p}

    return Model(initial, gradients, lambda p, x: forward(p, x)[-1])  # type: ignore[arg-type]


def _columns(x: Array) -> Array:
    """The 3x3 neighbourhood of every pixel: (batch, h, w, c) to (batch, h, w, 9 c)."""
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.concatenate(views, axis=-1)


def _gather(slope: Array, channels: int) -> Array:
    """The transpose of _columns."""
    batch, height, width, _ = slope.shape
    padded = np.zeros((batch, height + 2, width + 2, channels), np.float32)
    for place in range(9):
        i, j = divmod(place, 3)
        padded[:, i : i + height, j : j + width] += slope[..., place * channels : (place + 1) * channels]
    return padded[:, 1:-1, 1:-1]


def _pool(x: Array) -> Array:
    batch, height, width, channels = x.shape
    pooled: Array = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4), dtype=np.float32)
    return pooled


def _unpool(slope: Array) -> Array:
    spread: Array = (slope * np.float32(0.25)).repeat(2, axis=1).repeat(2, axis=2)
    return spread
