"""What was walked: one line of JSON for each run, and the tables that are made of them.

Lines of many machines and days may stand in one file. Each names the version of the product and of the faults that it
is about; of several runs of one fault with one seed the last one counts.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from statistics import median

from tests.faults.invariants import LATE, Seen

RESULTS = Path(__file__).parents[2] / "benchmarks" / "faults" / "results"
_JUDGED = ("tony", "appmaster", "executor", "tests/faults")


@cache
def version() -> str:
    """A number of what the product and its faults contain, in whatever history; with a + for what is not committed.

    ``?`` where git does not tell.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(RESULTS.parents[2]), *words, *_JUDGED]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()

    try:
        content = hashlib.sha256(git("ls-tree", "HEAD").encode()).hexdigest()[:7]
        return content + ("+" if git("status", "--porcelain", "--") else "")
    except (OSError, subprocess.SubprocessError):
        return "?"


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
    cores: int = 0
    version: str = ""

    @property
    def name(self) -> tuple[str, str, int]:
        """Two runs of one name draw the same."""
        return self.key, self.backend, self.seed

    @property
    def right(self) -> bool:
        """Whether everything was as it has to be."""
        return not self.seen.violations and not self.seen.leftovers

    @property
    def only_late(self) -> bool:
        """Whether nothing was wrong but a time limit."""
        found = self.seen.violations
        return bool(found) and not self.seen.leftovers and all(LATE.match(one) for one in found)

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
    runs: dict[tuple[str, str, int], Run] = {}
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        seen = {name: tuple(v) if isinstance(v, list) else v for name, v in line["seen"].items()}
        run = Run(**{**line, "seen": Seen(**seen)})
        runs[run.name] = run
    return list(runs.values())


def keep(path: Path, run: Run) -> None:
    """Add a run to what was walked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        line = {**_said(run), "seen": _said(run.seen)}
        lines.write(json.dumps(line, separators=(",", ":")) + "\n")


def _said(value: Run | Seen) -> dict[str, object]:
    """What differs from the defaults."""
    defaults = {field.name: field.default for field in fields(value)}
    return {name: said for name, said in asdict(value).items() if said != defaults[name]}


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
        f"{len({run.key for run in runs})} faults, {len(runs)} runs, {sum(not run.right for run in runs)} not right "
        f"(only later than allowed: {sum(run.only_late for run in runs)}); "
        f"wrong final states or reasons {sum(s.wrong_end for s in seen)}; root text right {share} of {len(texts)}; "
        f"leftovers {sum(len(s.leftovers) for s in seen)}; "
        f"{sum(run.seconds for run in runs) / 60:.0f} job minutes"
    )


def circumstances(runs: Sequence[Run]) -> str:
    """When, on what, and how many runs with which version."""
    days = sorted({time.strftime("%Y-%m-%d", time.gmtime(run.at)) for run in runs})
    cores = "/".join(str(count) for count in sorted({run.cores for run in runs if run.cores})) or "?"
    loads = [run.load for run in runs]
    each = Counter((time.strftime("%Y-%m-%d", time.gmtime(run.at)), run.version or "?") for run in runs)
    versions = ", ".join(f"{name} of {day} ({count})" for (day, name), count in sorted(each.items()))
    return (
        f"{days[0]}{'' if len(days) == 1 else f' to {days[-1]}'}, {cores} cores, load {median(loads):.1f} (median), "
        f"{max(loads):.1f} (most); runs by content of the product: {versions}"
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
