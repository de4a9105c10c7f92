"""Measures the newest checkpoint of a folder on the digits that it was not trained on, without TensorFlow."""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tony import current

files = sorted(Path(sys.argv[1]).glob("epoch-*.npz"))
if not files:
    sys.exit(f"no checkpoint in {sys.argv[1]}")
digits = load_digits()
# The same split as in ../../horovod-mnist/train.py
_, x, _, labels = train_test_split(digits.data.astype("float32") / 16, digits.target, test_size=0.2, random_state=0)
with np.load(files[-1]) as saved:
    layers = [(saved[str(2 * n)], saved[str(2 * n + 1)]) for n in range(3)]
for kernel, bias in layers[:-1]:
    x = np.maximum(x @ kernel + bias, 0)
kernel, bias = layers[-1]
accuracy = float((np.argmax(x @ kernel + bias, axis=1) == labels).mean())
print(f"{files[-1].name} accuracy={accuracy:.3f} of {len(labels)} digits", flush=True)
current().report(accuracy=accuracy)
