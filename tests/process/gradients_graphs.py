"""What runs as TensorFlow operations, compared with the numpy reference. Prints one JSON line at its end."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from tony.gradients.codec.reference import Reference
from tony.gradients.exchange import Exchange, Settings
from tony.gradients.quantizer import BLOCK, Scheme, blocks_of
from tony.gradients.threads import ThreadTransport, run_ranks

STEPS = 4


def inputs(rank: int, step: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng([rank, step])
    wide = random.standard_normal((70, 640)).astype(np.float32)
    if step == 2 and rank == 1:
        wide[5, 5] = np.nan
    return [("wide", wide), ("bias", random.standard_normal(7).astype(np.float32))]


def averages(transport: Any, bits: int) -> list[np.ndarray]:
    """All averages of four steps, of which the third is skipped."""
    exchange = Exchange(transport, Settings(Scheme(bits)), Reference())
    made = []
    for step in range(STEPS):
        result = exchange.average(inputs(transport.rank, step))
        made += [np.array([result.finite], np.float32), *(array.copy() for array in result.arrays)]
    return made


def collective() -> dict[str, object]:
    """The exchange over TensorFlow's collectives beside the same exchange between threads; then another layout."""
    from tony.gradients.collective import CollectiveTransport
    from tony.gradients.errors import GradientError
    from tony.gradients.tensorflow import Gradients

    transport = CollectiveTransport(timeout_s=120)
    same = []
    for bits in (2, 4, 8):
        found = averages(transport, bits)

        def work(threads: ThreadTransport, bits: int = bits) -> list[np.ndarray]:
            return averages(threads, bits)

        wanted = run_ranks(transport.size, work)[transport.rank]
        assert not isinstance(wanted, Exception), wanted
        same.append(all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, wanted, strict=True)))
    import tensorflow as tf

    first = transport.broadcast([tf.fill((2, 3), float(transport.rank + 1)), tf.constant(transport.rank, tf.int64)])
    variable = tf.Variable(tf.zeros((64, 32)), name="w")
    gradients = Gradients(bits=4, transport=transport)
    average, finite = gradients.average([tf.fill((64, 32), float(transport.rank))], [variable])
    try:
        gradients.average([tf.zeros((64, 33 if transport.rank else 32))], [variable])
        message = "none"
    except (GradientError, tf.errors.OpError) as error:
        message = str(error)
    return {
        "same": same,
        "first": [float(tf.reduce_sum(first[0])), int(first[1])],
        "mean": float(tf.reduce_mean(average[0])),
        "finite": bool(finite),
        "message": message,
    }


def codec() -> dict[str, object]:
    """Codes, residuals and decoded values of the graph beside those of the reference, for many kinds of blocks."""
    import tensorflow as tf

    from tony.gradients.codec import graph
    from tony.gradients.quantizer import UNIT_BYTES, units_to_wire

    differences = []
    for bits in (2, 4, 8):
        scheme = Scheme(bits)
        for blocks, alpha, beta in ((40, 1.0, 1.0), (3000, 1.0, 1.0), (40, 0.5, 0.9)):
            random = np.random.default_rng([bits, blocks])
            scales = np.exp(random.standard_normal((blocks, 1)) * 10)
            gradient = (random.standard_normal((blocks, BLOCK)) * scales).astype(np.float32)
            residual = random.standard_normal((blocks, BLOCK)).astype(np.float32)
            gradient[1], residual[1] = 0, 0
            gradient[2, 7], gradient[3, 9], gradient[4, 0] = np.nan, np.inf, 1e37
            residual[2:5] = 1
            assert blocks_of(gradient.size) == blocks
            units, codes = np.zeros(blocks, np.float32), np.zeros(blocks * scheme.block_bytes, np.uint8)
            kept, out = np.zeros(gradient.size, np.float32), np.zeros(gradient.size, np.float32)
            reference = Reference()
            reference.encode(
                gradient.reshape(-1), residual.reshape(-1), scheme, alpha, beta, 0, 0, units, codes, kept, None
            )
            wire = np.zeros(scheme.message_bytes(blocks), np.uint8)
            units_to_wire(units, wire[: UNIT_BYTES * blocks])
            wire[UNIT_BYTES * blocks :] = codes
            reference.decode(units, codes, bits, 1 / 3, False, out)

            @tf.function
            def run(
                g: Any, h: Any, s: Scheme = scheme, a: float = alpha, b: float = beta, n: int = blocks
            ) -> tuple[Any, ...]:
                made = graph.encode(g, h, s, a, b)
                return made.message, made.kept, made.finite, graph.decode(made.message, n, s.bits, 1 / 3)

            # copies: TensorFlow may work in the memory of an array that it was given
            message, new, finite, decoded = run(tf.constant(gradient.copy()), tf.constant(residual.copy()))
            found = message.numpy()
            bad = np.isnan(units)
            fine = {
                "units": np.array_equal(
                    found[: UNIT_BYTES * blocks].view("<u2")[~bad], wire[: UNIT_BYTES * blocks].view("<u2")[~bad]
                ),
                "codes": np.array_equal(found[UNIT_BYTES * blocks :], wire[UNIT_BYTES * blocks :]),
                "kept": np.array_equal(new.numpy().reshape(-1), kept),
                "decoded": np.array_equal(decoded.numpy().reshape(-1), out, equal_nan=True),
                "finite": not bool(finite) and int(bad.sum()) == 3,
            }
            differences += [f"{bits} bits, {blocks} blocks: {name}" for name, same in fine.items() if not same]
    return {"differences": differences}


if __name__ == "__main__":
    print(json.dumps({"collective": collective, "codec": codec}[sys.argv[1]]()), flush=True)
