"""Ranks meet; in the first generation rank 1 dies, as its argument says: before it has met the others, or after."""

import os
import signal
import sys
import time

when, how = sys.argv[1:]
rank, generation = int(os.environ["HOROVOD_RANK"]), int(os.environ["TONY_GENERATION"])


def die() -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(3)


if when == "before" and rank == 1 and generation == 1:
    time.sleep(1)
    die()

import horovod.tensorflow as hvd  # noqa: E402
import tensorflow as tf  # noqa: E402

hvd.init()
if when == "after" and rank == 1 and generation == 1:
    die()
for _ in range(20):
    total = hvd.allreduce(tf.constant([float(rank + 1)]), op=hvd.Sum, name="total").numpy()[0]
print(f"total={total} generation={generation}", flush=True)
hvd.shutdown()
