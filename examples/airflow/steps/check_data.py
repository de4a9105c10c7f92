"""Looks at the data before anything is trained on it; ends with an error that names what is wrong."""

import sys

import numpy as np
from sklearn.datasets import load_digits

from tony import current

digits = load_digits()
pixels, labels = digits.data, digits.target
counts = np.bincount(labels, minlength=10)
wrong = []
if pixels.shape != (len(labels), 64) or len(labels) < 1000:
    wrong.append(f"{pixels.shape} pixels for {len(labels)} labels")
if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 16:
    wrong.append("grey values outside of 0 to 16")
if len(counts) != 10 or counts.min() < 0.5 * counts.mean():
    wrong.append(f"rare digits: {counts.tolist()}")
if wrong:
    sys.exit("bad data: " + "; ".join(wrong))
print(f"{len(labels)} digits, each at least {counts.min()} times", flush=True)
current().report(digits=len(labels), rarest=int(counts.min()))
