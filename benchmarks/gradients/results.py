"""Where a measurement goes: one JSON line each on standard output and, with ``--out``, at the end of a file."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path

FOLDER = Path(__file__).with_name("results")
"""Kept results, from which `benchmarks.gradients.plot` draws."""


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option ``--out``."""
    parser.add_argument("--out", type=Path, default=None, help="a file to which the results are added, as JSON lines")


def tell(row: dict[str, object], out: Path | None) -> None:
    """Say it; in the file with what is to be known of when and where it was measured."""
    print(json.dumps(row), flush=True)
    if out is not None:
        load, month = round(os.getloadavg()[0], 1), f"{datetime.date.today():%Y-%m}"
        about = {"machine": _processor(), "load": load, "when": month}
        with out.open("a") as file:
            file.write(json.dumps(row | about) + "\n")


def read(name: str) -> list[dict[str, object]]:
    """The rows of one of the kept files."""
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores of {model}"
