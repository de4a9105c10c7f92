"""Many short jobs, one random fault each: ``python -m tests.faults.soak --jobs 200 --resume FILE``.

The seed of the whole soak decides which fault comes when; every job draws its victim and its point from its own.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.walk import chosen, site, table, walk_all


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every job ended as it had to."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--backend", choices=("local", "yarn", "own"), default="local")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="rows or words of names, separated by commas")
    parser.add_argument("--resume", type=Path, help="what is done is kept here, and not done again")
    parser.add_argument("--conf-dir", type=Path, help="Hadoop's configuration, with --backend yarn")
    parser.add_argument("--bin-dir", type=Path, help="yarn and hdfs, with --backend yarn")
    options = parser.parse_args(arguments)

    rng = random.Random(options.seed)
    faults = chosen(options.backend, options.only)
    plan = [(rng.choice(faults), 1_000_000 * options.seed + number) for number in range(options.jobs)]
    print(f"{options.jobs} jobs, seed {options.seed}, {len(faults)} faults", flush=True)
    with site(options.backend, options.conf_dir, options.bin_dir) as (where, folder):
        runs = walk_all(plan, where, folder, options.resume)
    for line in table(runs):
        print(line)
    wrong = sum(not run.right for run in runs)
    print(f"{len(runs)} jobs, {wrong} not right, {sum(len(run.seen.leftovers) for run in runs)} leftovers")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
