"""One rank of the wire and step-time measurements.

Reads lines "MODE STEPS" from stdin, makes so many steps of that way of exchanging, and answers each with one JSON
line. Ends with its stdin.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 7


def exchanger(mode: str, gradient: Any) -> tuple[Callable[[], Any], str]:
    """What one step is, and the codec's name. Modes: fp32, fp16 (Horovod's), allgather, auto, 2, 4, 8, 2/4."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    if mode in ("fp32", "fp16"):
        tensor = tf.constant(gradient)
        compression = hvd.Compression.fp16 if mode == "fp16" else hvd.Compression.none
        return lambda: hvd.allreduce(tensor, name=mode, op=hvd.Average, compression=compression), "Horovod"
    from tony.gradients.auto import exchange_for
    from tony.gradients.codec.choice import choose
    from tony.gradients.exchange import Exchange
    from tony.gradients.horovod import HorovodTransport
    from tony.gradients.request import settings_for

    if mode == "allgather":
        return _published(HorovodTransport(), gradient), "int8, one scale, allgather, numpy"
    if mode == "auto":
        chosen = exchange_for(HorovodTransport(), settings_for("auto"))
        while chosen.deciding:
            chosen.average([("g", gradient)])
        return lambda: chosen.average([("g", gradient)]), f"{chosen.bits} bits"
    up, _, down = mode.partition("/")
    codec = choose()
    exchange = Exchange(HorovodTransport(), settings_for(int(up), int(down) if down else None), codec)
    return lambda: exchange.average([("g", gradient)]), codec.name


def _published(transport: Any, gradient: Any) -> Callable[[], Any]:
    """QSGD as it is published in frameworks: int8 codes whatever the bits, allgathered, decoded rank by rank."""

    def step() -> Any:
        norm = np.float32(np.linalg.norm(gradient))
        scaled = np.abs(gradient) * (np.float32(127) / norm)
        codes = np.sign(gradient) * np.floor(scaled + np.random.default_rng(1).random(gradient.shape, np.float32))
        message = np.concatenate([np.array([norm]).view(np.uint8), codes.astype(np.int8).reshape(-1).view(np.uint8)])
        total = np.zeros(gradient.size, np.float32)
        for piece in transport.allgather(message):
            total += piece[4:].view(np.int8) * (piece[:4].view(np.float32) / 127)
        return total

    return step


def main() -> None:
    import horovod.tensorflow as hvd

    hvd.init()
    elements = int(sys.argv[1])
    random = np.random.default_rng(SEED + hvd.rank())
    gradient = random.standard_normal((elements // 512, 512)).astype(np.float32)
    known: dict[str, tuple[Callable[[], Any], str]] = {}
    for line in sys.stdin:
        mode, steps = line.split()
        if mode not in known:
            known[mode] = exchanger(mode, gradient)
        step, codec = known[mode]
        times = []
        for _ in range(int(steps)):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        print(json.dumps({"rank": hvd.rank(), "codec": codec, "seconds": times}), flush=True)


if __name__ == "__main__":
    main()
