"""Walk the fault matrix: ``python -m tests.faults.walk --backend local --seeds 20 --only 1,2,3 --resume FILE``.

Every run draws its victim and its point from a seed that is printed; a run of the same seed draws the same. What is
done is kept in the resume file, one JSON line a run, and is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.faults import FAULTS, Fault
from tests.faults.injector import NotReached, Scene, Site
from tests.faults.invariants import Seen, inspect
from tony.localcluster.cluster import ClusterSettings, LocalCluster
from tony.localjobs import LocalJobs

STEPS = 60


@dataclass(frozen=True)
class Run:
    """One walked fault."""

    key: str
    backend: str
    seed: int
    point: str
    victim: int
    seconds: float
    seen: Seen

    @property
    def right(self) -> bool:
        """Whether everything was as it has to be."""
        return not self.seen.violations and not self.seen.leftovers


def walk(fault: Fault, site: Site, seed: int, folder: Path) -> Run:
    """Run one job, hurt it, and look at what is left. `folder` is new, and removed when all was right."""
    rng = random.Random(f"{fault.key} {seed}")
    scene = Scene(site, folder, rng, fault.workers, rng.randrange(2), wrapped=fault.wrapped)
    point = rng.choice(fault.points).replace("*", str(rng.randint(1, STEPS // 4)))
    arguments = list(fault.arguments)
    if "--trouble" in arguments:
        arguments += ["--rank", str(scene.victim)] + (
            [] if "--at" in arguments else ["--at", str(rng.randint(1, 10))]
        )
    if "--steps" not in arguments:
        arguments += ["--steps", str(STEPS)]
    if fault.prepare is not None:
        fault.prepare(scene)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        seen = _hurt(fault, scene, point, arguments)
    finally:
        scene.close()
    return Run(fault.key, site.backend, seed, point, scene.victim, round(time.monotonic() - began, 1), seen)


def _hurt(fault: Fault, scene: Scene, point: str, arguments: Sequence[str]) -> Seen:
    scene.begin(arguments, fault.flags)
    try:
        if fault.act is not None:
            scene.reach(point)
            fault.act(scene)
        else:
            scene.find()
        code, document = scene.result(fault.limit_s)
        if not scene.known():
            right = code == fault.expected.code
            wrong = () if right else (f"exit code {code}, nothing submitted: {scene.last_words()}",)
            return Seen("nothing submitted", "", code, violations=wrong)
        if fault.expected.code == -9:
            scene.handle.wait(fault.limit_s)
        elif not scene.injected_at:
            _mark_trouble(scene)
        return _inspected(fault, scene, code, document)
    except NotReached as error:
        return Seen(violations=(str(error),), leftovers=())


def _mark_trouble(scene: Scene) -> None:
    at = [line["at"] for line in scene.lines(scene.victim) if line["what"] == "trouble"]
    scene.injected_at = at[0] if at else 0.0


def _inspected(fault: Fault, scene: Scene, code: int, document: dict[str, object]) -> Seen:
    scene.hear_out()
    seen = inspect(scene, fault.expected, code, document)
    if scene.notes:
        return Seen(**{**asdict(seen), "violations": (*seen.violations, *scene.notes)})
    return seen


# Sites --------------------------------------------------------------------------------------------------------


def local_site(folder: Path) -> Site:
    """This machine's processes, with a state folder of its own."""
    state = folder / "state"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TONY_")}
    environment |= {"TONY_CLUSTER": "local", "TONY_STATE_DIR": str(state)}
    os.environ["TONY_STATE_DIR"] = str(state)
    return Site("local", environment, LocalJobs(state), state)


def yarn_site(folder: Path, conf_dir: Path, bin_dir: Path, own: LocalCluster | None = None) -> Site:
    """A YARN that runs already; `own` when its daemons may be hurt."""
    from tony.clusters import Address, connect

    state = folder / "state"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TONY_")}
    environment |= {
        "TONY_CLUSTER": "yarn",
        "TONY_STATE_DIR": str(state),
        "HADOOP_CONF_DIR": str(conf_dir),
        "PATH": f"{bin_dir}:{environment['PATH']}",
    }
    os.environ["TONY_STATE_DIR"] = str(state)
    return Site("yarn", environment, connect(Address("yarn", str(conf_dir), str(bin_dir)), state), state, own)


@contextmanager
def site(
    backend: str, conf_dir: Path | None = None, bin_dir: Path | None = None, keep: bool = False
) -> Iterator[tuple[Site, Path]]:
    """A back-end and a folder for its jobs, which goes away with it."""
    folder = Path(tempfile.mkdtemp(prefix="walk-"))
    own = LocalCluster(folder / "cluster") if backend == "own" else None
    if own is not None:
        own.start(ClusterSettings(nodes=2, memory_mb=8192, vcores=64, gpus=8))
        where = yarn_site(folder, own.conf_dir, own.bin_dir, own)
    elif backend == "yarn":
        assert conf_dir is not None and bin_dir is not None, "--conf-dir and --bin-dir are needed"
        where = yarn_site(folder, conf_dir, bin_dir)
    else:
        where = local_site(folder)
    try:
        yield where, folder
    finally:
        where.cluster.close()
        if own is not None:
            own.stop()
        if keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


# Table --------------------------------------------------------------------------------------------------------


def kept(path: Path | None) -> list[Run]:
    """What was walked before."""
    if path is None or not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [Run(**{**line, "seen": Seen(**{**line["seen"], **_tuples(line["seen"])})}) for line in lines]


def _tuples(seen: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(seen[name]) for name in ("leftovers", "violations")}


def table(runs: Sequence[Run]) -> Iterator[str]:
    """Fault, seeds, final state, reason, worst times, leftovers; then every run that was not right."""
    yield "| fault | seeds right | final state | reason | root cause | detect s | recover s | leftovers |"
    yield "|---|---|---|---|---|---|---|---|"
    for key in dict.fromkeys(run.key for run in runs):
        mine = [run for run in runs if run.key == key]
        seen = [run.seen for run in mine]
        words = [
            key,
            f"{sum(run.right for run in mine)}/{len(mine)}",
            "/".join(sorted({s.state or "?" for s in seen})),
            "/".join(sorted({s.reason or "?" for s in seen})),
            "/".join(sorted({s.cause for s in seen})) or "-",
            _worst([s.detect_s for s in seen]),
            _worst([s.recover_s for s in seen]),
            str(sum(len(s.leftovers) for s in seen)),
        ]
        yield "| " + " | ".join(words) + " |"
    for run in runs:
        if not run.right:
            said = "; ".join((*run.seen.violations, *run.seen.leftovers))
            yield f"NOT RIGHT {run.key}, seed {run.seed}, {run.point}, victim {run.victim}: {said}"


def _worst(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.1f}" if known else "-"


def chosen(backend: str, only: str) -> list[Fault]:
    """The faults of that back-end; `only` names rows, or words of names, separated by commas."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    return [
        fault
        for fault in FAULTS
        if (backend in fault.where or (backend == "own" and "yarn" in fault.where))
        and (not words or any(w == str(fault.row) or (not w.isdigit() and w in fault.name) for w in words))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every run was right."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.walk", description=__doc__)
    parser.add_argument("--backend", choices=("local", "yarn", "own"), default="local")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", default="", help="rows or words of names, separated by commas")
    parser.add_argument("--resume", type=Path, help="what is done is kept here, and not done again")
    parser.add_argument("--conf-dir", type=Path, help="Hadoop's configuration, with --backend yarn")
    parser.add_argument("--bin-dir", type=Path, help="yarn and hdfs, with --backend yarn")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that were not right")
    options = parser.parse_args(arguments)

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    plan = [(fault, seed) for seed in seeds for fault in chosen(options.backend, options.only)]
    with site(options.backend, options.conf_dir, options.bin_dir, options.keep) as (where, folder):
        runs = walk_all(plan, where, folder, options.resume, options.keep)
    for line in table(runs):
        print(line)
    return 0 if all(run.right for run in runs) else 1


def walk_all(
    plan: Sequence[tuple[Fault, int]], where: Site, folder: Path, resume: Path | None = None, keep: bool = False
) -> list[Run]:
    """Every fault with its seed, one after the other; those that `resume` holds are not run again."""
    done = {(run.key, run.backend, run.seed): run for run in kept(resume)}
    runs: list[Run] = []
    for fault, seed in plan:
        run = done.get((fault.key, where.backend, seed))
        if run is None:
            place = folder / f"{fault.row}-{len(runs)}"
            place.mkdir()
            run = walk(fault, where, seed, place)
            word = "right" if run.right else "NOT RIGHT: " + "; ".join((*run.seen.violations, *run.seen.leftovers))
            print(f"{run.key}, seed {seed}, {run.point}, victim {run.victim}, {run.seconds} s: {word}", flush=True)
            if resume is not None:
                with resume.open("a") as lines:
                    lines.write(json.dumps(asdict(run)) + "\n")
            if run.right or not keep:
                shutil.rmtree(place, ignore_errors=True)
        runs.append(run)
    return runs


if __name__ == "__main__":
    sys.exit(main())
