"""Several ranks exchange gradients; the ranks are threads of this process."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tony.gradients import agreement
from tony.gradients.checkpoint import file_name, restore, save
from tony.gradients.errors import BadGradient, GradientError, RanksDisagree, ResidualMismatch
from tony.gradients.exchange import Averages, Exchange, Settings
from tony.gradients.feedback import Feedback
from tony.gradients.quantizer import CODEC_VERSION, Scheme
from tony.gradients.threads import ThreadTransport, run_ranks

SHAPES = {"dense/kernel": (60, 70), "dense/bias": (70,), "out/kernel": (70, 40), "tiny": (3, 3)}
FOUR_BITS = Settings(Scheme(4), bucket_bytes=16_384)


def gradients(rank: int, step: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng([rank, step])
    return [(name, random.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()]


def copied(averages: Averages) -> list[np.ndarray]:
    return [array.copy() for array in averages.arrays]


def exact_mean(size: int, step: int) -> list[np.ndarray]:
    every = [gradients(rank, step) for rank in range(size)]
    return [np.mean([every[rank][i][1] for rank in range(size)], axis=0) for i in range(len(SHAPES))]


def all_raise(size: int, work: Callable[[ThreadTransport], Any], kind: type[Exception]) -> list[str]:
    results = run_ranks(size, work, timeout_s=5)
    for result in results:
        assert isinstance(result, GradientError), result
    assert any(isinstance(result, kind) for result in results)
    return [str(result) for result in results]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize(
    "scheme",
    [Scheme(2), Scheme(4), Scheme(8), Scheme(2, "stochastic"), Scheme(4, "stochastic", "l2")],
)
def test_all_ranks_get_the_same_bits(size: int, scheme: Scheme) -> None:
    def work(transport: ThreadTransport) -> list[bytes]:
        exchange = Exchange(transport, Settings(scheme, bucket_bytes=16_384))
        return [
            b"".join(a.tobytes() for a in exchange.average(gradients(transport.rank, s)).arrays) for s in range(3)
        ]

    results = run_ranks(size, work)
    assert all(isinstance(result, list) and result == results[0] for result in results)


@pytest.mark.parametrize(("size", "bits", "error"), [(2, 8, 0.03), (3, 8, 0.04), (4, 4, 0.5), (2, 4, 0.5)])
def test_the_average_is_near_the_mean_and_exempt_tensors_are_exact(size: int, bits: int, error: float) -> None:
    def work(transport: ThreadTransport) -> list[np.ndarray]:
        return copied(Exchange(transport, Settings(Scheme(bits))).average(gradients(transport.rank, 0)))

    result = run_ranks(size, work)[0]
    assert isinstance(result, list)
    for got, wanted, name in zip(result, exact_mean(size, 0), SHAPES, strict=True):
        assert got.shape == wanted.shape
        limit = 1e-6 if name in ("dense/bias", "tiny") else error
        assert np.abs(got - wanted).max() < limit, name


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("scheme", [Scheme(2), Scheme(4)])
def test_over_time_nothing_is_lost(size: int, scheme: Scheme) -> None:
    """Sum of averages, plus what ranks and owners still owe, is the sum of the means."""
    steps = 30

    def work(transport: ThreadTransport) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        exchange = Exchange(transport, Settings(scheme, bucket_bytes=1 << 20))
        total = np.zeros(60 * 70)
        for step in range(steps):
            total += exchange.average(gradients(transport.rank, step)).arrays[0].reshape(-1)
        part = exchange.parts[0]
        return total, part.residuals[0].copy(), part.residuals[1].copy()

    results = run_ranks(size, work)
    wanted = np.sum([exact_mean(size, step)[0] for step in range(steps)], axis=0).reshape(-1)
    owed = np.mean([result[1] for result in results], axis=0)  # type: ignore[index]
    if size > 2:
        owed = owed + np.concatenate([result[2] for result in results])  # type: ignore[index]
    offset = len(owed) - (-(-4200 // 512) * 512)
    total = results[0][0]  # type: ignore[index]
    assert np.abs(total - wanted).max() > 0.01
    assert np.abs(total + owed[offset : offset + 4200] - wanted).max() < 1e-4


def test_without_owner_residual_something_is_lost() -> None:
    def work(transport: ThreadTransport) -> float:
        exchange = Exchange(transport, Settings(Scheme(2), server_feedback=False))
        for step in range(3):
            exchange.average(gradients(transport.rank, step))
        return float(np.abs(exchange.parts[0].residuals[1]).max())

    assert run_ranks(3, work) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("where", ["dense/kernel", "tiny"])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_nan_in_one_rank_makes_all_skip_and_changes_no_residual(size: int, where: str, poison: float) -> None:
    def work(transport: ThreadTransport) -> tuple[list[bool], bool, bytes]:
        exchange = Exchange(transport, FOUR_BITS)
        finite = [exchange.average(gradients(transport.rank, 0)).finite]
        before = [residual.copy() for part in exchange.parts for residual in part.residuals]
        bad = gradients(transport.rank, 1)
        if transport.rank == 1:
            dict(bad)[where][0, 1] = poison
        finite.append(exchange.average(bad).finite)
        after = [residual for part in exchange.parts for residual in part.residuals]
        same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        last = exchange.average(gradients(transport.rank, 2))
        return [*finite, last.finite], same, last.arrays[0].tobytes()

    results = run_ranks(size, work)
    for result in results:
        assert isinstance(result, tuple), result
        assert result[0] == [True, False, True] and result[1] and result[2] == results[0][2]  # type: ignore[index]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_bytes_are_those_of_the_formula(size: int) -> None:
    shapes = {"a": (512, 64)}

    def work(transport: ThreadTransport) -> int:
        return Exchange(transport, Settings(Scheme(2))).average(gradients(transport.rank, 0, shapes)).sent_bytes

    elements = 512 * 64
    per_element = 0.25 + 2 / 512
    wanted = (1 if size == 2 else 2 * (size - 1) / size) * elements * per_element
    for sent in run_ranks(size, work):
        assert sent == pytest.approx(wanted, rel=0.02)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 3])
def test_without_bits_everything_is_exact(size: int) -> None:
    def work(transport: ThreadTransport) -> list[np.ndarray]:
        return copied(Exchange(transport, Settings(None)).average(gradients(transport.rank, 0)))

    result = run_ranks(size, work)[0]
    for got, wanted in zip(result, exact_mean(size, 0), strict=True):  # type: ignore[arg-type]
        assert np.abs(got - wanted).max() < 1e-6


def test_a_single_rank_gets_its_own_gradient_back() -> None:
    result = run_ranks(1, lambda transport: copied(Exchange(transport, FOUR_BITS).average(gradients(0, 0))))[0]
    for got, (_, wanted) in zip(result, gradients(0, 0), strict=True):  # type: ignore[arg-type]
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("size", [2, 3])
def test_a_flush_sends_all_that_is_owed(size: int) -> None:
    def work(transport: ThreadTransport) -> tuple[np.ndarray, float]:
        exchange = Exchange(transport, Settings(Scheme(2), bucket_bytes=16_384))
        total = np.zeros((60, 70))
        for step in range(6):
            total += exchange.average(gradients(transport.rank, step), flush=step == 5).arrays[0]
        return total, exchange.residual_norm()

    wanted = np.sum([exact_mean(size, step)[0] for step in range(6)], axis=0)
    for result in run_ranks(size, work):
        assert np.abs(result[0] - wanted).max() < 1e-4 and result[1] == 0.0  # type: ignore[index]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_with_another_shape_all_learn_the_tensor_and_both_shapes(size: int) -> None:
    def work(transport: ThreadTransport) -> None:
        exchange = Exchange(transport, FOUR_BITS)
        exchange.average(gradients(transport.rank, 0))
        shapes = SHAPES | {"out/kernel": (70, 41)} if transport.rank == 1 else SHAPES
        exchange.average(gradients(transport.rank, 1, shapes))

    for message in all_raise(size, work, RanksDisagree):
        assert "'out/kernel'" in message and "(70, 40)" in message and "(70, 41)" in message


@pytest.mark.parametrize(
    "change",
    [{"up": Scheme(8)}, {"seed": 3}, {"up": None}, {"feedback": Feedback(beta=0.5)}, {"exempt": ("out",)}],
)
def test_ranks_with_other_settings_all_refuse(change: dict) -> None:
    def work(transport: ThreadTransport) -> None:
        settings = dataclasses.replace(FOUR_BITS, **change) if transport.rank == 2 else FOUR_BITS
        Exchange(transport, settings).average(gradients(transport.rank, 0))

    for message in all_raise(3, work, RanksDisagree):
        assert next(iter(change)) in message


def test_a_rank_with_another_codec_version_is_refused_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class NextVersion(agreement.Agreement):
        def header(self, digest: bytes) -> bytes:
            return super().header(digest)[:4] + struct.pack("<H", CODEC_VERSION + 1) + super().header(digest)[6:]

        def text(self) -> bytes:
            return super().text().replace(b'"codec": %d' % CODEC_VERSION, b'"codec": %d' % (CODEC_VERSION + 1))

    def work(transport: ThreadTransport) -> None:
        exchange = Exchange(transport, FOUR_BITS)
        if transport.rank == 1:
            original = exchange._round

            def other(parts: Any, header: bytes, mine: agreement.Agreement) -> int:
                mine = NextVersion(mine.settings, mine.tensors, mine.step)
                return original(parts, mine.header(header[16:]), mine)

            exchange._round = other  # type: ignore[method-assign]
        exchange.average(gradients(transport.rank, 0))

    for message in all_raise(3, work, RanksDisagree):
        assert "codec version" in message


@pytest.mark.parametrize("size", [2, 3])
def test_an_integer_gradient_on_one_rank_is_an_error_on_all(size: int) -> None:
    def work(transport: ThreadTransport) -> None:
        mine: list[tuple[str, Any]] = list(gradients(transport.rank, 0))
        if transport.rank == 1:
            mine[2] = (mine[2][0], mine[2][1].astype(np.int32))
        Exchange(transport, FOUR_BITS).average(mine)

    for message in all_raise(size, work, BadGradient):
        assert "'out/kernel' is int32" in message


def test_ranks_at_other_steps_refuse() -> None:
    def work(transport: ThreadTransport) -> None:
        exchange = Exchange(transport, FOUR_BITS)
        exchange.step = transport.rank
        exchange.average(gradients(transport.rank, 0))

    for message in all_raise(2, work, RanksDisagree):
        assert "step 0" in message and "step 1" in message


def test_a_new_layout_on_all_ranks_keeps_what_the_tensors_that_stay_are_owed() -> None:
    def work(transport: ThreadTransport) -> bool:
        exchange = Exchange(transport, FOUR_BITS)
        exchange.average(gradients(transport.rank, 0))
        place = exchange.layout.places[2]  # type: ignore[union-attr]
        owed = exchange.parts[place.bucket].residuals[0][place.offset : place.offset + 2800].copy()
        exchange._build(exchange.lay_out(exchange.layout.tensors[1:]))  # type: ignore[union-attr]
        place = exchange.layout.places[1]  # type: ignore[union-attr]
        now = exchange.parts[place.bucket].residuals[0][place.offset : place.offset + 2800]
        return bool(owed.any()) and np.array_equal(owed, now)

    assert run_ranks(3, work) == [True, True, True]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("scheme", [Scheme(4), Scheme(2, "stochastic")])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted_one(size: int, scheme: Scheme, tmp_path: Path) -> None:
    settings = Settings(scheme, bucket_bytes=16_384)

    def steps(exchange: Exchange, rank: int, first: int, last: int) -> list[bytes]:
        return [
            b"".join(a.tobytes() for a in exchange.average(gradients(rank, step)).arrays)
            for step in range(first, last)
        ]

    def whole(transport: ThreadTransport) -> list[bytes]:
        return steps(Exchange(transport, settings), transport.rank, 0, 8)

    def begin(transport: ThreadTransport) -> None:
        exchange = Exchange(transport, settings)
        steps(exchange, transport.rank, 0, 5)
        save(exchange, tmp_path)

    def resume(transport: ThreadTransport) -> list[bytes]:
        exchange = Exchange(transport, settings)
        assert restore(exchange, tmp_path) == 5
        return steps(exchange, transport.rank, 5, 8)

    uninterrupted = run_ranks(size, whole)[0]
    assert run_ranks(size, begin) == [None] * size
    for result in run_ranks(size, resume):
        assert result == uninterrupted[5:]  # type: ignore[index]


def saved(folder: Path, size: int = 3) -> None:
    def work(transport: ThreadTransport) -> None:
        exchange = Exchange(transport, FOUR_BITS)
        exchange.average(gradients(transport.rank, 0))
        save(exchange, folder)

    assert run_ranks(size, work) == [None] * size


def test_residuals_of_another_model_are_refused_by_all(tmp_path: Path) -> None:
    saved(tmp_path)

    def work(transport: ThreadTransport) -> None:
        exchange = Exchange(transport, FOUR_BITS)
        restore(exchange, tmp_path)
        exchange.average(gradients(transport.rank, 1, SHAPES | {"dense/kernel": (60, 71)}))

    for message in all_raise(3, work, ResidualMismatch):
        assert "dense/kernel" in message and "(60, 70)" in message and "(60, 71)" in message


def test_residuals_of_another_world_size_are_refused_by_all(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    all_raise(2, lambda transport: restore(Exchange(transport, FOUR_BITS), tmp_path), ResidualMismatch)


def test_a_damaged_file_of_one_rank_is_an_error_on_all(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / file_name(1, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for message in all_raise(
        3, lambda transport: restore(Exchange(transport, FOUR_BITS), tmp_path), ResidualMismatch
    ):
        assert "damaged" in message


def test_residuals_of_other_bits_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    all_raise(3, lambda transport: restore(Exchange(transport, Settings(Scheme(2))), tmp_path), ResidualMismatch)


@pytest.mark.parametrize(("old", "new"), [(4, 2), (4, 3), (3, 4), (2, 3)])
def test_a_resized_world_owes_what_the_old_one_owed(old: int, new: int, tmp_path: Path) -> None:
    settings = Settings(Scheme(2))

    def owed(exchange: Exchange) -> list[np.ndarray]:
        return [residual.copy() for residual in exchange.parts[0].residuals]

    def before(transport: ThreadTransport) -> list[np.ndarray]:
        exchange = Exchange(transport, settings)
        for step in range(3):
            exchange.average(gradients(transport.rank, step))
        save(exchange, tmp_path)
        return owed(exchange)

    def after(transport: ThreadTransport) -> list[np.ndarray]:
        exchange = Exchange(transport, settings)
        restore(exchange, tmp_path, resize=True)
        return owed(exchange)

    def total(results: list[Any]) -> np.ndarray:
        up = np.mean([result[0] for result in results], axis=0)
        return up + np.concatenate([result[1] for result in results]) if len(results) > 2 else up

    assert np.allclose(total(run_ranks(old, before)), total(run_ranks(new, after)), atol=1e-5)
