"""Nobody is declared dead for being slow: ``python -m tests.faults.saturated --minutes 60``.

One job trains while every core is kept busy by processes that do nothing else. Printed: how the job ended, how many
tasks were declared lost or failed (there must be none), the longest pause between two steps of a rank.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.injector import Scene
from tests.faults.runs import RESULTS, version
from tests.faults.sites import ground, site_at

_STEP_S = 0.25


@contextmanager
def busy(each: int, nice: int) -> Iterator[None]:
    """`each` busy processes for every core; `nice`: 19 takes what others leave, 0 as much as everybody."""
    command = ["nice", "-n", str(nice), sys.executable, "-c", "while True: pass"]
    burning = [subprocess.Popen(command) for _ in range(each * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def processor_s() -> tuple[float, float]:
    """Seconds that all cores together were idle, and all seconds there were."""
    fields = [float(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    return (fields[3] + fields[4]) / tick, sum(fields) / tick


def longest_pause_s(scene: Scene) -> float:
    """The longest time between two steps that follow each other, over all ranks."""
    pauses = [0.0]
    for rank in range(scene.workers):
        at = [line["at"] for line in scene.lines(rank) if line["what"] == "step"]
        pauses += [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    return max(pauses)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nobody was declared dead and the job succeeded."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.saturated", description=__doc__)
    parser.add_argument("--backend", choices=("local", "yarn"), default="local")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--busy", type=int, default=2, help="busy processes for each core")
    parser.add_argument("--nice", type=int, default=0, help="of the busy processes")
    parser.add_argument("--keep", action="store_true", help="among the results of walks")
    parser.add_argument("--conf-dir", type=Path)
    parser.add_argument("--bin-dir", type=Path)
    options = parser.parse_args(arguments)

    with ground(options.backend, options.conf_dir, options.bin_dir) as where:
        scene = Scene(site_at(where, where.folder / "state"), where.folder / "job", random.Random(1), options.workers)
        scene.folder.mkdir()
        steps = int(options.minutes * 60 / _STEP_S)
        began = time.monotonic()
        idle_s, all_s = processor_s()
        try:
            with busy(options.busy, options.nice):
                # Beats, silence and lease are those that ship.
                scene.begin(("--steps", str(steps), "--pause", str(_STEP_S), "--alone"), ())
                scene.find()
                code, document = scene.result(options.minutes * 60 * 4 + 300)
                idle_s, all_s = (now - before for now, before in zip(processor_s(), (idle_s, all_s), strict=True))
            scene.hear_out()
            dead = [e.text for e in scene.events if e.fields.get("state") in ("LOST", "FAILED")]
            said = json.dumps(
                {
                    "at": time.strftime("%Y-%m-%d"),
                    "back-end": options.backend,
                    "product": version(),
                    "minutes": round((time.monotonic() - began) / 60, 1),
                    "workers": options.workers,
                    "busy processes": options.busy * (os.cpu_count() or 1),
                    "cores busy, %": round(100 * (1 - idle_s / all_s), 1),
                    "load": [round(load, 1) for load in os.getloadavg()],
                    "state": document.get("state"),
                    "generations": document.get("generations"),
                    "declared dead": dead,
                    "longest pause between two steps, s": round(longest_pause_s(scene), 2),
                }
            )
            print(said)
            if options.keep:
                with (RESULTS / "saturated.jsonl").open("a") as lines:
                    lines.write(said + "\n")
        finally:
            scene.close()
            scene.site.cluster.close()
    return 0 if code == 0 and not dead and document.get("generations") == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
