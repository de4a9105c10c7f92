"""A communication hook for DistributedDataParallel that exchanges codes instead of floats.

    model = DistributedDataParallel(network)
    state = tony.gradients.torch_hook.State(network, bits=4)
    state.attach(model)

The buckets of DDP change after its first step, so residuals belong to parameters, not to them: the hook collects
all buckets of a step and exchanges them together when the last one is ready. Keep the residuals with
``tony.gradients.checkpoint.save(state.exchange, folder)`` on every rank.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tony.gradients.auto import exchange_for
from tony.gradients.errors import BadGradient
from tony.gradients.report import JobReport
from tony.gradients.request import settings_for
from tony.gradients.torch import TorchTransport


class State:
    """What the hook keeps between steps. Arguments as of `settings_for`.

    `finite` is false after a step in which some rank had a NaN: then the gradients hold NaN on all ranks and the
    step must be skipped; the residuals are as before.
    """

    def __init__(self, network: Any, group: Any = None, **arguments: Any) -> None:
        self.exchange = exchange_for(TorchTransport(group), settings_for(**arguments))
        self.finite = True
        self._report = JobReport()
        self.flush_next = False
        """Set before a step to send all that is owed in it (for a checkpoint that needs no residuals)."""
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._waiting: list[tuple[Any, Any]] = []

    def attach(self, model: Any) -> None:
        """Register the hook with a DistributedDataParallel of the network, before its first backward pass."""
        # DDP compares annotations with its own classes; a lambda has none
        model.register_comm_hook(self, lambda state, bucket: state.collect(bucket))

    def collect(self, bucket: Any) -> Any:
        """Take one bucket; with the last of a step, exchange all. Returns the future that DDP waits for."""
        import torch

        future = torch.futures.Future()
        self._waiting.append((bucket, future))
        if bucket.is_last():
            waiting, self._waiting = self._waiting, []
            self._exchange([waited for waited, _ in waiting])
            for waited, pending in waiting:
                pending.set_result(waited.buffer())
        return future

    def _exchange(self, buckets: list[Any]) -> None:
        views: list[tuple[str, Any]] = []
        for bucket in buckets:
            for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
                if id(parameter) not in self._names:
                    raise BadGradient("a parameter is not of the network that the state was made for")
                views.append((self._names[id(parameter)], gradient))
        views.sort(key=lambda view: view[0])
        flush, self.flush_next = self.flush_next, False
        arrays = [(name, np.asarray(gradient.detach().float().numpy())) for name, gradient in views]
        result = self.exchange.average(arrays, flush)
        self.finite = result.finite
        self._report.stepped(self.exchange)
        import torch

        for (_, gradient), average in zip(views, result.arrays, strict=True):
            gradient.copy_(torch.from_numpy(np.ascontiguousarray(average)))
