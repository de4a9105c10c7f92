"""Rows 1, 4 and 5: bytes on every rank's interface, and the time of a step, each rank in a network of its own.

    sudo -E python -m benchmarks.gradients.wire --ranks 4 --rate 100mbit --modes fp32 fp16 2 4 8

Compares with Horovod's own float32 and float16 allreduce, a float32 ring at line rate (computed), and QSGD as
published (int8 codes by allgather). The modes take turns, so that other load hits all of them. Prints one JSON line
a mode.
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

from benchmarks.gradients.network import INTERFACE, Network
from benchmarks.gradients.results import add_out, tell

MODES = ("fp32", "fp16", "allgather", "8", "4", "2", "2/4", "auto")
PORT = 34111
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
START_TIMEOUT_S = 300


class Ranks:
    """One process a rank, each in its own namespace. A context manager; its stderr is one file, `log`."""

    def __init__(self, network: Network, python: str, elements: int, log: IO[bytes]) -> None:
        self._network = network
        self._python = python
        self._log = log
        self._elements = elements
        self._exit = ExitStack()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Ranks:
        root = str(Path(__file__).resolve().parents[2])
        network = self._network
        store = self._start(0, ["-m", "benchmarks.gradients.rendezvous", network.address(0), str(PORT)], {}, root)
        _line(store)
        for rank in range(network.size):
            environment = {
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": network.address(0),
                "HOROVOD_GLOO_RENDEZVOUS_PORT": str(PORT),
                "HOROVOD_RANK": str(rank),
                "HOROVOD_SIZE": str(network.size),
                "HOROVOD_LOCAL_RANK": "0",
                "HOROVOD_LOCAL_SIZE": "1",
                "HOROVOD_CROSS_RANK": str(rank),
                "HOROVOD_CROSS_SIZE": str(network.size),
                "HOROVOD_HOSTNAME": f"host{rank}",
                "HOROVOD_GLOO_IFACE": INTERFACE,
                "HOROVOD_GLOO_TIMEOUT_SECONDS": str(START_TIMEOUT_S),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "CUDA_VISIBLE_DEVICES": "",
            }
            arguments = ["-m", "benchmarks.gradients.rank", str(self._elements)]
            self._processes.append(self._start(rank, arguments, environment, root))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self, mode: str, steps: int) -> list[dict[str, object]]:
        """Let all ranks make so many steps; blocks until they have."""
        for process in self._processes:
            _stdin(process).write(f"{mode} {steps}\n")
            _stdin(process).flush()
        return [json.loads(_line(process)) for process in self._processes]

    def _start(self, rank: int, arguments: list[str], extra: dict[str, str], root: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._network.inside(rank, [self._python, *arguments]),
            env=os.environ | extra,
            cwd=root,
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


class Measured:
    """What one mode took, over all turns."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.codec: object = ""
        self._bytes: list[float] = []
        self._seconds: list[float] = []

    def turn(self, network: Network, ranks: Ranks, steps: int) -> None:
        """Warm up, and count `steps` steps; of each the slowest rank."""
        ranks.run(self.mode, 2)
        before = [network.counters(rank) for rank in range(network.size)]
        answers = ranks.run(self.mode, steps)
        after = [network.counters(rank) for rank in range(network.size)]
        self.codec = answers[0].get("codec", "")
        self._bytes += [(b.sent - a.sent) / steps for a, b in zip(before, after, strict=True)]
        self._seconds += [max(step) for step in zip(*(answer["seconds"] for answer in answers), strict=True)]

    def row(self, network: Network, elements: int) -> dict[str, object]:
        return {
            "mode": self.mode,
            "ranks": network.size,
            "elements": elements,
            "rate": network.rate or "none",
            # the median of the turns: now and then TCP sends a 64 KiB segment again that was only late
            "bytes/element/step": round(statistics.median(self._bytes) / elements, 4),
            "steps": len(self._seconds),
            "median ms": round(1000 * statistics.median(self._seconds), 1),
            "fastest ms": round(1000 * min(self._seconds), 1),
            "slowest ms": round(1000 * max(self._seconds), 1),
            "codec": self.codec,
        }


def line_rate_ms(ranks: int, elements: int, rate: str | None) -> float | None:
    """Milliseconds of an ideal float32 ring, or None without a limit."""
    if rate is None:
        return None
    bits = float(rate[:-4]) * UNITS[rate[-4:]]
    return 2 * (ranks - 1) / ranks * 4 * elements * 8 / bits * 1000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--elements", type=int, default=2_097_152)
    parser.add_argument(
        "--rate", nargs="+", default=[None], help="of each link, for example 100mbit; several in turn"
    )
    parser.add_argument("--steps", type=int, default=5, help="of each mode in each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--python", default=sys.executable, help="an interpreter with TensorFlow and Horovod")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="a file for the ranks' stderr")
    add_out(parser)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces are removed then too
    with (
        Network(chosen.ranks) as network,
        chosen.log.open("wb") as log,
        Ranks(network, chosen.python, chosen.elements, log) as ranks,
    ):
        for rate in chosen.rate:
            network.limit(rate)
            compare(network, ranks, chosen)
    return 0


def compare(network: Network, ranks: Ranks, chosen: argparse.Namespace) -> None:
    """Measure the modes in turns, and tell of each."""
    base: dict[str, tuple[float, float]] = {}
    all_measured = [Measured(mode) for mode in chosen.modes]
    for _ in range(chosen.turns):
        for measured in all_measured:
            measured.turn(network, ranks, chosen.steps)
    for measured in all_measured:
        row, mode = measured.row(network, chosen.elements), measured.mode
        size, time = float(str(row["bytes/element/step"])), float(str(row["median ms"]))
        base[mode] = (size, time)
        for other in ("fp32", "fp16"):
            if other in base:
                row[f"fewer bytes than {other}"] = round(base[other][0] / size, 2)
                row[f"faster than {other}"] = round(base[other][1] / time, 2)
        row["ideal fp32 ring ms"] = line_rate_ms(chosen.ranks, chosen.elements, network.rate)
        tell(row, chosen.out)


def _stdin(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a rank ended with exit code {process.wait(timeout=10)}; see --log")
    return line


if __name__ == "__main__":
    sys.exit(main())
