"""What all benchmarks share: the machine's line, interleaved order, medians, tables, a cluster, CPU-seconds.

Benchmarks are commands for people: they print a table and exit with 0, whoever wins.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from tony.localcluster.cluster import ClusterSettings, LocalCluster

T = TypeVar("T")
RUN_TIMEOUT_S = 300.0
PYTHON = os.path.realpath(sys.executable)
"""The interpreter that every contender's workers use: the one behind any virtual environment."""
SKEIN = (sys.executable, "-W", "ignore", "-c", "from skein.cli import main; main()")
"""skein's own command line."""


def machine_line() -> str:
    """Cores, memory, load and versions: without these a time means nothing."""
    memory_gib = psutil.virtual_memory().total / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, load {load}, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
    )


def abba(contenders: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Each contender once a round, every second round in reverse, so that a drift of the load hits all alike."""
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            yield number, contender


@dataclass
class Series:
    """Measurements by name, one list entry per run."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measured: Mapping[str, float]) -> None:
        for name, value in measured.items():
            self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        found = self.values.get(name)
        return statistics.median(found) if found else None

    def shown(self, name: str, form: str = ".2f") -> str:
        """``median / worst``; a dash when nothing was measured."""
        found = self.values.get(name)
        return f"{statistics.median(found):{form}} / {max(found):{form}}" if found else "-"


def ratios(ours: Series, theirs: Series, name: str) -> tuple[float, float] | None:
    """Median and worst of our value by theirs, paired by round."""
    pairs = zip(ours.values.get(name, ()), theirs.values.get(name, ()), strict=False)
    found = [mine / other for mine, other in pairs if other > 0]
    return (statistics.median(found), max(found)) if found else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def bar(name: str, value: float | None, limit: float, unit: str = "") -> str:
    """One line that says whether a bar was reached."""
    if value is None:
        return f"  not measured  {name} (bar {limit:g}{unit})"
    return f"  {'reached' if value <= limit else 'MISSED '}       {name}: {value:.3g}{unit} (bar {limit:g}{unit})"


@dataclass(frozen=True)
class Cluster:
    """Where the jobs of a benchmark run. `pids`: the daemons, whose waited-for children are the containers."""

    conf_dir: Path
    bin_dir: Path
    jars_dir: Path | None
    pids: tuple[int, ...]

    def environment(self, state: Path) -> dict[str, str]:
        """For commands that talk to this cluster; `state` holds what tony remembers of its jobs."""
        return {
            **os.environ,
            "HADOOP_CONF_DIR": str(self.conf_dir),
            "PATH": f"{self.bin_dir}:{os.environ['PATH']}",
            "TONY_STATE_DIR": str(state),
            "NO_COLOR": "1",
        }


@contextmanager
def cluster(
    conf_dir: Path | None, bin_dir: Path | None, work: Path, *, nodes: int = 2, memory_mb: int = 8192
) -> Iterator[Cluster]:
    """The cluster of that configuration, else a local one of our own below `work`, which is deleted in the end."""
    if conf_dir is not None:
        home = LocalCluster(conf_dir.resolve().parent)
        status = home.status()
        pids = tuple(daemon.pid for daemon in status.daemons)
        jars = home.jars_dir if status.settings else None
        yield Cluster(conf_dir.resolve(), (bin_dir or home.bin_dir).resolve(), jars, pids)
        return
    own = LocalCluster(work / "cluster")
    settings = ClusterSettings(nodes, memory_mb, 16 * nodes)
    try:
        status = own.start(settings, lambda line: print(f"# {line}", file=sys.stderr, flush=True))
        yield Cluster(own.conf_dir, own.bin_dir, own.jars_dir, tuple(daemon.pid for daemon in status.daemons))
    finally:
        own.delete()


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A temporary folder, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"tony-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cpu_s(pids: Sequence[int]) -> float:
    """CPU-seconds so far of these processes, of the children that they waited for, and of our own children.

    Differences of it hardly depend on what else the machine does, unlike wall times.
    """
    ours = os.times()
    total = ours.children_user + ours.children_system
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass(frozen=True)
class Ran:
    """A command that has ended. Times are wall clock, so that they compare with marks of other processes."""

    begun_at: float
    ended_at: float
    output: str
    errors: str

    @property
    def seconds(self) -> float:
        return self.ended_at - self.begun_at


def run(command: Sequence[str], env: Mapping[str, str], cwd: Path, what: str) -> Ran:
    """Run a command to its end. Raises SystemExit with its last lines when it fails."""
    begun_at = time.time()
    done = subprocess.run(
        command, env=dict(env), cwd=cwd, capture_output=True, text=True, errors="replace", timeout=RUN_TIMEOUT_S
    )
    ended_at = time.time()
    if done.returncode:
        told = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise SystemExit(f"{what} failed with exit code {done.returncode}:\n{told}")
    return Ran(begun_at, ended_at, done.stdout, done.stderr)


def marks(folder: Path) -> dict[str, list[float]]:
    """What the user's processes wrote: name → wall times, sorted. A mark is a file ``PID.NAME`` with one number."""
    found: dict[str, list[float]] = {}
    for path in folder.iterdir():
        found.setdefault(path.suffix[1:], []).append(float(path.read_text()))
    return {name: sorted(values) for name, values in found.items()}


def tony_command() -> list[str]:
    """The command as users start it: the console script beside this interpreter, else the module."""
    script = Path(sys.executable).with_name("tony")
    return [str(script)] if script.exists() else [sys.executable, "-m", "tony"]


def wait_until(reached: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Poll every 20 ms; returns the seconds waited. Raises SystemExit after the timeout."""
    begun = time.monotonic()
    while not reached():
        if time.monotonic() - begun > timeout_s:
            raise SystemExit(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun
