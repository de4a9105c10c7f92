"""What a walk over the fault matrix keeps and prints: nothing is done twice, nothing that went wrong is hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.invariants import Seen
from tests.faults.runs import Run, circumstances, keep, kept, summary, table, wrong


def run(seed: int, *, detect_s: float | None = None, violation: str = "", left: str = "") -> Run:
    seen = Seen(
        "FAILED",
        "HUNG",
        106,
        "HUNG",
        detect_s,
        leftovers=(left,) if left else (),
        violations=(violation,) if violation else (),
        text_right=not violation,
        wrong_end=bool(violation),
    )
    return Run("30 a hang", "local", seed, "step:3", 1, 9.5, seen, at=1.0, load=2.0)


def test_runs_are_read_back_as_they_were_and_half_a_line_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "results" / "walk-local.jsonl"
    keep(path, run(1, detect_s=0.5))
    keep(path, run(2, left="process 7"))
    with path.open("a") as lines:
        lines.write('{"key": "1 x", "back')
    assert kept(path) == [run(1, detect_s=0.5), run(2, left="process 7")]
    assert kept(tmp_path / "nothing") == []


def test_the_table_counts_what_was_right_and_shows_median_and_worst() -> None:
    runs = [run(1, detect_s=0.5), run(2, detect_s=2.0), run(3, detect_s=0.7, violation="exit code 1")]
    row = list(table(runs))[2]
    assert row == "| 30 a hang | 2/3 | FAILED | HUNG | HUNG | 2/3 | 0.7 / 2.0 | - | 0 |"


def test_every_run_that_was_not_right_is_told_with_its_seed() -> None:
    told = list(wrong([run(1), run(2, violation="exit code 1"), run(3, left="process 7")]))
    assert len(told) == 2
    assert "seed 2" in told[0] and "exit code 1" in told[0]
    assert "seed 3" in told[1] and "process 7" in told[1]


def test_the_summary_counts_wrong_ends_leftovers_and_texts() -> None:
    said = summary([run(1), run(2, violation="exit code 1"), run(3, left="process 7")])
    assert "3 runs, 2 not right (only later than allowed: 0)" in said
    late = [
        run(1, violation="detected after 2.4 s, allowed 2.0 s"),
        run(2, violation="stepping after None s, allowed"),
    ]
    assert "2 not right (only later than allowed: 1)" in summary(late)
    assert "reasons 1" in said and "66.7 % of 3" in said and "leftovers 1" in said


def test_each_of_the_42_rows_is_walked() -> None:
    assert {fault.row for fault in FAULTS} == set(range(43))


def test_of_several_runs_of_a_fault_with_one_seed_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "walk-local.jsonl"
    for one in (run(1, violation="exit code 1"), run(2), run(1)):
        keep(path, one)
    assert sorted(one.seed for one in kept(path) if one.right) == [1, 2]


def test_runs_of_another_version_can_be_seen() -> None:
    runs = [replace(run(1), version="abc", cores=2), replace(run(2), version="abc", cores=2), run(3)]
    assert circumstances(runs) == (
        "1970-01-01, 2 cores, load 2.0 (median), 2.0 (most); runs by content of the product: "
        "? of 1970-01-01 (1), abc of 1970-01-01 (2)"
    )
