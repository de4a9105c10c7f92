"""Which way gradients travel is found out by all ranks alike, whatever each of them measures."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tony.gradients.auto import AutoExchange, Trial, exchange_for
from tony.gradients.checkpoint import restore, save
from tony.gradients.errors import RanksDisagree
from tony.gradients.exchange import Exchange, Settings
from tony.gradients.quantizer import Bytes, Floats, Scheme
from tony.gradients.request import settings_for
from tony.gradients.threads import ThreadTransport, run_ranks

SHAPES = {"kernel": (60, 70), "bias": (70,), "tiny": (3, 3)}
AUTO = Settings(Scheme(4), ways=(32, 16, 8, 4))


def gradients(rank: int, step: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng([rank, step])
    return [(name, random.standard_normal(shape).astype(np.float32)) for name, shape in SHAPES.items()]


def tried(trial: Trial, ranks: list[dict[int, float]], compute_s: float = 0.0) -> tuple[int, int]:
    """Run a trial with those seconds for each way on each rank; the bits decided and the steps it took."""
    trials = [Trial(trial.left) for _ in ranks]
    for steps in itertools.count(1):
        ends = [t.note(times[t.bits], compute_s) for t, times in zip(trials, ranks, strict=True)]
        assert len(set(ends)) == 1
        if ends[0]:
            answers: list[Bytes] = [t.measured() for t in trials]
            decisions = [t.settle(answers) for t in trials]
            assert all(decision == decisions[0] for decision in decisions)
            if decisions[0]:
                return decisions[0].bits, steps
    raise AssertionError


@pytest.mark.parametrize(
    ("seconds", "compute_s", "bits"),
    [
        ({32: 2.3, 16: 1.2, 8: 0.6, 4: 0.3}, 0.0, 4),
        ({32: 2.3, 16: 1.2, 8: 0.301, 4: 0.3}, 0.0, 8),
        ({32: 0.13, 16: 0.14, 8: 0.15, 4: 0.14}, 0.0, 32),
        ({32: 0.14, 16: 0.13, 8: 0.15, 4: 0.14}, 0.0, 16),
        ({32: 2.3, 16: 1.2, 8: 0.6, 4: 0.3}, 200.0, 32),
        ({32: 2.3, 16: 1.2, 8: 0.6, 4: 0.3}, 50.0, 16),
    ],
)
def test_the_most_exact_way_of_those_that_are_fast_is_chosen(
    seconds: dict[int, float], compute_s: float, bits: int
) -> None:
    assert tried(Trial((32, 16, 8, 4)), [seconds, seconds], compute_s)[0] == bits


def test_the_slowest_rank_counts() -> None:
    fast, slow = {32: 0.1, 8: 0.2, 4: 0.2}, {32: 4.0, 8: 0.3, 4: 0.2}
    assert tried(Trial((32, 8, 4)), [fast, fast, slow, fast])[0] == 4


def test_a_hopeless_way_is_not_tried_to_the_end() -> None:
    steps = tried(Trial((32, 16, 8, 4)), [{32: 9.0, 16: 5.0, 8: 1.0, 4: 0.9}] * 2)[1]
    assert steps == 2 * 4 + 3 * 2


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_clock_that_fails_on_one_rank_still_gives_one_decision(poison: float) -> None:
    good = {32: 0.1, 8: 0.2, 4: 0.3}
    assert tried(Trial((32, 8, 4)), [good, dict.fromkeys(good, poison), good])[0] in (32, 8, 4)


class Clock:
    """Time that each rank lives through at a speed of its own."""

    def __init__(self, rank: int) -> None:
        self._random = np.random.default_rng([5, rank])
        self._now = 0.0

    def __call__(self) -> float:
        self._now += float(self._random.exponential(1.0))
        return self._now


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_measure_differently_agree_and_have_the_same_bits(size: int) -> None:
    def work(transport: ThreadTransport) -> tuple[list[int], list[bytes]]:
        exchange = AutoExchange(transport, AUTO, clock=Clock(transport.rank))
        ways, averages = [], []
        for step in range(60):
            result = exchange.average(gradients(transport.rank, step))
            ways.append(exchange.bits)
            averages.append(b"".join(array.tobytes() for array in result.arrays))
        assert exchange.decision is not None and not exchange.deciding
        return ways, averages

    results = run_ranks(size, work)
    assert all(isinstance(result, tuple) and result == results[0] for result in results)
    assert set(results[0][0]) == {4, 8, 16, 32}  # type: ignore[index]


def test_nothing_is_lost_while_it_is_being_found_out() -> None:
    steps = 40

    def work(transport: ThreadTransport) -> tuple[np.ndarray, np.ndarray]:
        exchange = AutoExchange(transport, Settings(Scheme(4), ways=(32, 8, 4, 2)), clock=Clock(transport.rank))
        total = np.zeros((60, 70))
        for step in range(steps):
            total += exchange.average(gradients(transport.rank, step), flush=step == steps - 1).arrays[0]
        return total

    wanted = np.sum([[gradients(rank, step)[0][1] for rank in range(3)] for step in range(steps)], axis=(0, 1)) / 3
    for total in run_ranks(3, work):
        assert np.abs(total - wanted).max() < 1e-4  # type: ignore[operator]


def test_a_transport_without_floats_of_its_own_decides_as_well() -> None:
    class Plain:
        """Only the two calls that every transport has."""

        def __init__(self, inner: ThreadTransport) -> None:
            self.rank, self.size = inner.rank, inner.size
            self.alltoall, self.allgather = inner.alltoall, inner.allgather

    def work(transport: ThreadTransport) -> int:
        exchange = AutoExchange(Plain(transport), AUTO, clock=Clock(transport.rank))
        for step in range(40):
            exchange.average(gradients(transport.rank, step))
        assert exchange.decision is not None
        return exchange.decision.bits

    bits = run_ranks(2, work)
    assert bits[0] == bits[1] and bits[0] in (32, 8, 4)


def test_the_decision_is_logged_in_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    def work(transport: ThreadTransport) -> None:
        exchange = AutoExchange(transport, AUTO)
        for step in range(40):
            exchange.average(gradients(transport.rank, step))

    with caplog.at_level(logging.INFO, "tony.gradients.auto"):
        assert run_ranks(2, work) == [None, None]
    sentences = [record.getMessage() for record in caplog.records if record.name == "tony.gradients.auto"]
    assert len(sentences) == 2 and all("gradients travel as" in sentence for sentence in sentences)


def test_a_resumed_run_keeps_the_decision_and_the_bits(tmp_path: Path) -> None:
    def steps(exchange: Exchange, rank: int, first: int, last: int) -> list[bytes]:
        made = [exchange.average(gradients(rank, step)).arrays for step in range(first, last)]
        return [b"".join(array.tobytes() for array in arrays) for arrays in made]

    def whole(transport: ThreadTransport) -> list[bytes]:
        exchange = AutoExchange(transport, Settings(Scheme(4), ways=(8, 4)), clock=Clock(transport.rank))
        steps(exchange, transport.rank, 0, 30)
        assert exchange.decision is not None
        save(exchange, tmp_path)
        return steps(exchange, transport.rank, 30, 34)

    def resumed(transport: ThreadTransport) -> list[bytes]:
        exchange = AutoExchange(transport, Settings(Scheme(4), ways=(8, 4)), clock=Clock(transport.rank))
        assert restore(exchange, tmp_path) == 30 and not exchange.deciding
        return steps(exchange, transport.rank, 30, 34)

    uninterrupted = run_ranks(3, whole)
    assert isinstance(uninterrupted[0], list) and run_ranks(3, resumed) == uninterrupted


def test_a_rank_that_was_given_bits_is_refused_by_those_that_choose() -> None:
    def work(transport: ThreadTransport) -> None:
        settings = settings_for(4 if transport.rank == 1 else "auto")
        exchange_for(transport, settings).average(gradients(transport.rank, 0))

    for result in run_ranks(3, work, timeout_s=5):
        assert isinstance(result, RanksDisagree), result


def floats_of(transport: ThreadTransport, bits: int) -> Exchange:
    """An exchange that has agreed already and uses the transport's own average."""
    exchange = Exchange(transport, Settings(Scheme(4)))
    exchange.average(gradients(transport.rank, 0))
    exchange.travel(bits)
    return exchange


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("bits", [16, 32])
def test_floats_carry_what_codes_owed(size: int, bits: int) -> None:
    def work(transport: ThreadTransport) -> tuple[Floats, float]:
        exchange = Exchange(transport, Settings(Scheme(2)))
        total = exchange.average(gradients(transport.rank, 0)).arrays[0].copy()
        exchange.travel(bits)
        total += exchange.average(gradients(transport.rank, 1)).arrays[0]
        return total, exchange.residual_norm()

    wanted = np.mean([gradients(r, 0)[0][1] + gradients(r, 1)[0][1] for r in range(size)], axis=0)
    for total, owed in run_ranks(size, work):  # type: ignore[misc]
        assert np.abs(total - wanted).max() < (1e-5 if bits == 32 else 0.02) and owed == 0.0


def test_a_gradient_that_float16_cannot_hold_goes_as_float32_from_then_on() -> None:
    def work(transport: ThreadTransport) -> tuple[bool, float, int]:
        exchange = floats_of(transport, 16)
        large = gradients(transport.rank, 1)
        large[0][1][0, 0] = 1e6
        result = exchange.average(large)
        return result.finite, float(result.arrays[0][0, 0]), exchange.bits

    assert run_ranks(3, work) == [(True, pytest.approx(1e6), 32)] * 3


@pytest.mark.parametrize("bits", [16, 32])
def test_a_nan_in_floats_is_skipped_by_all_and_the_next_step_is_normal(bits: int) -> None:
    def work(transport: ThreadTransport) -> tuple[list[bool], int]:
        exchange = floats_of(transport, bits)
        bad = gradients(transport.rank, 1)
        if transport.rank == 1:
            bad[0][1][3, 3] = np.nan
        finite = [exchange.average(bad).finite, exchange.average(gradients(transport.rank, 2)).finite]
        return finite, exchange.bits

    assert run_ranks(3, work) == [([False, True], bits)] * 3


def test_another_shape_while_floats_travel_is_an_error_on_all() -> None:
    def work(transport: ThreadTransport) -> None:
        exchange = floats_of(transport, 32)
        exchange.average(gradients(transport.rank, 1))
        changed = gradients(transport.rank, 2)
        if transport.rank == 2:
            changed[0] = ("kernel", np.ones((60, 71), np.float32))
        exchange.average(changed)

    for result in run_ranks(3, work, timeout_s=5):
        assert isinstance(result, RanksDisagree) and "(60, 70)" in str(result) and "(60, 71)" in str(result)


def test_an_integer_on_one_rank_while_floats_travel_is_an_error_on_all() -> None:
    def work(transport: ThreadTransport) -> None:
        exchange = floats_of(transport, 32)
        changed = gradients(transport.rank, 1)
        if transport.rank == 0:
            changed[0] = ("kernel", np.ones((60, 70), np.int64))
        exchange.average(changed)

    for result in run_ranks(3, work, timeout_s=5):
        assert "'kernel' is int64" in str(result)


def test_a_new_layout_on_all_ranks_while_floats_travel_is_taken() -> None:
    def work(transport: ThreadTransport) -> list[tuple[int, ...]]:
        exchange = floats_of(transport, 32)
        exchange.average(gradients(transport.rank, 1)[:2])
        return [array.shape for array in exchange.average(gradients(transport.rank, 2)[:2]).arrays]

    assert run_ranks(3, work) == [[(60, 70), (70,)]] * 3


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield
