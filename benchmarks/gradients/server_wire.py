"""Row 3: bytes between workers and a parameter server, push and pull together, each task in a network of its own.

    sudo -E python -m benchmarks.gradients.server_wire --python P --modes fp32 bf16 4/32 4/4 2/4

TensorFlow's own ParameterServerStrategy in all modes. "4/32" compresses the push only, as MXNet's 2-bit key-value
store does. Prints one JSON line a mode.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from benchmarks.gradients.network import Network
from benchmarks.gradients.results import add_out, tell

MODES = ("fp32", "bf16", "8/8", "4/32", "2/32", "4/4", "2/4", "2/2")
PORT = 34222
ROOT = str(Path(__file__).resolve().parents[2])


class Tasks:
    """A chief, workers and one ps, each in its own namespace. A context manager; their stderr is one file, `log`."""

    def __init__(self, network: Network, python: str, elements: int, log: IO[bytes]) -> None:
        self._network = network
        self._command = [python, "-m", "benchmarks.gradients.server_rank", str(elements)]
        self._log = log
        self._exit = ExitStack()

    def __enter__(self) -> Tasks:
        size = self._network.size
        hosts = [f"{self._network.address(rank)}:{PORT}" for rank in range(size)]
        spec = {"chief": hosts[:1], "ps": hosts[1:2], "worker": hosts[2:]}
        places = [("chief", 0), ("ps", 0), *(("worker", index) for index in range(size - 2))]
        tasks = [self._start(rank, {"cluster": spec, "task": place}) for rank, place in enumerate(places)]
        self._chief = tasks[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self, mode: str, steps: int) -> list[float]:
        """Let the workers make so many steps; blocks until they have. Seconds of each."""
        assert self._chief.stdin is not None and self._chief.stdout is not None
        self._chief.stdin.write(f"{mode} {steps}\n")
        self._chief.stdin.flush()
        line = self._chief.stdout.readline()
        if not line:
            raise RuntimeError(f"the chief ended with exit code {self._chief.wait(timeout=10)}; see --log")
        return list(json.loads(line)["seconds"])

    def _start(self, rank: int, config: dict[str, object]) -> subprocess.Popen[str]:
        job, index = config["task"]  # type: ignore[misc]
        config = config | {"task": {"type": job, "index": index}}
        settings = {"TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(
            self._network.inside(rank, self._command),
            env=os.environ | settings,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.wait(timeout=10)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

        self._exit.callback(end)
        return process


def measure(network: Network, tasks: Tasks, mode: str, elements: int, steps: int) -> dict[str, object]:
    """Warm up, and count `steps` steps at the workers' interfaces."""
    workers = range(2, network.size)
    tasks.run(mode, 3 * len(workers))
    before = [network.counters(rank) for rank in workers]
    times = tasks.run(mode, steps)
    after = [network.counters(rank) for rank in workers]
    pushed = sum(b.sent - a.sent for a, b in zip(before, after, strict=True)) / elements / steps
    pulled = sum(b.received - a.received for a, b in zip(before, after, strict=True)) / elements / steps
    return {
        "mode": mode,
        "workers": len(workers),
        "elements": elements,
        "rate": network.rate or "none",
        "pushed bytes/element/step": round(pushed, 4),
        "pulled bytes/element/step": round(pulled, 4),
        "bytes/element/step": round(pushed + pulled, 4),
        "median ms": round(1000 * statistics.median(times), 1),
        "fastest ms": round(1000 * min(times), 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--elements", type=int, default=4_194_304)
    parser.add_argument("--rate", default=None, help="of each link, for example 100mbit")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--python", default=sys.executable, help="an interpreter with TensorFlow")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="a file for the tasks' stderr")
    add_out(parser)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces are removed then too
    base: dict[str, tuple[float, float]] = {}
    with (
        Network(2 + chosen.workers, chosen.rate) as network,
        chosen.log.open("wb") as log,
        Tasks(network, chosen.python, chosen.elements, log) as tasks,
    ):
        for mode in chosen.modes:
            row = measure(network, tasks, mode, chosen.elements, chosen.steps)
            size, time = float(str(row["bytes/element/step"])), float(str(row["median ms"]))
            base[mode] = (size, time)
            for other in ("fp32", "bf16"):
                if other in base:
                    row[f"fewer bytes than {other}"] = round(base[other][0] / size, 2)
                    row[f"faster than {other}"] = round(base[other][1] / time, 2)
            tell(row, chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
