"""The smallest job: each task says who it is, works for a moment and reports how far it got."""

import time

from tony import current

task = current()
print(f"hello from rank {task.rank} of {task.world_size}", flush=True)
for step in range(1, 6):
    time.sleep(0.2)
    task.report(step=step)
print(f"rank {task.rank} is done", flush=True)
