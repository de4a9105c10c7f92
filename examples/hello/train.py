"""The smallest job: each task says who it is, works for a moment and reports how far it got."""

import argparse
import time

from tony import current

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
epochs = parser.parse_args().epochs

task = current()
print(f"hello from rank {task.rank} of {task.world_size}", flush=True)
for step in range(1, epochs + 1):
    time.sleep(0.2)
    task.report(step=step)
print(f"rank {task.rank} is done", flush=True)
