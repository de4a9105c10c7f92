"""The mode that sends few elements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tony.gradients.checkpoint import restore, save
from tony.gradients.errors import BadSetting, RanksDisagree
from tony.gradients.exchange import Exchange, Settings
from tony.gradients.quantizer import BLOCK, Floats
from tony.gradients.report import report
from tony.gradients.request import settings_for
from tony.gradients.sparse import Sparse, sparsify, spread
from tony.gradients.threads import ThreadTransport, run_ranks

SHAPES = {"kernel": (60, 70), "bias": (70,), "tiny": (3, 3)}
SETTINGS = Settings(sparse=Sparse(0.03), exempt_below=0, bucket_bytes=8192)


def gradients(rank: int, step: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng([rank, step])
    return [(name, random.standard_normal(shape).astype(np.float32)) for name, shape in SHAPES.items()]


def vectors() -> dict[str, Floats]:
    random = np.random.default_rng(4)
    normal = random.standard_normal(6 * BLOCK).astype(np.float32)
    lonely = np.zeros(6 * BLOCK, np.float32)
    lonely[[0, 5 * BLOCK - 1, 6 * BLOCK - 1]] = [1.0, -2.0, 3.0]
    return {
        "normal": normal,
        "zeros": np.zeros(6 * BLOCK, np.float32),
        "a few far apart": lonely,
        "all equal": np.full(6 * BLOCK, -0.25, np.float32),
        "denormal": np.full(6 * BLOCK, 1e-41, np.float32),
        "wide": normal * np.exp2(random.integers(-40, 40, 6 * BLOCK)).astype(np.float32),
    }


@pytest.mark.parametrize("kind", list(vectors()))
@pytest.mark.parametrize("most", [1, 15, 128])
def test_what_is_sent_and_what_is_kept_make_the_whole(kind: str, most: int) -> None:
    values = vectors()[kind]
    units, codes, rest = sparsify(values, most)
    out = np.zeros_like(values)
    spread(units, codes, 1.0, out)
    largest = np.abs(values).reshape(-1, BLOCK).max(axis=1)
    assert (np.abs(out + rest - values).reshape(-1, BLOCK).max(axis=1) <= 1e-6 * largest).all()
    sent = (out.reshape(-1, BLOCK) != 0).sum(axis=1)
    if kind == "normal":
        assert (sent == most).all() and len(codes) <= 6 * most + 6 * BLOCK // 127
    if kind in ("zeros", "denormal"):
        assert not sent.any() and len(codes) == 0


def test_the_largest_are_sent() -> None:
    values = vectors()["normal"]
    _, _, rest = sparsify(values, 10)
    for block, left in zip(values.reshape(-1, BLOCK), rest.reshape(-1, BLOCK), strict=True):
        sent = np.abs(block[left != block])
        assert len(sent) == 10 and sent.min() >= np.sort(np.abs(block))[-10]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38])
def test_a_block_that_is_not_finite_sends_nothing_and_says_so(poison: float) -> None:
    values = vectors()["normal"]
    values[BLOCK + 3] = poison
    units, codes, _ = sparsify(values, 15)
    assert np.isnan(units).tolist() == [False, True, False, False, False, False]
    out = np.zeros_like(values)
    spread(units, codes, 1.0, out)
    assert np.isnan(out.reshape(-1, BLOCK)).any(axis=1).tolist() == np.isnan(units).tolist()


def test_bytes_that_reach_beyond_the_bucket_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        spread(np.ones(1, np.float32), np.array([127, 127, 127, 127, 10], np.uint8), 1.0, np.zeros(BLOCK, np.float32))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_ranks_get_the_same_bits_and_nothing_is_lost(size: int) -> None:
    steps = 25

    def work(transport: ThreadTransport) -> tuple[np.ndarray, list[bytes]]:
        exchange = Exchange(transport, SETTINGS)
        total, bits = np.zeros((60, 70)), []
        for step in range(steps):
            arrays = exchange.average(gradients(transport.rank, step), flush=step == steps - 1).arrays
            total += arrays[0]
            bits.append(b"".join(array.tobytes() for array in arrays))
        assert exchange.residual_norm() == 0.0
        return total, bits

    results = run_ranks(size, work)
    wanted = np.sum([gradients(rank, step)[0][1] for rank in range(size) for step in range(steps)], axis=0) / size
    for result in results:
        assert isinstance(result, tuple), result
        assert result[1] == results[0][1]  # type: ignore[index]
        assert np.abs(result[0] - wanted).max() < 1e-4


def test_it_takes_a_hundred_times_fewer_bytes_than_a_ring() -> None:
    shape = (512, 256)

    def work(transport: ThreadTransport) -> tuple[int, float]:
        exchange = Exchange(transport, settings_for(mode="sparse", density=0.03))
        sent = 0
        for step in range(5):
            random = np.random.default_rng([transport.rank, step])
            sent = exchange.average([("w", random.standard_normal(shape).astype(np.float32))]).sent_bytes
        return sent, report(exchange)[0].bytes_per_step

    for sent, told in run_ranks(4, work):  # type: ignore[misc]
        assert 2 * 3 / 4 * 4 * 512 * 256 / sent > 100
        assert told == pytest.approx(sent, rel=0.1)


@pytest.mark.parametrize("size", [2, 3])
def test_a_nan_on_one_rank_is_skipped_by_all_and_changes_no_residual(size: int) -> None:
    def work(transport: ThreadTransport) -> tuple[list[bool], bool, bytes]:
        exchange = Exchange(transport, SETTINGS)
        finite = [exchange.average(gradients(transport.rank, 0)).finite]
        before = [residual.copy() for part in exchange.parts for residual in part.residuals]
        bad = gradients(transport.rank, 1)
        if transport.rank == 1:
            bad[0][1][7, 7] = np.nan
        finite.append(exchange.average(bad).finite)
        after = [residual for part in exchange.parts for residual in part.residuals]
        same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        last = exchange.average(gradients(transport.rank, 2))
        return [*finite, last.finite], same, last.arrays[0].tobytes()

    results = run_ranks(size, work)
    for result in results:
        assert isinstance(result, tuple), result
        assert result[0] == [True, False, True] and result[1] and result[2] == results[0][2]  # type: ignore[index]


def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(tmp_path: Path) -> None:
    def steps(exchange: Exchange, rank: int, first: int, last: int) -> list[bytes]:
        made = [exchange.average(gradients(rank, step)).arrays for step in range(first, last)]
        return [b"".join(array.tobytes() for array in arrays) for arrays in made]

    def whole(transport: ThreadTransport) -> list[bytes]:
        exchange = Exchange(transport, SETTINGS)
        steps(exchange, transport.rank, 0, 4)
        save(exchange, tmp_path)
        return steps(exchange, transport.rank, 4, 7)

    def resumed(transport: ThreadTransport) -> list[bytes]:
        exchange = Exchange(transport, SETTINGS)
        assert restore(exchange, tmp_path) == 4
        return steps(exchange, transport.rank, 4, 7)

    uninterrupted = run_ranks(3, whole)
    assert isinstance(uninterrupted[0], list) and run_ranks(3, resumed) == uninterrupted


def test_ranks_of_another_density_all_refuse() -> None:
    def work(transport: ThreadTransport) -> None:
        settings = settings_for(mode="sparse", density=0.03 if transport.rank else 0.04)
        Exchange(transport, settings).average(gradients(transport.rank, 0))

    for result in run_ranks(3, work, timeout_s=5):
        assert isinstance(result, RanksDisagree) and "sparse" in str(result)


@pytest.mark.parametrize(
    "arguments", [{"bits": 4}, {"alpha": 1.0}, {"beta": 0.5}, {"density": 0.0}, {"density": 0.5}]
)
def test_settings_that_this_mode_does_not_have_are_refused(arguments: dict) -> None:
    with pytest.raises(BadSetting):
        settings_for(mode="sparse", **arguments)


def test_the_bits_of_the_job_do_not_disturb_a_script_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONY_QUANTIZE", "4")
    assert settings_for(mode="sparse").sparse == Sparse(0.05)
