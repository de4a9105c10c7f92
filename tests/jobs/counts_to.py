"""Counts to a number, one step in a tenth of a second, from its checkpoint on; saves it at SIGTERM, too.

Every start appends a line to `starts.txt` beside the checkpoint: generation, rank, world size, first step.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from tony import current

folder = Path(sys.argv[2])
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
saved = folder / "step"
step = int(saved.read_text()) if saved.exists() else 0


def save() -> None:
    if rank == 0:
        (folder / "step.new").write_text(str(step))
        (folder / "step.new").rename(saved)


def end(*_: object) -> None:
    save()
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
line = [int(os.environ["TONY_GENERATION"]), rank, world, step, os.environ["TONY_INDEX"]]
with (folder / "starts.txt").open("a") as starts:
    starts.write(json.dumps(line) + "\n")
while step < int(sys.argv[1]) and not (folder / "enough").exists():
    time.sleep(0.1)
    step += 1
    current().report(step=step)
save()
