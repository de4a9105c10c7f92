"""Trains a Keras model with Horovod's own classes for its elastic mode, until a file is there; as `lives_on.py`."""

import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import horovod.tensorflow.keras as hvd
import numpy as np
import tf_keras as keras
from horovod.tensorflow.functions import broadcast_object

from tony import current

folder = Path(sys.argv[1])


class Tell(keras.callbacks.Callback):
    """Progress for tony and for the test; the end when all ranks see that it is enough."""

    def on_epoch_end(self, epoch, logs=None):
        current().report(step=state.epoch)
        if state.epoch == 3 and hvd.rank() == 0:
            (folder / "steps").touch()
        time.sleep(0.2)  # an epoch that takes its time
        if bool(broadcast_object((folder / "enough").exists(), 0)):
            self.model.stop_training = True


@hvd.elastic.run
def train(state):
    line = [os.getpid(), hvd.rank(), hvd.size(), state.epoch, int(os.environ["TONY_INDEX"])]
    with (folder / "rounds.txt").open("a") as rounds:
        rounds.write(json.dumps(line) + "\n")
    callbacks = [hvd.elastic.CommitStateCallback(state), hvd.elastic.UpdateEpochStateCallback(state), Tell()]
    state.model.fit(x, y, batch_size=64, epochs=100_000, callbacks=callbacks, verbose=0)


hvd.init()
x = np.random.default_rng(0).standard_normal((256, 16)).astype("float32")
y = (x.sum(1) > 0).astype("int64")
model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
model.compile(
    hvd.DistributedOptimizer(keras.optimizers.SGD(0.05)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=False,
)
model.optimizer.build(model.trainable_variables)  # a step would exchange gradients: not before train()
state = hvd.elastic.KerasState(model, epoch=0)
train(state)
own = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
copies = np.asarray(hvd.allgather(own[np.newaxis], name="weights"))
assert (copies == copies[0]).all(), "the ranks ended with different weights"
