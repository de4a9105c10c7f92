"""The codes and the feedback of one rank."""

from __future__ import annotations

import numpy as np
import pytest

from tony.gradients.codec.reference import Reference
from tony.gradients.errors import BadSetting
from tony.gradients.feedback import Coefficients, Feedback, encode_blocks, measured_gamma
from tony.gradients.quantizer import (
    BLOCK,
    LEVELS,
    Scheme,
    blocks_of,
    dequantize,
    dither,
    pack,
    quantize,
    stream_key,
    unpack,
)


def gaussian(blocks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((blocks, BLOCK)).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packed_codes_come_back(bits: int) -> None:
    levels = LEVELS[bits]
    codes = np.random.default_rng(1).integers(-levels, levels + 2, (5, BLOCK)).astype(np.int32)
    packed = pack(codes, bits)
    assert packed.shape == (5, Scheme(bits).block_bytes)
    assert np.array_equal(unpack(packed, bits), codes)


def test_two_bit_bytes_hold_elements_a_quarter_block_apart() -> None:
    codes = np.full((1, BLOCK), -1, np.int32)
    codes[0, 3], codes[0, 3 + 128], codes[0, 3 + 256] = 1, 0, 1
    assert pack(codes, 2)[0, 3] == 2 | 1 << 2 | 2 << 4


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nearest_is_within_half_a_unit(bits: int) -> None:
    values = gaussian(4)
    result = quantize(values, Scheme(bits))
    error = np.abs(values - dequantize(result.units, result.codes))
    unit = np.abs(result.units[:, None])
    cut_off = -values * np.sign(result.units[:, None]) > (LEVELS[bits] + 0.5) * unit
    assert (error[~cut_off] <= np.broadcast_to(unit, error.shape)[~cut_off] * 0.5001).all()
    assert (error <= np.abs(values)).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_fourth_code_of_two_bits_is_on_the_side_of_the_largest_element(bits: int, sign: int) -> None:
    values = np.zeros((1, BLOCK), np.float32)
    values[0, :3] = np.float32(sign) * np.array([8, -8.0 + 2**-10, 2.5], np.float32)
    result = quantize(values, Scheme(bits))
    levels = LEVELS[bits]
    assert result.units[0] == sign * 8 / (levels + 1)
    assert result.codes[0, 0] == levels + 1 and result.codes[0, 1] == -levels
    symmetric = quantize(values, Scheme(bits, "stochastic"))
    assert symmetric.units[0] > 0 and np.abs(symmetric.codes).max() <= levels


def test_two_bits_leave_a_quarter_of_a_gaussian_at_most() -> None:
    values = gaussian(50)
    result = quantize(values, Scheme(2))
    left = values - dequantize(result.units, result.codes)
    assert float((left**2).sum() / (values**2).sum()) < 0.25  # symmetric codes leave 0.6


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("norm", ["max", "l2"])
def test_stochastic_rounding_is_unbiased(bits: int, norm: str) -> None:
    values = gaussian(1)
    scheme = Scheme(bits, "stochastic", norm)  # type: ignore[arg-type]
    total = np.zeros_like(values, dtype=np.float64)
    steps = 600
    for step in range(steps):
        result = quantize(values, scheme, stream_key(1, step, 0, 0, 0))
        total += dequantize(result.units, result.codes)
    unit = float(result.units[0])
    spread = unit * 0.5 / np.sqrt(steps)
    assert abs((total / steps - values).mean()) < 5 * spread / np.sqrt(BLOCK)
    assert np.abs(total / steps - values).max() < 6 * spread


def test_dither_depends_on_every_word_of_its_key() -> None:
    keys = {
        stream_key(*words)
        for words in [
            (0, 0, 0, 0, 0),
            (1, 0, 0, 0, 0),
            (0, 1, 0, 0, 0),
            (0, 0, 1, 0, 0),
            (0, 0, 0, 1, 0),
            (0, 0, 0, 0, 1),
        ]
    }
    assert len(keys) == 6
    assert np.array_equal(dither(7, 3 * BLOCK, 2), dither(7, 0, 5)[3:])
    numbers = dither(3, 0, 200).reshape(-1)
    assert numbers.min() >= 0 and numbers.max() < 65536
    assert abs(float(numbers.mean()) / 65535 - 0.5) < 0.005 and abs(float(numbers.var()) / 65536**2 - 1 / 12) < 0.001


@pytest.mark.parametrize("lag", [1, 2, 3, 255, 256, 257, 512])
def test_dither_of_neighbours_and_of_halves_of_a_hash_is_independent(lag: int) -> None:
    numbers = np.stack([dither(stream_key(0, step, 0, 1, 0), 0, 8).reshape(-1) for step in range(200)]) / 65536 - 0.5
    correlation = 12 * float((numbers[:, :-lag] * numbers[:, lag:]).mean())
    assert abs(correlation) < 4 / np.sqrt(numbers.size)


def test_a_zero_block_has_unit_zero_and_no_residual() -> None:
    units, codes, kept, _, bad = encode_blocks(
        np.zeros((2, BLOCK), np.float32), np.zeros((2, BLOCK), np.float32), Scheme(4), 1.0, 1.0, 0, 0
    )
    assert bad == 0 and not units.any() and not kept.any()
    assert not dequantize(units, unpack(codes, 4)).any()


def test_denormals_are_kept_in_the_residual() -> None:
    tiny = np.full((1, BLOCK), 1e-40, np.float32)
    units, _, kept, _, bad = encode_blocks(tiny, np.zeros_like(tiny), Scheme(8), 1.0, 1.0, 0, 0)
    assert bad == 0 and units[0] == 0 and np.array_equal(kept, tiny)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_block_that_is_not_finite_says_so_and_keeps_its_residual(poison: float, bits: int) -> None:
    values, residual = gaussian(3), gaussian(3, 1)
    values[1, 511] = poison
    units, codes, kept, stats, bad = encode_blocks(values, residual, Scheme(bits), 1.0, 1.0, 0, 0)
    assert bad == 1 and np.isnan(units[1]) and np.isfinite(units[[0, 2]]).all()
    assert np.array_equal(kept[1], residual[1])
    assert np.isnan(dequantize(units, unpack(codes, bits))[1]).all()
    assert np.isfinite(measured_gamma(units, stats))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_what_was_sent_plus_the_residual_is_what_came(rounding: str, bits: int, alpha: float) -> None:
    scheme = Scheme(bits, rounding)  # type: ignore[arg-type]
    residual = np.zeros((2, BLOCK), np.float32)
    came, sent = np.zeros((2, BLOCK)), np.zeros((2, BLOCK))
    for step in range(60):
        gradient = gaussian(2, step)
        units, codes, residual, _, _ = encode_blocks(
            gradient, residual, scheme, alpha, 1.0, stream_key(0, step, 0, 0, 0), 0
        )
        came += gradient
        sent += dequantize(units, unpack(codes, bits))
    assert np.abs(sent + residual - came).max() < 1e-4


def test_alpha_is_chosen_from_the_largest_recent_gamma() -> None:
    coefficients = Coefficients(Scheme(2, "stochastic"), Feedback(beta=0.9))
    assert coefficients.alpha < 0.05
    for gamma in (1.0, 3.0, 2.0):
        coefficients.observe(gamma)
    assert coefficients.alpha == pytest.approx(0.9 / 4.0)
    for _ in range(16):
        coefficients.observe(0.5)
    assert coefficients.alpha == pytest.approx(0.9 / 1.5)


def test_rounding_to_nearest_uses_classic_feedback() -> None:
    assert Coefficients(Scheme(2), Feedback()).alpha == 1.0


def test_an_unstable_coefficient_is_used_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    coefficients = Coefficients(Scheme(2, "stochastic", "l2"), Feedback(alpha=1.0))
    coefficients.observe(17.0)
    coefficients.observe(17.0)
    assert coefficients.alpha == 1.0
    assert len(caplog.records) == 1 and "unstable" in caplog.text


@pytest.mark.parametrize(("bits", "norm"), [(2, "max"), (2, "l2"), (4, "l2"), (8, "max")])
def test_the_residual_stays_bounded_for_a_hostile_gradient(bits: int, norm: str) -> None:
    scheme = Scheme(bits, "stochastic", norm)  # type: ignore[arg-type]
    coefficients = Coefficients(scheme, Feedback())
    residual = np.zeros((1, BLOCK), np.float32)
    random = np.random.default_rng(5)
    worst = 0.0
    for step in range(1500):
        gradient = random.standard_normal((1, BLOCK)).astype(np.float32)
        if step % 100 < 50:
            gradient *= 1e-3
            gradient[0, step % BLOCK] = 30.0
        units, _, residual, stats, _ = encode_blocks(
            gradient, residual, scheme, coefficients.alpha, 1.0, stream_key(0, step, 0, 0, 0), 0
        )
        coefficients.observe(measured_gamma(units, stats))
        worst = max(worst, float(np.linalg.norm(residual)))
    assert worst < 100 * np.sqrt(BLOCK)


def test_the_same_gradient_with_alpha_one_and_l2_grows_without_bound() -> None:
    scheme = Scheme(2, "stochastic", "l2")
    residual = np.zeros((1, BLOCK), np.float32)
    for step in range(30):
        _, _, residual, _, _ = encode_blocks(
            gaussian(1, step), residual, scheme, 1.0, 1.0, stream_key(0, step, 0, 0, 0), 0
        )
    assert np.linalg.norm(residual) > 1e4 * np.sqrt(BLOCK)


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 2000])
def test_a_tail_counts_as_zeros(n: int) -> None:
    scheme, codec = Scheme(4), Reference()
    values = gaussian(4).reshape(-1)[:n].copy()
    b = blocks_of(n)
    units, codes = np.zeros(b, np.float32), np.zeros(b * scheme.block_bytes, np.uint8)
    kept, out = np.empty(n, np.float32), np.full(n, 5, np.float32)
    codec.encode(values, np.zeros(n, np.float32), scheme, 1.0, 1.0, 0, 0, units, codes, kept, None)
    codec.decode(units, codes, 4, 0.5, False, out)
    codec.decode(units, codes, 4, 0.5, True, out)
    assert np.allclose(out + kept, values, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"bits": 3}, {"bits": 16}, {"rounding": "up"}, {"norm": "l1"}, {"norm": "l2", "rounding": "nearest"}]
)
def test_settings_that_do_not_exist_are_refused(wrong: dict) -> None:
    with pytest.raises(BadSetting, match=r"(not possible|needs rounding='stochastic'): .*(use|almost)"):
        Scheme(**wrong)


@pytest.mark.parametrize("wrong", [{"beta": 1.5}, {"beta": -0.1}, {"alpha": 3.0}])
def test_coefficients_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(BadSetting):
        Feedback(**wrong)
