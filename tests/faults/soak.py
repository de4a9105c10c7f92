"""Many short jobs, one random fault each: ``python -m tests.faults.soak --folder F --jobs 200``.

The seed of the whole soak decides which fault comes when; every job draws its victim and its point from its own.
What is done is kept in ``F/soak-<backend>.jsonl``, and is not done again. At the end, the table.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Sequence

from tests.faults.sites import ground
from tests.faults.walk import chosen, leave, options_of, report, walk_all


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every job ended as it had to."""
    parser = options_of("soak", __doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, leave)
    rng = random.Random(options.seed)
    with ground(options.backend, options.conf_dir, options.bin_dir, options.keep, options.patience) as where:
        faults = chosen(where, options.only)
        plan = [(rng.choice(faults), 1_000_000 * options.seed + number) for number in range(options.jobs)]
        results = options.folder / f"soak-{options.backend}.jsonl"
        runs = walk_all(plan, where, results, options.parallel, options.keep, options.again)
    return report(runs)


if __name__ == "__main__":
    sys.exit(main())
