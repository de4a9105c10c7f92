"""Sums the ranks over all processes with torch.distributed, and says what it is."""

import os

import torch
import torch.distributed as dist

from tony import current

dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank()])
dist.all_reduce(total)
job = current()
assert job.rank == dist.get_rank() == int(os.environ["RANK"])
assert job.world_size == dist.get_world_size()
print(f"rank {job.rank} local {job.local_rank} of {job.local_world_size} sum {total.item()}", flush=True)
dist.barrier()
dist.destroy_process_group()
