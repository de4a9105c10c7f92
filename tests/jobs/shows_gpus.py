"""Prints what this process may use of the GPUs."""

import os

from tony import current

job = current()
print(f"rank {job.rank} local {job.local_rank} devices {os.environ.get('CUDA_VISIBLE_DEVICES', 'unset') or 'none'}")
