"""Walk the fault matrix: ``python -m tests.faults.walk --folder F --backend local --seeds 20 --only 1,2,partition``.

Every run draws its victim and its point from a seed that is printed; a run of the same seed draws the same. What is
done is kept in ``F/walk-<backend>.jsonl``, one line for each run, and is not done again: a walk may be broken off and
taken up, on another machine, too, or walked in parts. ``--again`` does again what was done with another version of
the product or of the faults. ``--backend yarn`` starts a YARN and an HDFS of its own, whose daemons are hurt, too;
with ``--conf-dir`` and ``--bin-dir`` it uses one that runs, and leaves its daemons alone. At the end, the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing.queues import Queue
from pathlib import Path
from types import FrameType

from tests.faults.fault import LEASE, OWN, STEPS, Fault
from tests.faults.faults import FAULTS
from tests.faults.injector import NotReached, Scene, Site
from tests.faults.invariants import Seen, inspect, left_by
from tests.faults.runs import RESULTS, Run, keep, kept, summary, table, version, wrong
from tests.faults.sites import Ground, ground, site_at

_INTERRUPTED = (-signal.SIGINT, -signal.SIGTERM)


def walk(fault: Fault, site: Site, seed: int, folder: Path) -> Run:
    """Run one job in a new `folder`, hurt it, and look at what is left."""
    rng = random.Random(f"{fault.key} {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(site, folder, rng, fault.workers, rng.randrange(2), wrapped=fault.wrapped)
    point = rng.choice(fault.points).replace("*", str(rng.randint(1, STEPS // 4)))
    arguments = list(fault.arguments)
    if "--trouble" in arguments:
        arguments += ["--rank", str(scene.victim)] + (
            [] if "--at" in arguments else ["--at", str(rng.randint(1, 10))]
        )
    if "--steps" not in arguments:
        arguments += ["--steps", str(STEPS)]
    load = os.getloadavg()[0]
    began = time.monotonic()
    try:
        if fault.prepare is not None:
            fault.prepare(scene)
        seen = _hurt(fault, scene, point, arguments)
    except Exception as error:  # noqa: BLE001 - one fault that could not be made does not end the walk
        seen = Seen(violations=(f"not walked: {type(error).__name__}: {str(error)[:300]}",), wrong_end=True)
    finally:
        scene.close()
    seconds = round(time.monotonic() - began, 1)
    at, cores = round(time.time(), 1), os.cpu_count() or 0
    return Run(
        fault.key, site.backend, seed, point, scene.victim, seconds, seen, at, round(load, 1), cores, version()
    )


def _hurt(fault: Fault, scene: Scene, point: str, arguments: Sequence[str]) -> Seen:
    try:
        # A short lease is a wait of the walk's, too: on a busy machine a master takes long to be there again.
        lease = f"times.lease={12 * scene.site.patience:.0f}s"
        scene.begin(arguments, [lease if flag == LEASE else flag for flag in fault.flags])
        if fault.act is not None:
            scene.reach(point)
            fault.act(scene)
        elif fault.submits:
            scene.find()
        code, document = scene.result(fault.limit_s)
        if not scene.known():
            return _refused(fault, scene, code, document)
        if fault.expected.code == -9:
            scene.handle.wait(fault.limit_s)
        elif not scene.injected_at:
            _mark_trouble(scene)
        return _inspected(fault, scene, code, document)
    except NotReached as error:
        return Seen(violations=(str(error), *scene.notes), wrong_end=True)


def _refused(fault: Fault, scene: Scene, code: int, document: dict[str, object]) -> Seen:
    """The cluster has never heard of the job: the client stopped it, or was stopped."""
    found = list(scene.notes)
    # A signal that comes before the client's first line ends it as the signal says: nothing was done yet.
    if code != fault.expected.code and not (fault.expected.reason == "CANCELLED" and code in _INTERRUPTED):
        found.append(f"exit code {code}, nothing submitted: {scene.last_words()}")
    reason, told = str(document.get("error", "")), None
    if not fault.submits:
        told = fault.says(f"{document.get('message', '')}\n{scene.words()}")
        if reason != fault.expected.reason:
            found.append(f"error {reason}, not {fault.expected.reason}")
        if not told:
            found.append(f"nothing says /{fault.expected.message}/: {scene.last_words()}")
    left = tuple(left_by(scene, fault.expected))
    return Seen("nothing submitted", reason, code, "", None, None, left, tuple(found), told, bool(found))


def _mark_trouble(scene: Scene) -> None:
    at = [line["at"] for line in scene.lines(scene.victim) if line["what"] == "trouble"]
    scene.injected_at = at[0] if at else 0.0


def _inspected(fault: Fault, scene: Scene, code: int, document: dict[str, object]) -> Seen:
    scene.hear_out()
    seen = inspect(scene, fault.expected, code, document)
    if scene.notes:
        return Seen(**{**asdict(seen), "violations": (*seen.violations, *scene.notes)})
    return seen


# Many ---------------------------------------------------------------------------------------------------------


def chosen(where: Ground, only: str) -> list[Fault]:
    """The faults of that back-end; `only` names rows, or words of names, separated by commas."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    return [
        fault
        for fault in FAULTS
        if (where.backend in fault.where or (where.hurtable and fault.where == OWN))
        and (fault.needs is None or fault.needs())
        and (not words or any(w == str(fault.row) or (not w.isdigit() and w in fault.name) for w in words))
    ]


def walk_all(
    plan: Sequence[tuple[Fault, int]],
    where: Ground,
    results: Path,
    parallel: int = 1,
    keep_wrong: bool = False,
    again: bool = False,
) -> list[Run]:
    """Every fault with its seed; those that `results` holds are not run again, `again`: unless by another version.

    `parallel` jobs run at once, each in a process with a state folder of its own; faults that hurt what others stand
    on come after them, one at a time.
    """
    done = {run.name: run for run in kept(results) if not again or run.version == version()}
    rest = [(fault, seed) for fault, seed in plan if (fault.key, where.backend, seed) not in done]
    together = [one for one in rest if not one[0].alone]
    for group, width in ((together, parallel), ([one for one in rest if one[0].alone], 1)):
        for run in _walked(group, where, width, keep_wrong):
            print(run.told, flush=True)
            keep(results, run)
            done[run.name] = run
    return [done[fault.key, where.backend, seed] for fault, seed in plan]


def _walked(plan: Sequence[tuple[Fault, int]], where: Ground, parallel: int, keep_wrong: bool) -> Iterator[Run]:
    if not plan:
        return
    context = multiprocessing.get_context("spawn")
    states: Queue[Path] = context.Queue()
    for number in range(parallel):
        states.put(where.folder / f"state-{number}")
    with ProcessPoolExecutor(parallel, context, _settle_in, (where, states)) as pool:
        runs: list[Future[Run]] = [pool.submit(_one, fault.key, seed, keep_wrong) for fault, seed in plan]
        try:
            for run in as_completed(runs):
                yield run.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_here: tuple[Site, Path] | None = None


def _settle_in(where: Ground, states: Queue[Path]) -> None:
    """A walking process's own site."""
    global _here
    signal.signal(signal.SIGTERM, leave)
    state = states.get()
    _here = site_at(where, state), where.folder


def _one(key: str, seed: int, keep_wrong: bool) -> Run:
    assert _here is not None
    site, folder = _here
    fault = next(fault for fault in FAULTS if fault.key == key)
    place = folder / f"{fault.row}-{FAULTS.index(fault)}-{seed}"
    run = walk(fault, site, seed, place)
    if run.right or not keep_wrong:
        shutil.rmtree(place, ignore_errors=True)
    return run


def leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


# Command ------------------------------------------------------------------------------------------------------


def options_of(program: str, text: str | None) -> argparse.ArgumentParser:
    """What walk and soak have in common."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.faults.{program}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=Path, default=RESULTS, help=f"what is done is kept here (default: {RESULTS})"
    )
    parser.add_argument(
        "--again", action="store_true", help="not what was done with this version, but what with others"
    )
    parser.add_argument("--backend", choices=("local", "yarn"), default="local")
    parser.add_argument("--only", default="", help="rows or words of names, separated by commas")
    parser.add_argument("--parallel", type=int, default=1, help="jobs at once")
    parser.add_argument("--conf-dir", type=Path, help="Hadoop's configuration of a YARN that runs already")
    parser.add_argument("--bin-dir", type=Path, help="its commands yarn and hdfs")
    parser.add_argument("--patience", type=float, default=1.0, help="times as long to wait, on a busy machine")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that were not right")
    return parser


def report(runs: Sequence[Run]) -> int:
    """Print the table; 0 when every run was right."""
    for line in (*table(runs), "", *wrong(runs), summary(runs)):
        print(line)
    return 0 if all(run.right for run in runs) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every run was right."""
    parser = options_of("walk", __doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, leave)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with ground(options.backend, options.conf_dir, options.bin_dir, options.keep, options.patience) as where:
        plan = [(fault, seed) for seed in seeds for fault in chosen(where, options.only)]
        results = options.folder / f"walk-{options.backend}.jsonl"
        runs = walk_all(plan, where, results, options.parallel, options.keep, options.again)
    return report(runs)


if __name__ == "__main__":
    sys.exit(main())
