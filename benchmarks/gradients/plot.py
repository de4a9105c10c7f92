"""Draws the two pictures of docs/gradients.md from the kept results: accuracy against bytes, time against bandwidth.

    make pictures          # or, with any Python that has matplotlib: python -m benchmarks.gradients.plot

The results are those in benchmarks/gradients/results; README.md there names the commands that made them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.gradients.results import read

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
RATES = {"30mbit": 30, "100mbit": 100, "300mbit": 300, "1gbit": 1000, "3gbit": 3000}
WAYS = {
    "fp32": ("float32 (Horovod)", "#444444", "o"),
    "fp16": ("float16 (Horovod)", "#888888", "s"),
    "8": ("8 bits", "#1b7837", "^"),
    "4": ("4 bits", "#2166ac", "D"),
    "2": ("2 bits", "#b2182b", "v"),
}
LABELS = {
    "fp32": ("float32", 8, 5),
    "8 bit": ("8 bits", -8, 5),
    "4 bit": ("4 bits", -8, -12),
    "2 bit": ("2 bits", 8, -4),
    "2 bit up, 4 down": ("2 up, 4 down", 8, 6),
    "sparse 5 %": ("sparse, 5 %", -8, -4),
    "sparse 3 %": ("sparse, 3 %", -8, -18),
    "ablation: 2 bit, no owner residual": ("2 bits without\nthe owner's residual", 8, -12),
}
"""Of each mode: its name, and where that stands beside the point: points to the right (negative: left) and up."""


def accuracy(plot: Any, path: Path) -> None:
    """How right a model is at its end, over how many times fewer bytes it took than a float32 ring."""
    rows = list({row["mode"]: row for row in read("accuracy.jsonl")}.values())  # of two measurements the later one
    figure, axes = plot.subplots(figsize=(7.2, 4.2), layout="constrained")
    exact = next(row for row in rows if row["mode"] == "fp32")
    task, seeds = str(exact["task"]), exact["seeds"]
    axes.axhspan(exact["%"] - 0.3, exact["%"] + 0.3, color="#2166ac", alpha=0.10, lw=0)
    axes.text(1.02, exact["%"] - 0.28, "float32 ± 0.3 point: the bar", fontsize=9, color="#2166ac", va="bottom")
    for row in rows:
        label, right, up = LABELS[str(row["mode"])]
        point = (row["fewer bytes"], row["%"])
        color = "#b2182b" if str(row["mode"]).startswith("ablation") else "#222222"
        axes.plot(*point, "o", color=color)
        place: dict[str, Any] = {"xytext": (right, up), "textcoords": "offset points", "fontsize": 9}
        axes.annotate(label, point, color=color, ha="left" if right > 0 else "right", **place)
    axes.set_xscale("log")
    ticks = [1, 2, 4, 8, 16, 32, 64, 128]
    axes.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.9, 150)
    axes.margins(y=0.12)
    axes.set_xlabel("fewer bytes than float32, in both phases of the exchange")
    axes.set_ylabel("accuracy on the test set, percent")
    axes.set_title(f"{task}, a perceptron: four workers, mean of {seeds} seeds", fontsize=11)
    axes.grid(alpha=0.3)
    save(figure, path)


def time(plot: Any, path: Path) -> None:
    """How long an exchange takes, over the bandwidth of every link; medians."""
    rows = read("time.jsonl")
    figure, axes = plot.subplots(figsize=(7.2, 4.2), layout="constrained")
    for mode, (label, color, marker) in WAYS.items():
        own = sorted((RATES[str(row["rate"])], row["median ms"]) for row in rows if row["mode"] == mode)
        axes.plot(*zip(*own, strict=True), color=color, marker=marker, label=label)
    rates = sorted({RATES[str(row["rate"])] for row in rows})
    elements, ranks = rows[0]["elements"], rows[0]["ranks"]
    ideal = [2 * (ranks - 1) / ranks * 32 * elements / rate / 1000 for rate in rates]
    axes.plot(rates, ideal, color="#444444", ls=":", label="an ideal float32 ring")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(rates, [f"{rate} Mbit/s" if rate < 1000 else f"{rate // 1000} Gbit/s" for rate in rates])
    axes.minorticks_off()
    ticks = [tick for tick in (10, 30, 100, 300, 1000, 3000, 10000) if tick < 1.2 * max(ideal) * 3]
    axes.set_yticks(ticks, [f"{tick} ms" if tick < 1000 else f"{tick // 1000} s" for tick in ticks])
    axes.set_xlabel("bandwidth of every rank's link")
    axes.set_ylabel(f"one exchange, median of {rows[0]['steps']}")
    axes.set_title(f"{elements / 2**20:g} million gradients, {ranks} ranks on 2 shared cores", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Into the file, which says nothing of the day: the same results give the same bytes."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PICTURES, help="where the pictures go")
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    chosen = parser.parse_args(arguments)
    try:
        import matplotlib
    except ImportError:
        parser.error("matplotlib is missing: make pictures brings it")
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "tony", "svg.fonttype": "none", "font.family": "sans-serif"})
    from matplotlib import pyplot

    chosen.folder.mkdir(parents=True, exist_ok=True)
    missing = 0
    for draw in (accuracy, time):
        path = chosen.folder / f"gradients-{draw.__name__}.{chosen.format}"
        try:
            draw(pyplot, path)
        except FileNotFoundError as error:
            print(f"{error.filename} is missing: README.md names the command that makes it", file=sys.stderr)
            missing += 1
        else:
            print(path)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
