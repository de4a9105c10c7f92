"""From the residuals of a rank to what `tony metrics` shows of them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from executor.reports import NAME_CHARACTERS, Reports
from tony import gradient_numbers
from tony.cli.metrics import metrics_document, metrics_lines
from tony.cli.output import Output
from tony.context import Context
from tony.gradient_numbers import GradientNumbers, gradients_in, without_gradients
from tony.gradients.exchange import Exchange, Settings
from tony.gradients.quantizer import Scheme
from tony.gradients.report import EVERY_S, MOST_LAYERS, JobReport, report, together
from tony.gradients.threads import ThreadTransport, run_ranks
from tony.snapshot import JobSnapshot, TaskSnapshot
from tony.state import JobState, TaskState


class Told:
    """A job that keeps what is told, as the executor would."""

    def __init__(self) -> None:
        self.reports = Reports()
        self.calls = 0
        self.now = 0.0

    def send(self, numbers: dict[str, Any]) -> None:
        self.calls += 1
        self.reports.take(json.dumps(numbers).encode())

    def context(self) -> Context:
        return Context(application_id="application_1_0001", _channel=self)  # type: ignore[arg-type]


def average(exchange: Exchange, rank: int, layers: int = 3) -> None:
    random = np.random.default_rng(rank)
    pairs = [(f"layer{i}/kernel", random.standard_normal((64, 64 + i)).astype(np.float32)) for i in range(layers)]
    exchange.average([*pairs, ("bias", np.ones(64, np.float32))])


def told_by_ranks(bits: int, layers: int = 3) -> list[dict[str, float]]:
    def work(transport: ThreadTransport) -> dict[str, float]:
        told = Told()
        exchange = Exchange(transport, Settings(Scheme(4)))
        if bits >= 16:
            average(exchange, transport.rank, layers)
            exchange.travel(bits)
        average(exchange, transport.rank, layers)
        JobReport(told.context(), lambda: told.now).stepped(exchange)
        return told.reports.fresh()

    results = run_ranks(3, work)
    assert all(isinstance(result, dict) for result in results), results
    return results  # type: ignore[return-value]


def test_the_first_rank_tells_layers_and_the_others_the_sums() -> None:
    first, second, _ = (gradients_in(numbers) for numbers in told_by_ranks(4))
    assert [one.layer for one in first] == ["", *(f"{i}:layer{i}/kernel" for i in range(3)), "3:bias"]
    assert [one.layer for one in second] == [""]
    assert first[1].bits == 4 and 7 < first[1].ratio < 8 and first[1].residual_norm > 0
    assert 0.05 < first[1].quantization_error < 0.5
    assert first[4].bits == 32 and first[4].ratio == 1.0
    assert first[0].bytes_per_step == pytest.approx(sum(one.bytes_per_step for one in first[1:]))


@pytest.mark.parametrize(("bits", "ratio"), [(16, 2.0), (32, 1.0)])
def test_floats_are_told_as_floats(bits: int, ratio: float) -> None:
    numbers = gradients_in(told_by_ranks(bits)[0])
    assert {(one.bits, one.ratio, one.residual_norm) for one in numbers} == {(bits, ratio, 0.0)}


def test_of_a_large_model_only_the_largest_layers_are_told() -> None:
    layers = {one.layer for one in gradients_in(told_by_ranks(4, 50)[0])}
    assert len(layers) == 1 + MOST_LAYERS and "49:layer49/kernel" in layers and "0:layer0/kernel" not in layers


def test_it_is_told_now_and_then_and_outside_of_a_job_never() -> None:
    def work(transport: ThreadTransport) -> list[int]:
        told = Told()
        exchange = Exchange(transport, Settings(Scheme(4)))
        average(exchange, transport.rank)
        outside = JobReport(Context(_channel=told))  # type: ignore[arg-type]
        outside.stepped(exchange)
        calls = [told.calls]
        inside = JobReport(told.context(), lambda: told.now)
        for now in (0.0, 0.9 * EVERY_S, 1.1 * EVERY_S):
            told.now = now
            inside.stepped(exchange)
            calls.append(told.calls)
        return calls

    assert run_ranks(2, work) == [[0, 5, 5, 10], [0, 1, 1, 2]]


def test_a_long_name_keeps_its_number_and_its_end() -> None:
    assert gradient_numbers.NAME_CHARACTERS == NAME_CHARACTERS
    numbers = GradientNumbers("12:" + "encoder/" * 20 + "kernel", 4, 10.0, 1.0, 0.1, 7.9)
    assert all(len(name) <= NAME_CHARACTERS for name in numbers.named())
    found = gradients_in(numbers.named())
    assert len(found) == 1 and found[0].layer.startswith("12:..") and found[0].layer.endswith("/kernel")
    assert found[0] == GradientNumbers(found[0].layer, 4, 10.0, 1.0, 0.1, 7.9)


def test_the_sums_of_a_report_are_those_of_its_lines() -> None:
    def work(transport: ThreadTransport) -> tuple[float, float]:
        exchange = Exchange(transport, Settings(Scheme(2)))
        average(exchange, transport.rank)
        return together(report(exchange), 2).residual_norm, exchange.residual_norm()

    for summed, whole in run_ranks(3, work):  # type: ignore[misc]
        assert summed == pytest.approx(whole, rel=1e-5)


def job() -> JobSnapshot:
    progress = {"step": 20.0, "loss": 0.25} | told_by_ranks(4)[0]
    metrics = {"cpu_percent": 98.4, "memory_mb": 512.0, "processes": 2.0}
    first = TaskSnapshot("worker:0", TaskState.RUNNING, 1, metrics=metrics, progress=progress)
    second = TaskSnapshot("worker:1", TaskState.RUNNING, 1)
    return JobSnapshot("application_1_0001", "mnist", "ann", JobState.RUNNING, 1, 1, tasks=(first, second))


def test_metrics_shows_tasks_and_then_gradients() -> None:
    lines = metrics_lines(Output(io.StringIO(), io.StringIO()), job())
    assert lines[0] == "mnist  application_1_0001  RUNNING"
    assert lines[2].split() == ["TASK", "STATE", "CPU", "MEMORY", "PROCESSES", "REPORTED"]
    assert lines[3].split() == ["worker:0", "RUNNING", "98%", "512m", "2", "loss=0.25", "step=20"]
    assert lines[4].split() == ["worker:1", "RUNNING"]
    assert lines[6].split()[:3] == ["TASK", "GRADIENT", "BITS"]
    assert lines[7].split()[:3] == ["worker:0", "all", "4"] and "x" in lines[7]
    assert [line.split()[1] for line in lines[8:]] == [*(f"{i}:layer{i}/kernel" for i in range(3)), "3:bias"]


def test_metrics_as_a_document() -> None:
    document = metrics_document(job())
    assert json.loads(json.dumps(document)) == document
    first, second = document["tasks"]
    assert first["reported"] == {"loss": 0.25, "step": 20.0} and first["gradients"]["bits"] == 4
    assert len(first["layers"]) == 4 and first["layers"][0]["ratio"] > 7
    assert second["gradients"] is None and second["layers"] == [] and second["metrics"] == {}


def test_without_gradients_nothing_is_lost() -> None:
    assert without_gradients({"step": 1.0, "gradients/bits": 4.0}) == {"step": 1.0}
