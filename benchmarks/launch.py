"""How long a job takes to start and to end, beside the peers on the same cluster (P1, P2).

A job of two workers that print a line and exit. Measured: command start → first line of the first worker's script;
last line of the last worker's script → the command returns; the whole command; CPU-seconds of client, daemons and
containers together. All contenders take turns, every second round in reverse.

    python benchmarks/launch.py [--rounds 7] [--workers 2] [--tony-jar PATH] [--conf-dir DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import measure
from measure import Cluster, Series

from tony.paths import cache_dir
from tony.yarn import start_driver, stop_driver

HERE = Path(__file__).resolve().parent
JOB = HERE / "jobs" / "marks.py"
POM = HERE / "peers" / "pom.xml"
STEPS = ("uploaded", "accepted", "am_started", "allocated", "released", "first_output", "last_exit", "finished")
OURS, OURS_WARM = "this project", "this project, kept driver"
SKEIN, SKEIN_WARM = "raw skein 0.8.2", "raw skein, global driver"
SHELL, TONY = "DistributedShell", "TonY"


@dataclass(frozen=True)
class Contender:
    """One way to start the job. `command` gets the folder for marks."""

    name: str
    command: Callable[[Path], list[str]]
    env: Mapping[str, str]


def contenders(
    cluster: Cluster, work: Path, workers: int, tony_jar: Path | None, shell_jar: Path | None, skein_global: bool
) -> list[Contender]:
    def ours(folder: Path) -> list[str]:
        sizes = ["--workers", str(workers), "--memory", "256m", "--am-memory", "512m"]
        run = ["--python", measure.PYTHON, "--src", str(work / "src"), str(work / "src" / JOB.name)]
        return [*measure.tony_command(), "--json", "submit", *sizes, *run, "--", str(folder)]

    def skein(folder: Path, *options: str) -> list[str]:
        script = str(HERE / "peers" / "raw_skein.py")
        return [
            sys.executable,
            "-W",
            "ignore",
            script,
            *options,
            "--python",
            measure.PYTHON,
            str(workers),
            str(JOB),
            str(folder),
        ]

    skein_env = {**cluster.environment(work / "cold"), "SKEIN_CONFIG": str(work / "skein")}
    found = [
        Contender(OURS, ours, cluster.environment(work / "cold")),
        Contender(OURS_WARM, ours, cluster.environment(work / "warm")),
        Contender(SKEIN, skein, skein_env),
    ]
    if skein_global:
        found.append(Contender(SKEIN_WARM, lambda folder: skein(folder, "--driver", "global"), skein_env))
    if shell_jar is not None:
        found.append(Contender(SHELL, lambda folder: shell_command(cluster, shell_jar, workers, folder), skein_env))
    if tony_jar is not None:
        found.append(Contender(TONY, lambda folder: tony_command(cluster, tony_jar, workers, folder), skein_env))
    return found


def shell_command(cluster: Cluster, jar: Path, workers: int, folder: Path) -> list[str]:
    """Hadoop's own example of an application: its client stays until the end."""
    options = ["-jar", str(jar), "-appname", "shell", "-num_containers", str(workers)]
    options += ["-container_memory", "256", "-master_memory", "512"]
    options += ["-shell_command", measure.PYTHON, "-shell_args", f"{JOB} {folder}"]
    return _java(cluster, jar, "org.apache.hadoop.yarn.applications.distributedshell.Client", options)


def tony_command(cluster: Cluster, jar: Path, workers: int, folder: Path) -> list[str]:
    """LinkedIn's TonY, as its own documentation submits a PyTorch job; its workers and master have its 2 GB."""
    options = ["--src_dir", str(JOB.parent), "--executes", JOB.name, "--python_binary_path", measure.PYTHON]
    options += ["--task_params", str(folder), "--container_env", "SKIP_HADOOP_PATH=true"]
    for setting in (
        "tony.application.security.enabled=false",
        "tony.application.framework=pytorch",
        f"tony.worker.instances={workers}",
        "tony.ps.instances=0",
    ):
        options += ["--conf", setting]
    return _java(cluster, jar, "com.linkedin.tony.cli.ClusterSubmitter", options)


def _java(cluster: Cluster, jar: Path, main: str, options: list[str]) -> list[str]:
    if cluster.jars_dir is None:
        raise SystemExit("the Java peers need a cluster of `tony cluster start`")
    return ["java", "-cp", f"{cluster.conf_dir}:{cluster.jars_dir}/*:{jar}", main, *options]


def fetch_shell_jar() -> Path | None:
    """DistributedShell's jar in the user's cache, fetched by Maven the first time; None when Maven has it not."""
    folder = cache_dir() / "peers"
    if not list(folder.glob("*distributedshell*.jar")) and shutil.which("mvn"):
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        subprocess.run(
            [*command, f"-DoutputDirectory={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    return next(iter(folder.glob("*distributedshell*.jar")), None)


def measure_once(contender: Contender, cluster: Cluster, work: Path, drivers: list[int]) -> dict[str, float]:
    """One job: its times in seconds."""
    folder = work / "marks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pids = [*cluster.pids, *drivers]
    before = measure.cpu_s(pids)
    ran = measure.run(contender.command(folder), contender.env, work, contender.name)
    marks = measure.marks(folder)
    # Daemons learn of their dead children a little later.
    time.sleep(1.0)
    measured = {
        "first": marks["first"][0] - ran.begun_at,
        "end": ran.ended_at - marks["last"][-1],
        "whole": ran.seconds,
        "cpu": measure.cpu_s(pids) - before,
    }
    if contender.name in (OURS, OURS_WARM):
        timeline = json.loads(ran.output.splitlines()[-1])["timeline"]
        measured |= {f"step {name}": timeline[name] for name in STEPS if timeline.get(name) is not None}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tony-jar", type=Path, help="TonY's fat jar, tony-cli-…-uber.jar")
    parser.add_argument("--shell-jar", type=Path, help="DistributedShell's jar; else Maven is asked")
    parser.add_argument("--conf-dir", type=Path, help="a running cluster's; else one is started and deleted again")
    parser.add_argument("--bin-dir", type=Path, help="where that cluster's yarn command is")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="a contender to leave out")
    chosen = parser.parse_args()
    shell_jar = None if SHELL in chosen.skip else chosen.shell_jar or fetch_shell_jar()
    with measure.workspace("launch") as work, measure.cluster(chosen.conf_dir, chosen.bin_dir, work) as cluster:
        (work / "src").mkdir()
        shutil.copy(JOB, work / "src")
        env = {**cluster.environment(work / "cold"), "SKEIN_CONFIG": str(work / "skein")}
        kept = _kept_driver(cluster, work / "warm")
        measure.run([*measure.SKEIN, "config", "gencerts"], env, work, "skein config")
        try:
            measure.run([*measure.SKEIN, "driver", "start"], env, work, "skein driver")
            field = [
                one
                for one in contenders(cluster, work, chosen.workers, chosen.tony_jar, shell_jar, True)
                if one.name not in chosen.skip
            ]
            series = {one.name: Series() for one in field}
            print(f"# {measure.machine_line()}", flush=True)
            for one in field:  # unmeasured: uploads, the nodes' caches, the daemons' first class loading
                measure_once(one, cluster, work, [kept])
            for number, one in measure.abba(field, chosen.rounds):
                measured = measure_once(one, cluster, work, [kept])
                series[one.name].add(measured)
                print(
                    f"# round {number + 1}: {one.name}: {measured['first']:.2f} {measured['end']:.2f}",
                    file=sys.stderr,
                )
        finally:
            subprocess.run([*measure.SKEIN, "driver", "stop"], env=env, stdout=subprocess.DEVNULL)
            _forget_driver(work / "warm")
    report(series, chosen.rounds, chosen.workers)
    if shell_jar is None and SHELL not in chosen.skip:
        print("\nDistributedShell: its jar cannot be had from this machine's Maven (benchmarks/peers/pom.xml).")


def _kept_driver(cluster: Cluster, state: Path) -> int:
    """A submit driver that stays, recorded in `state` as `tony cluster start` records its own. Returns its pid."""
    with _state(state):
        return start_driver(cluster.conf_dir, cluster.bin_dir, state / "driver").pid


@contextmanager
def _state(folder: Path) -> Iterator[None]:
    """This process's own calls use that state folder meanwhile."""
    before = os.environ.get("TONY_STATE_DIR")
    os.environ["TONY_STATE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TONY_STATE_DIR"]
        else:
            os.environ["TONY_STATE_DIR"] = before


def _forget_driver(state: Path) -> None:
    with _state(state):
        stop_driver()


def report(series: Mapping[str, Series], rounds: int, workers: int) -> None:
    print(f"# {measure.machine_line()}\n")
    print(f"{workers} workers, {rounds} rounds, seconds, median / worst\n")
    names = ("first", "end", "whole", "cpu")
    rows = [[name, *(found.shown(column) for column in names)] for name, found in series.items()]
    print(measure.table(("", "first user line", "last exit → return", "whole job", "CPU-s"), rows))
    rows = []
    for ours in (OURS, OURS_WARM):
        for other in (SKEIN, SKEIN_WARM, SHELL, TONY):
            if ours in series and other in series:
                pairs = [measure.ratios(series[ours], series[other], name) for name in names]
                rows.append([f"{ours} : {other}", *(f"{one[0]:.2f} / {one[1]:.2f}" if one else "-" for one in pairs)])
    print("\nRatios, round by round, median / worst\n")
    print(measure.table(("", "first user line", "last exit → return", "whole job", "CPU-s"), rows))
    print("\nWhere the time goes: medians, seconds since the command began\n")
    rows = [
        [name, *("-" if (at := series[name].median(f"step {step}")) is None else f"{at:.2f}" for step in STEPS)]
        for name in (OURS, OURS_WARM)
        if name in series
    ]
    print(measure.table(("", *STEPS), rows))
    print()
    for ours, other, name, limit in (
        (OURS, SKEIN, "first", 1.15),
        (OURS_WARM, SKEIN_WARM, "first", 1.15),
        (OURS, SHELL, "first", 1.25),
        (OURS, TONY, "first", 0.6),
        (OURS, TONY, "end", 0.25),
    ):
        if ours in series and other in series:
            ratio = measure.ratios(series[ours], series[other], name)
            print(measure.bar(f"{name}, {ours} : {other}", ratio[0] if ratio else None, limit))
    print(measure.bar("last exit → return", series[OURS].median("end") if OURS in series else None, 1.5, " s"))


if __name__ == "__main__":
    main()
