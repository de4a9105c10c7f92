"""Two jobs that each hold half of what both need: how often, and how soon, both finish (R8).

A YARN of two nodes has room for one gang of four. Two jobs in two queues of the same share ask for theirs in the same
moment (a first stage waits for it), so that each is given some containers and waits for the rest. The times of the
protocol are short here (minutes by default); counted is whether both jobs succeed, and how long that takes.

    python benchmarks/half_gang.py [--runs 20]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import measure

from tony.localcluster.cluster import ClusterSettings, LocalCluster

QUEUES = ("left", "right")
MEMORY_MB = 2 * (2 * 1024 + 2 * 512 + 256)
"""Two workers on each node wherever the masters are; five at most, which is no second gang either."""
RUN_S = 240.0
JOB = """
name: half-gang
src: none
venv: none
queue: {queue}
am: {{memory: 512m}}
roles:
  prepare:
    instances: 1
    memory: 256m
    command: [sh, -c, "touch {folder}/here-{queue}; while [ ! -e {folder}/go ]; do sleep 0.05; done"]
  worker: {{instances: 4, memory: 1g, command: [sleep, "1"], depends_on: [prepare]}}
"""
FLAGS = (
    *("-c", "gang_timeout=5s", "-c", "times.gang_rounds=8"),
    *("-c", "times.backoff_min=1s", "-c", "times.backoff_max=8s"),
)


def submit(queue: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Begin to submit and follow one of the two."""
    (folder / f"{queue}.yaml").write_text(JOB.format(queue=queue, folder=folder))
    command = [*measure.tony_command(), "--json", "submit", "-f", f"{queue}.yaml", *FLAGS]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def once(folder: Path, environment: dict[str, str]) -> tuple[list[str], float, bool]:
    """Both jobs: their reasons, seconds from the common moment to the later one's end, whether one gave back."""
    clients = [submit(queue, folder, environment) for queue in QUEUES]
    reasons, gave_back = [], []
    try:
        measure.wait_until(lambda: all((folder / f"here-{queue}").exists() for queue in QUEUES), RUN_S, "both jobs")
        began = time.monotonic()
        (folder / "go").touch()
        for client in clients:
            output, errors = client.communicate(timeout=max(1.0, RUN_S - (time.monotonic() - began)))
            document = json.loads(output.splitlines()[-1]) if output else {}
            reasons.append(str(document.get("reason") or errors.strip().splitlines()[-1]))
            gave_back.append(int(document.get("generations", 0)) > 1)
    finally:
        for client in clients:
            if client.poll() is None:
                client.terminate()
                client.communicate(timeout=60)
    return reasons, time.monotonic() - began, any(gave_back)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    chosen = parser.parse_args()
    with measure.workspace("half-gang") as work:
        own = LocalCluster(work / "cluster")
        seconds: list[float] = []
        both = stuck = 0
        try:
            own.start(ClusterSettings(2, MEMORY_MB, 32, queues=QUEUES))
            environment = {
                **os.environ,
                "HADOOP_CONF_DIR": str(own.conf_dir),
                "PATH": f"{own.bin_dir}:{os.environ['PATH']}",
                "TONY_STATE_DIR": str(work / "state"),
                "NO_COLOR": "1",
            }
            for run in range(1, chosen.runs + 1):
                folder = work / f"run-{run}"
                folder.mkdir()
                reasons, took_s, gave_back = once(folder, environment)
                good = reasons == ["SUCCEEDED", "SUCCEEDED"]
                both += good
                stuck += gave_back
                seconds.append(took_s)
                print(
                    f"# {run}: {' '.join(reasons)}, {took_s:.0f} s{', given back' if gave_back else ''}",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            own.delete()
    print(f"# {measure.machine_line()}\n")
    print("Two gangs of four, room for one:\n")
    seconds.sort()
    row = [f"{both}/{chosen.runs}", str(stuck), f"{seconds[len(seconds) // 2]:.0f}", f"{seconds[-1]:.0f}"]
    print(measure.table(("both finished", "runs in which one gave back", "seconds, median", "worst"), [row]))


if __name__ == "__main__":
    main()
