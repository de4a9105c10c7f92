"""Write the tables of what was walked into a page: ``python -m tests.faults.tables --folder F``.

The page is ``benchmarks/faults/README.md``; what stands there before the first table is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.runs import RESULTS, Run, circumstances, kept, summary, table, wrong

PAGE = Path(__file__).parents[2] / "benchmarks" / "faults" / "README.md"
MARK = "<!-- From here on written by `python -m tests.faults.tables`. -->"
_TITLES = {
    "walk-local": "The matrix on the local back-end",
    "walk-yarn": "The matrix on a real YARN",
    "soak-local": "Soak on the local back-end: one random fault for each job",
    "soak-yarn": "Soak on a real YARN: one random fault for each job",
}


def page(folder: Path) -> Iterator[str]:
    """The lines below the mark. Raises FileNotFoundError when nothing was walked."""
    parts = [(title, kept(folder / f"{name}.jsonl")) for name, title in _TITLES.items()]
    if not any(runs for _, runs in parts):
        raise FileNotFoundError(f"no results in {folder}")
    for title, runs in parts:
        if runs:
            yield from _part(title, runs)
    hours = folder / "saturated.jsonl"
    if hours.exists():
        yield from ("", "## Nobody is declared dead for being slow", "")
        for line in hours.read_text().splitlines():
            yield "- " + ", ".join(f"{name} {value}" for name, value in json.loads(line).items())


def _part(title: str, runs: Sequence[Run]) -> Iterator[str]:
    yield from ("", f"## {title}", "", f"{circumstances(runs)}.", f"{summary(runs)}.", "")
    yield from table(runs)
    bad = list(wrong(runs))
    if bad:
        yield from ("", "Not right:", "")
        yield from (f"- `{line[:400].replace('`', chr(39))}`" for line in bad)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the page was written."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=Path, default=RESULTS, help=f"what walk and soak have kept (default: {RESULTS})"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    above = options.page.read_text().partition(MARK)[0].rstrip() if options.page.exists() else "# Faults"
    options.page.write_text("\n".join((above, "", MARK, *page(options.folder))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
