"""The user's script of the recovery benchmark: all ranks step together; every step is marked with its wall time.

steps.py FOLDER STEPS. It runs under this project and under torchrun: both give MASTER_ADDR, MASTER_PORT, RANK and
WORLD_SIZE. A rank appends "TIME STEP PID" to FOLDER/rank-N.
"""

import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

folder, steps = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank = dist.get_rank()
value = torch.ones(1)
with open(f"{folder}/rank-{rank}", "a", buffering=1) as marks:
    for step in range(steps):
        dist.all_reduce(value)
        value /= dist.get_world_size()
        marks.write(f"{time.time()!r} {step} {os.getpid()}\n")
        time.sleep(0.02)
