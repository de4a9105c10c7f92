"""How soon all ranks step again after one worker's process was killed with SIGKILL (P9).

The same PyTorch script, gloo, under this project (on this machine without Java, and on YARN) and under
`torchrun --max-restarts`. Rank 1 is killed in the middle of its steps; measured is the time from the signal until
every rank, in a new process, has completed a step. Who keeps the script's state is not the question here: all start
from step 0.

    python benchmarks/recovery.py [--rounds 5] [--python /usr/bin/python3] [--on local --on yarn]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import measure
from measure import Series

JOB = Path(__file__).resolve().parent / "jobs" / "steps.py"
STEPS = 100_000
WARM_STEPS = 20
START_TIMEOUT_S, RECOVERY_TIMEOUT_S = 120.0, 120.0


def last_steps(folder: Path) -> dict[str, tuple[float, int, int]]:
    """The last whole line of every rank: wall time, step, pid."""
    found = {}
    for path in folder.glob("rank-*"):
        lines = path.read_text().split("\n")[:-1]
        if lines:
            at, step, pid = lines[-1].split()
            found[path.name] = (float(at), int(step), int(pid))
    return found


def first_step_of_others(folder: Path, rank: str, before: set[int]) -> float | None:
    """When that rank completed its first step in a process that is not in `before`."""
    for line in (folder / rank).read_text().split("\n")[:-1]:
        at, _, pid = line.split()
        if int(pid) not in before:
            return float(at)
    return None


def recovered(command: list[str], env: Mapping[str, str], work: Path, ranks: int) -> dict[str, float]:
    """Start, let it step, kill rank 1, wait until every rank steps in a new process, stop."""
    marks = work / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    log = work / "output"
    with log.open("w") as out:
        client = subprocess.Popen(
            [*command, str(marks), str(STEPS)],
            env=dict(env),
            cwd=work,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:

        def stepping() -> bool:
            if client.poll() is not None:
                raise SystemExit(f"{command[0]} ended too soon:\n{log.read_text()[-2000:]}")
            found = last_steps(marks)
            return len(found) == ranks and all(step >= WARM_STEPS for _, step, _ in found.values())

        measure.wait_until(stepping, START_TIMEOUT_S, "all ranks stepping")
        pids = {pid for _, _, pid in last_steps(marks).values()}
        killed_at = time.time()
        os.kill(last_steps(marks)["rank-1"][2], signal.SIGKILL)

        def again() -> bool:
            if client.poll() is not None:
                raise SystemExit(f"{command[0]} did not restart:\n{log.read_text()[-2000:]}")
            return all(first_step_of_others(marks, f"rank-{rank}", pids) for rank in range(ranks))

        measure.wait_until(again, RECOVERY_TIMEOUT_S, "all ranks stepping again")
        times = [first_step_of_others(marks, f"rank-{rank}", pids) or 0.0 for rank in range(ranks)]
        return {"again": max(times) - killed_at}
    finally:
        if client.poll() is None:
            client.send_signal(signal.SIGINT)
            try:
                client.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(client.pid, signal.SIGKILL)
                client.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--python", default="/usr/bin/python3", help="an interpreter that has torch")
    parser.add_argument("--on", choices=("local", "yarn"), action="append", help="default: both")
    parser.add_argument("--conf-dir", type=Path)
    chosen = parser.parse_args()
    asked = subprocess.run(
        [chosen.python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True
    )
    if asked.returncode:
        print(f"{chosen.python} has no torch: nothing to measure. Name another with --python.", file=sys.stderr)
        return
    with measure.workspace("recovery") as work, ExitStack() as stack:
        (work / "src").mkdir()
        shutil.copy(JOB, work / "src")
        environment = {**os.environ, "TONY_STATE_DIR": str(work / "state"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        script = str(work / "src" / JOB.name)

        def ours(*where: str) -> list[str]:
            size = ["--workers", str(chosen.ranks), "--memory", "512m", "--am-memory", "512m", "--max-restarts", "3"]
            run = ["--framework", "pytorch", "--python", chosen.python, "--env", "OMP_NUM_THREADS=1", script, "--"]
            return [*measure.tony_command(), "submit", *where, *size, *run]

        torchrun = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc_per_node={chosen.ranks}"]
        torchrun += ["--max_restarts=3", "--rdzv_backend=c10d", "--rdzv_endpoint=127.0.0.1:0"]
        # The value 0, which is also the default, breaks torch 1.13 on Python 3.11.
        torchrun += ["--redirects=1", "--tee=2", f"--log_dir={work / 'torchrun'}"]
        field = {"torchrun --max-restarts": ([chosen.python, *torchrun, script], environment)}
        places = chosen.on or ["local", "yarn"]
        if "local" in places:
            field["this project, on this machine"] = (ours("--cluster", "local"), environment)
        if "yarn" in places:
            cluster = stack.enter_context(measure.cluster(chosen.conf_dir, None, work))
            field["this project, on YARN"] = (ours("--cluster", "yarn"), cluster.environment(work / "state"))
        series = {name: Series() for name in field}
        print(f"# {measure.machine_line()}, torch {asked.stdout.strip()}", flush=True)
        for _, name in measure.abba(list(field), chosen.rounds):
            command, env = field[name]
            measured = recovered(command, env, work, chosen.ranks)
            print(f"# {name}: {measured['again']:.2f}", file=sys.stderr, flush=True)
            series[name].add(measured)
    print(f"# {measure.machine_line()}\n")
    print(f"{chosen.ranks} ranks, one killed; seconds until all step again, median / worst\n")
    print(measure.table(("", "all ranks step again"), [[name, one.shown("again")] for name, one in series.items()]))
    print()
    for name in series:
        if not name.startswith("torchrun"):
            ratio = measure.ratios(series[name], series["torchrun --max-restarts"], "again")
            print(measure.bar(f"{name} : torchrun --max-restarts", ratio[0] if ratio else None, 0.5))


if __name__ == "__main__":
    main()
