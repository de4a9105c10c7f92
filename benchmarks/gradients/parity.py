"""Rows 2, 7 and 8: does training with codes reach what training with float32 reaches, and can this test fail?

Four workers, exactly simulated (threads of one process, the product's own exchange), several seeds; every way of
exchanging sees the same batches. The two ablations at the end must miss the bar.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.gradients.models import Parameters, softmax_loss
from benchmarks.gradients.results import add_out, tell
from benchmarks.gradients.tasks import TASKS, Task
from tony.gradients.codec.build import load
from tony.gradients.codec.native import Native
from tony.gradients.codec.reference import Reference
from tony.gradients.exchange import Exchange, Settings
from tony.gradients.feedback import Feedback
from tony.gradients.quantizer import Scheme
from tony.gradients.sparse import Sparse
from tony.gradients.threads import ThreadTransport, run_ranks

RANKS = 4
MODES = {
    "fp32": Settings(None),
    "8 bit": Settings(Scheme(8)),
    "4 bit": Settings(Scheme(4)),
    "2 bit": Settings(Scheme(2)),
    "2 bit up, 4 down": Settings(Scheme(2), Scheme(4)),
    "4 bit up, 8 down": Settings(Scheme(4), Scheme(8)),
    "4 bit up, 8 down, alpha 0.5": Settings(Scheme(4), Scheme(8), Feedback(alpha=0.5)),
    "8 bit up, 4 down": Settings(Scheme(8), Scheme(4)),
    "4 bit stochastic": Settings(Scheme(4, "stochastic")),
    "2 bit stochastic": Settings(Scheme(2, "stochastic")),
    "2 bit l2 up, 8 down (paper)": Settings(Scheme(2, "stochastic", "l2"), Scheme(8)),
    "sparse 5 %": Settings(sparse=Sparse(0.05), exempt_below=0),
    "sparse 3 %": Settings(sparse=Sparse(0.03), exempt_below=0),
    "sparse 2 %": Settings(sparse=Sparse(0.02), exempt_below=0),
    "ablation: 2 bit, no owner residual": Settings(Scheme(2), server_feedback=False),
    "ablation: 2 bit, no residual": Settings(Scheme(2), None, Feedback(0.0, 0.0), server_feedback=False),
    "ablation: paper with alpha = 1": Settings(
        Scheme(2, "stochastic", "l2"), Scheme(8), feedback=Feedback(alpha=1.0)
    ),
}


@dataclass(frozen=True)
class Outcome:
    """`score`: percent right, or bits per character. `loss`: of training, mean of the last tenth of the steps.
    `fewer`: bytes of a float32 ring over those that were sent, without network headers."""

    score: float
    loss: float
    fewer: float


class Momentum:
    """SGD with momentum 0.9."""

    def __init__(self, task: Task) -> None:
        self.rate = np.float32(task.rate)
        self.speed: Parameters = {}

    def apply(self, parameters: Parameters, gradients: Iterable[tuple[str, np.ndarray]]) -> None:
        for name, gradient in gradients:
            speed = self.speed.setdefault(name, np.zeros_like(gradient))
            speed *= np.float32(0.9)
            speed += gradient
            parameters[name] -= self.rate * speed


class Adam:
    """Adam with the usual coefficients."""

    def __init__(self, task: Task) -> None:
        self.rate = task.adam_rate
        self.first: Parameters = {}
        self.second: Parameters = {}
        self.step = 0

    def apply(self, parameters: Parameters, gradients: Iterable[tuple[str, np.ndarray]]) -> None:
        self.step += 1
        rate = self.rate * np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        for name, gradient in gradients:
            first = self.first.setdefault(name, np.zeros_like(gradient))
            second = self.second.setdefault(name, np.zeros_like(gradient))
            first += np.float32(0.1) * (gradient - first)
            second += np.float32(0.001) * (gradient * gradient - second)
            parameters[name] -= np.float32(rate) * first / (np.sqrt(second) + np.float32(1e-8))


OPTIMIZERS: dict[str, type[Momentum] | type[Adam]] = {"momentum": Momentum, "adam": Adam}


def train(task: Task, settings: Settings, seed: int, optimizer: str = "momentum") -> Outcome:
    """One run of all workers. Raises what a worker raised, and RuntimeError if they end with other weights."""
    library = load()

    def work(transport: ThreadTransport) -> tuple[Parameters, list[float], float]:
        codec = Reference() if library is None else Native(library)
        exchange = Exchange(transport, settings, codec)
        parameters = task.model.initial(np.random.default_rng([seed, 5]))
        rule = OPTIMIZERS[optimizer](task)
        losses = []
        sent = 0
        for batch in task.batches(seed, transport.rank, transport.size):
            with np.errstate(all="ignore"):  # an ablation diverges
                loss, gradients = task.model.gradients(parameters, task.train_x[batch], task.train_y[batch])
            losses.append(loss)
            averages = exchange.average(list(gradients.items()))
            sent += averages.sent_bytes
            if averages.finite:
                with np.errstate(all="ignore"):
                    rule.apply(parameters, zip(gradients, averages.arrays, strict=True))
        elements = sum(parameter.size for parameter in parameters.values())
        return parameters, losses, 2 * (RANKS - 1) / RANKS * 4 * elements * task.steps / sent

    results = run_ranks(RANKS, work, timeout_s=300)
    good = [result for result in results if not isinstance(result, BaseException)]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    first = good[0][0]
    if any(not np.array_equal(first[name], other[name]) for other, _, _ in good for name in first):
        raise RuntimeError("the workers ended with different weights")
    tail = max(1, task.steps // 10)
    loss = float(np.mean([np.mean(losses[-tail:]) for _, losses, _ in good]))
    return Outcome(_score(task, first), loss, float(np.mean([fewer for _, _, fewer in good])))


def _score(task: Task, parameters: Parameters) -> float:
    with np.errstate(all="ignore"):
        scores = np.concatenate(
            [task.model.logits(parameters, task.test_x[i : i + 1000]) for i in range(0, len(task.test_y), 1000)]
        )
    if task.unit == "bits":
        return softmax_loss(scores, task.test_y)[0] / float(np.log(2))
    return 100 * float(np.mean(scores.argmax(axis=1) == task.test_y))


def holds(task: Task, baseline: list[Outcome], outcomes: list[Outcome]) -> bool:
    """The bar: mean accuracy within 0.3 point (CNN 0.5) of float32 and loss at most 1.15 times; text within 1 %."""
    score = float(np.mean([o.score for o in outcomes]))
    base = float(np.mean([o.score for o in baseline]))
    if task.unit == "bits":
        return score <= 1.01 * base
    loss = float(np.mean([o.loss for o in outcomes]))
    base_loss = float(np.mean([o.loss for o in baseline]))
    return score >= base - (0.5 if "CNN" in task.name else 0.3) and loss <= 1.15 * base_loss


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line a mode. Returns 1 if a mode misses the bar or an ablation meets it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), default="mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--optimizer", choices=sorted(OPTIMIZERS), default="momentum")
    parser.add_argument("--modes", nargs="*", choices=sorted(MODES), default=None)
    parser.add_argument("--steps", type=int, default=None)
    add_out(parser)
    chosen = parser.parse_args(arguments)
    task = TASKS[chosen.task]()
    if chosen.steps:
        task = Task(**{**task.__dict__, "steps": chosen.steps})
    baseline: list[Outcome] = []
    missed = 0
    for mode in ["fp32", *(name for name in (chosen.modes or MODES) if name != "fp32")]:
        began = time.monotonic()
        outcomes = [train(task, MODES[mode], seed, chosen.optimizer) for seed in range(chosen.seeds)]
        baseline = baseline or outcomes
        good = holds(task, baseline, outcomes)
        missed += good if mode.startswith("ablation") else not good
        scores = [o.score for o in outcomes]
        line = {
            "task": task.name,
            "optimizer": chosen.optimizer,
            "mode": mode,
            "seeds": chosen.seeds,
            task.unit: round(float(np.mean(scores)), 3),
            "standard error": round(float(np.std(scores, ddof=1) / np.sqrt(len(scores))), 3)
            if len(scores) > 1
            else None,
            "loss": round(float(np.mean([o.loss for o in outcomes])), 5),
            "fewer bytes": round(float(np.mean([o.fewer for o in outcomes])), 1),
            "meets the bar": good,
            "seconds": round(time.monotonic() - began, 1),
        }
        tell(line, chosen.out)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
