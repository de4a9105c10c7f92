"""One task of the parameter-server measurement: chief, worker or ps, as TF_CONFIG says.

The chief reads lines "MODE STEPS" from stdin, has the workers make so many steps of that kind together, and answers
each with one JSON line. Ends with its stdin.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

RATE = 1e-4


def serve(resolver: Any) -> None:
    import tensorflow as tf

    tf.distribute.Server(resolver.cluster_spec(), resolver.task_type, resolver.task_id, protocol="grpc").join()


class Lead:
    """The chief: one square matrix of weights on the ps, gradients made on the workers."""

    def __init__(self, resolver: Any, elements: int) -> None:
        import tensorflow as tf

        self.tf: Any = tf
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self.shape = (elements // 512, 512)
        with self.strategy.scope():
            self.weights = tf.Variable(tf.random.stateless_normal(self.shape, (1, 2)))
        self._steps: dict[str, Callable[[], list[Any]]] = {}

    def run(self, mode: str, steps: int) -> list[float]:
        """Seconds of each step. Modes: fp32, bf16 (both ways), and UP/DOWN bits, where 32 down are whole weights."""
        if mode not in self._steps:
            self._steps = {mode: self._step(mode)}
        step = self._steps[mode]
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            step()
            self.coordinator.join()
            times.append(time.perf_counter() - began)
        return times

    def _gradient(self, weights: Any) -> Any:
        """Of a quadratic with noise, so that there is something to send in every step."""
        tf = self.tf
        return weights + tf.random.stateless_normal(self.shape, tf.cast([tf.timestamp() * 1e6, 7], tf.int64))

    def _step(self, mode: str) -> Callable[[], list[Any]]:
        tf, weights = self.tf, self.weights
        if mode in ("fp32", "bf16"):
            narrow = tf.float32 if mode == "fp32" else tf.bfloat16

            @tf.function
            def plain(number: Any) -> Any:
                with tf.device(weights.device):
                    pulled = tf.cast(weights.read_value(), narrow)
                gradient = tf.cast(self._gradient(tf.cast(pulled, tf.float32)), narrow)
                with tf.device(weights.device):
                    weights.assign_sub(RATE * tf.cast(gradient, tf.float32))
                return number

            return lambda: [self.coordinator.schedule(plain, args=(tf.constant(0, tf.int64),))]
        from tony.gradients.parameter_server import ParameterServers

        up, _, down = mode.partition("/")
        servers = ParameterServers(
            self.strategy,
            [weights],
            lambda gradients, variables: variables[0].assign_sub(RATE * gradients[0]),
            bits=int(up),
            down_bits=int(up) if down == "32" else int(down),
        )

        @tf.function
        def coded(number: Any) -> Any:
            pulled = weights.read_value() if down == "32" else servers.pull()[0]
            return servers.push([self._gradient(pulled)], number)

        return lambda: servers.schedule(self.coordinator, coded)


def main() -> None:
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type != "chief":
        serve(resolver)
    lead = Lead(resolver, int(sys.argv[1]))
    for line in sys.stdin:
        mode, steps = line.split()
        print(json.dumps({"seconds": lead.run(mode, int(steps))}), flush=True)
    os._exit(0)  # the servers are ended next; the coordinator would only report that


if __name__ == "__main__":
    main()
