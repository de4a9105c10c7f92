"""What a job costs while it runs, and what small commands cost (P6, P7, P13).

A real job on the cluster whose workers sleep. Measured from outside, by process: memory of executors and of the
application master's Python part, their idle CPU, the CPU an executor needed until its worker was released. Then the
wall time of commands, beside `yarn application -status` of the same application, in turns.

    python benchmarks/footprint.py [--workers 8] [--sleep 30] [--rounds 5] [--conf-dir DIR]
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import measure
import psutil
from measure import Cluster, Series

JOB = Path(__file__).resolve().parent / "jobs" / "marks.py"
LAUNCHER = "tony-launch.py"
SETTLE_S = 5.0


@dataclass(frozen=True)
class Sample:
    """One process at one moment. Sizes in MiB; `shared_out_mb`: its proportional share of what it shares."""

    cpu_s: float
    resident_mb: float
    shared_out_mb: float


def parts(marks: Path) -> dict[str, list[psutil.Process]]:
    """Our processes of the job by part, and the user's own; found by command line, the job by its marks folder."""
    found: dict[str, list[psutil.Process]] = {"appmaster": [], "executor": [], "keeper": [], "user": []}
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if len(line) < 2:
            continue
        if LAUNCHER in " ".join(line[:4]) and line[-1] in ("appmaster", "executor"):
            found[line[-1]].append(process)
        elif str(marks) in line and JOB.name in " ".join(line) and "submit" not in line:
            found["user"].append(process)
    return found


def sample(process: psutil.Process) -> Sample:
    times, memory = process.cpu_times(), process.memory_full_info()
    return Sample(times.user + times.system, memory.rss / 2**20, memory.pss / 2**20)


def of_this_job(found: dict[str, list[psutil.Process]]) -> dict[str, list[psutil.Process]]:
    """Other jobs may run on the machine: keep the executors above our user processes, and their master."""
    executors, keepers = set(), set()
    for process in found["user"]:
        for parent in process.parents():
            if parent in found["executor"]:
                executors.add(parent)
            elif parent.ppid() > 1 and any(above in found["executor"] for above in parent.parents()):
                keepers.add(parent)
    application = {name for process in executors if (name := _application(process))}
    masters = [process for process in found["appmaster"] if _application(process) in application]
    return {"appmaster": masters, "executor": list(executors), "keeper": list(keepers), "user": found["user"]}


def _application(process: psutil.Process) -> str:
    """The application's folder in the path of the container's folder."""
    words = process.cwd().split("/")
    return next((word for word in words if word.startswith("application_")), "")


def observe(cluster: Cluster, work: Path, workers: int, sleep_s: float) -> tuple[dict[str, Series], str, list[str]]:
    """Run the job; returns what was measured by part, the application's id, and remarks."""
    marks = work / "marks"
    marks.mkdir()
    source = work / "src"
    source.mkdir()
    shutil.copy(JOB, source)
    env = cluster.environment(work / "state")
    sizes = ["--workers", str(workers), "--memory", "256m", "--am-memory", "512m", "--python", measure.PYTHON]
    seconds = str(sleep_s + SETTLE_S + 10)
    line = [*measure.tony_command(), "submit", *sizes, str(source / JOB.name), "--", str(marks), seconds]
    client = subprocess.Popen(line, env=env, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        measure.wait_until(lambda: len(list(marks.glob("*.first"))) == workers, 120, "all workers' first lines")
        started = {name: [sample(one) for one in ours] for name, ours in of_this_job(parts(marks)).items()}
        time.sleep(SETTLE_S)
        ours = of_this_job(parts(marks))
        before = {name: [sample(one) for one in found] for name, found in ours.items()}
        begun = time.monotonic()
        time.sleep(sleep_s)
        elapsed = time.monotonic() - begun
        after = {name: [sample(one) for one in found] for name, found in ours.items()}
        application = next(_application(one) for one in ours["executor"])
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=60)
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()
    series: dict[str, Series] = {}
    for name in ("appmaster", "executor", "keeper", "user"):
        series[name] = Series()
        for old, new in zip(before[name], after[name], strict=True):
            series[name].add(
                {
                    "resident": new.resident_mb,
                    "share": new.shared_out_mb,
                    "idle": 100 * (new.cpu_s - old.cpu_s) / elapsed,
                }
            )
        for one in started[name]:
            series[name].add({"start": one.cpu_s})
    return series, application, [f"{len(ours['executor'])} executors and {len(ours['appmaster'])} master found"]


def commands(cluster: Cluster, work: Path, application: str, rounds: int) -> dict[str, Series]:
    """Wall time of small commands, in turns."""
    env = cluster.environment(work / "state")
    tony = measure.tony_command()
    script = str(work / "src" / JOB.name)
    lines: dict[str, Sequence[str]] = {
        "tony --help": [*tony, "--help"],
        "tony status": [*tony, "status", application],
        "tony ls": [*tony, "ls"],
        "tony submit --dry-run": [*tony, "submit", "--dry-run", "--workers", "2", "--python", measure.PYTHON, script],
        "yarn application -status": ["yarn", "application", "-status", application],
    }
    series = {name: Series() for name in lines}
    for name in lines:
        measure.run(lines[name], env, work, name)
    for _, name in measure.abba(list(lines), rounds):
        before = measure.cpu_s(())
        ran = measure.run(lines[name], env, work, name)
        series[name].add({"wall": ran.seconds, "cpu": measure.cpu_s(()) - before})
    return series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--conf-dir", type=Path)
    parser.add_argument("--bin-dir", type=Path)
    chosen = parser.parse_args()
    with measure.workspace("footprint") as work, measure.cluster(chosen.conf_dir, chosen.bin_dir, work) as cluster:
        print(f"# {measure.machine_line()}")
        series, application, remarks = observe(cluster, work, chosen.workers, chosen.sleep)
        timed = commands(cluster, work, application, chosen.rounds)
    print(f"# {measure.machine_line()}\n")
    print(f"{chosen.workers} workers that sleep, {'; '.join(remarks)}; median / worst\n")
    header = ("", "resident MiB", "proportional MiB", "idle, % of a core", "CPU-s until released")
    rows = [
        [name, found.shown("resident", ".1f"), found.shown("share", ".1f"), found.shown("idle"), found.shown("start")]
        for name, found in series.items()
        if found.values
    ]
    print(measure.table(header, rows))
    print("\nCommands, seconds, median / worst\n")
    rows = [[name, found.shown("wall"), found.shown("cpu")] for name, found in timed.items()]
    print(measure.table(("", "wall", "CPU-s"), rows))
    print()
    executor = series["executor"]
    print(measure.bar("executor resident", executor.median("resident"), 60, " MiB"))
    print(measure.bar("executor idle", executor.median("idle"), 0.5, " % of a core"))
    print(measure.bar("executor CPU until released", executor.median("start"), 0.4, " s"))
    print(measure.bar("master's Python part resident", series["appmaster"].median("resident"), 100, " MiB"))
    print(measure.bar("tony --help", timed["tony --help"].median("wall"), 0.15, " s"))
    print(measure.bar("tony submit --dry-run", timed["tony submit --dry-run"].median("wall"), 1.5, " s"))
    for name in ("tony status", "tony ls"):
        ratio = measure.ratios(timed[name], timed["yarn application -status"], "wall")
        print(measure.bar(f"{name} : yarn application -status", ratio[0] if ratio else None, 0.3))


if __name__ == "__main__":
    main()
