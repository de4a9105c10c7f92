"""What was walked: one line of JSON for each run, and the tables that are made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.faults.invariants import Seen


@dataclass(frozen=True)
class Run:
    """One job under one fault. `load`: of the machine, when it began; `at`: wall seconds of its end."""

    key: str
    backend: str
    seed: int
    point: str
    victim: int
    seconds: float
    seen: Seen
    at: float = 0.0
    load: float = 0.0

    @property
    def right(self) -> bool:
        """Whether everything was as it has to be."""
        return not self.seen.violations and not self.seen.leftovers

    @property
    def told(self) -> str:
        """One line for a terminal."""
        wrong = "; ".join((*self.seen.violations, *self.seen.leftovers))
        word = f"NOT RIGHT: {wrong}" if wrong else "right"
        return f"{self.key}, seed {self.seed}, {self.point}, victim {self.victim}, {self.seconds} s: {word}"


def kept(path: Path) -> list[Run]:
    """What was walked before; a last line that a killed walk has left half-written does not count."""
    if not path.exists():
        return []
    runs = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        seen = {**line["seen"], **{name: tuple(line["seen"][name]) for name in ("leftovers", "violations")}}
        runs.append(Run(**{**line, "seen": Seen(**seen)}))
    return runs


def keep(path: Path, run: Run) -> None:
    """Add a run to what was walked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.write(json.dumps(asdict(run)) + "\n")


def table(runs: Sequence[Run]) -> Iterator[str]:
    """Fault, seeds, final state, reason, root cause, times (median / worst), leftovers."""
    yield "| fault | seeds right | final state | reason | root cause | text right | detect s | recover s | left |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for key in sorted({run.key for run in runs}, key=_row):
        mine = [run for run in runs if run.key == key]
        seen = [run.seen for run in mine]
        texts = [s.text_right for s in seen if s.text_right is not None]
        words = [
            key,
            f"{sum(run.right for run in mine)}/{len(mine)}",
            _many(s.state or "?" for s in seen),
            _many(s.reason or "?" for s in seen),
            _many(s.cause or "-" for s in seen),
            f"{sum(texts)}/{len(texts)}" if texts else "-",
            _times([s.detect_s for s in seen]),
            _times([s.recover_s for s in seen]),
            str(sum(len(s.leftovers) for s in seen)),
        ]
        yield "| " + " | ".join(words) + " |"


def summary(runs: Sequence[Run]) -> str:
    """The numbers that count, in one line."""
    seen = [run.seen for run in runs]
    texts = [s.text_right for s in seen if s.text_right is not None]
    share = f"{100 * sum(texts) / len(texts):.1f} %" if texts else "-"
    return (
        f"{len({run.key for run in runs})} faults, {len(runs)} runs, {sum(not run.right for run in runs)} not right; "
        f"wrong final states or reasons {sum(s.wrong_end for s in seen)}; root text right {share} of {len(texts)}; "
        f"leftovers {sum(len(s.leftovers) for s in seen)}; "
        f"{sum(run.seconds for run in runs) / 60:.0f} job minutes"
    )


def wrong(runs: Sequence[Run]) -> Iterator[str]:
    """Every run that was not right."""
    return (run.told for run in runs if not run.right)


def _row(key: str) -> tuple[int, str]:
    number, _, name = key.partition(" ")
    return int(number), name


def _many(words: Iterator[str]) -> str:
    return " / ".join(sorted(set(words)))


def _times(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.1f} / {max(known):.1f}" if known else "-"
