"""Adds one for each rank and step with Horovod's elastic mode, on as many ranks as there are, until a file is there.

Every rank appends to the folder's ``rounds.txt`` whenever it has begun anew: pid, rank, world size, step, index.
"""

import json
import os
import sys
import time
from pathlib import Path

import horovod.tensorflow as hvd
import tensorflow as tf
from horovod.common.elastic import ObjectState

from tony import current

folder = Path(sys.argv[1])


@hvd.elastic.run
def train(state):
    line = [os.getpid(), hvd.rank(), hvd.size(), state.step, int(os.environ["TONY_INDEX"])]
    with (folder / "rounds.txt").open("a") as rounds:
        rounds.write(json.dumps(line) + "\n")
    while not state.enough:
        total = hvd.allreduce(tf.ones(1), op=hvd.Sum, name="total").numpy()[0]
        assert total == hvd.size()
        state.step += 1
        state.weights = state.weights + total
        current().report(step=state.step)
        state.enough = bool(hvd.broadcast_object((folder / "enough").exists(), 0))
        time.sleep(0.02)  # a step that takes its time
        if state.step == 10 and hvd.rank() == 0:
            (folder / "steps").touch()
        state.commit()


hvd.init()
state = ObjectState(hvd.broadcast_object, hvd.rank, step=0, weights=0.0, enough=False)
train(state)
all_weights = hvd.allgather_object((state.step, float(state.weights)))
assert len(set(all_weights)) == 1, all_weights
print(f"end rank={hvd.rank()} size={hvd.size()} step={state.step} weights={state.weights}", flush=True)
