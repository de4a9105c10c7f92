"""What a script asks for, and where tensors are laid."""

from __future__ import annotations

import numpy as np
import pytest

from tony.gradients.buckets import EXEMPT, Tensor, chunk_bounds, first_difference, lay_out
from tony.gradients.errors import BadSetting
from tony.gradients.exchange import Exchange
from tony.gradients.horovod import SIZE_VARIABLES, world_size
from tony.gradients.keras import DistributedOptimizer
from tony.gradients.quantizer import Scheme
from tony.gradients.report import report
from tony.gradients.request import VARIABLE, settings_for
from tony.gradients.threads import ThreadTransport, run_ranks

MODEL = [Tensor("a/kernel", (100, 60)), Tensor("a/bias", (60,)), Tensor("b/kernel", (60, 40)), Tensor("c", (8, 8))]


def test_bits_of_the_script_win_over_those_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")
    assert settings_for().up == Scheme(2)
    assert settings_for(bits=8).up == Scheme(8)
    assert settings_for(bits="none").up is None


def test_without_anything_said_there_are_four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert settings_for().up == Scheme(4)


@pytest.mark.parametrize("text", ["3", "", "four", "-4", "16"])
def test_a_job_with_bits_that_do_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(BadSetting, match=VARIABLE):
        settings_for()


@pytest.mark.parametrize("wrong", [{"bits": 3}, {"bits": "many"}, {"mode": "up"}, {"down_bits": 5}, {"beta": 2.0}])
def test_arguments_that_do_not_exist_are_refused(wrong: dict) -> None:
    with pytest.raises(BadSetting):
        settings_for(**wrong)


def test_the_published_method_has_one_lossy_phase() -> None:
    settings = settings_for(bits=2, mode="paper")
    assert settings.up == Scheme(2, "stochastic", "l2") and settings.down == Scheme(8)


def test_every_tensor_begins_at_a_block_of_its_own() -> None:
    layout = lay_out(MODEL)
    assert [place.bucket for place in layout.places] == [0, EXEMPT, 0, EXEMPT]
    assert all(place.offset % 512 == 0 for place in layout.places if place.bucket != EXEMPT)
    assert layout.places[2].offset == 0 and layout.places[0].offset == 2560
    assert layout.bucket_elements == (2560 + 6144,) and layout.exempt_elements == 60 + 64


def test_a_bucket_ends_when_it_is_full() -> None:
    assert lay_out(MODEL, bucket_bytes=4 * 6144).bucket_elements == (2560, 6144)


def test_named_tensors_are_exempt() -> None:
    assert lay_out(MODEL, exempt=["^a/"]).bucket_elements == (2560,)


@pytest.mark.parametrize(
    "change", [{"name": "x"}, {"shape": (60, 100)}, {"dtype": "float64"}], ids=["name", "shape", "dtype"]
)
def test_the_digest_sees_every_difference(change: dict) -> None:
    other = [Tensor(**(MODEL[0].__dict__ | change)), *MODEL[1:]]
    assert lay_out(MODEL).digest != lay_out(other).digest
    assert lay_out(MODEL).digest == lay_out(list(MODEL)).digest


def test_chunks_cover_all_blocks_once() -> None:
    for blocks in (0, 1, 2, 7, 100):
        bounds = chunk_bounds(blocks, 3)
        assert bounds[0] == 0 and bounds[-1] == blocks and bounds == sorted(bounds)


def test_a_difference_names_the_tensor_and_both_sides() -> None:
    mine = [["a", [2, 3], "float32"], ["b", [4], "float32"]]
    assert first_difference(mine, mine) is None
    assert (
        first_difference(mine, [["a", [2, 4], "float32"]]) == "tensor 'a' has the shape (2, 3) here and (2, 4) there"
    )
    assert first_difference(mine, mine[:1]) == "tensor 'b' exists only here"
    assert "float16" in str(first_difference(mine, [["a", [2, 3], "float16"]]))


def test_the_report_tells_ratio_gamma_and_residual_of_every_tensor() -> None:
    def work(transport: ThreadTransport) -> list:
        exchange = Exchange(transport, settings_for(bits=2))
        random = np.random.default_rng(transport.rank)
        pairs = [(t.name, random.standard_normal(t.shape).astype(np.float32)) for t in MODEL]
        assert report(exchange) == []
        exchange.average(pairs)
        return report(exchange)

    for lines in run_ranks(3, work):
        assert [line.name for line in lines] == [t.name for t in MODEL]  # type: ignore[union-attr]
        first, bias = lines[0], lines[1]  # type: ignore[index]
        assert first.bits == 2 and 15 < first.ratio < 15.8 and 0.1 < first.gamma < 0.4 and first.residual_norm > 1
        assert bias.bits == 32 and bias.ratio == 1.0 and bias.residual_norm == 0.0


@pytest.mark.parametrize("name", SIZE_VARIABLES)
def test_the_world_size_is_known_without_horovod(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in SIZE_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    assert world_size() == 1
    monkeypatch.setenv(name, "3")
    assert world_size() == 3


class Recorded:
    """Stands in for an optimizer; has what DistributedOptimizer looks at."""

    built = False
    gradient_accumulation_steps: int | None = None

    def get_config(self) -> dict:
        return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"built": True}, "used already"),
        ({"gradient_accumulation_steps": 4}, "quantize every part"),
        ({"__module__": "tf_keras.src.optimizers.legacy.adam"}, "legacy"),
    ],
)
def test_optimizers_that_cannot_be_wrapped_are_refused(change: dict, message: str) -> None:
    kind = type("SGD", (Recorded,), {"__module__": "keras.src.optimizers.sgd"} | change)
    with pytest.raises(BadSetting, match=message):
        DistributedOptimizer(kind())


def test_an_optimizer_that_scales_the_loss_is_refused() -> None:
    kind = type("LossScaleOptimizer", (Recorded,), {"__module__": "keras.src.optimizers.loss_scale_optimizer"})
    with pytest.raises(BadSetting, match="scales the loss"):
        DistributedOptimizer(kind())
