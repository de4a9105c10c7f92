"""Handwritten digits with Keras 3 over Horovod: ranks exchange their gradients as codes of a few bits."""

import os
import sys
from pathlib import Path

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tony.gradients.keras as tg
from tony import current
from tony.gradients.report import report

EPOCHS = 20
BATCH = 32  # of each rank
GOAL = 0.95


class Checkpoint(keras.callbacks.Callback):
    """Weights and momentum after each epoch, in one file; written by rank 0 when all have saved their residuals."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def restore(self, model):
        """Take back the newest file, if there is one; returns the epochs that it holds."""
        files = sorted(self.folder.glob("epoch-*.npz")) if hvd.rank() == 0 else []
        if files:
            model.optimizer.build(model.trainable_variables)
            with np.load(files[-1]) as saved:
                for number, variable in enumerate(self.variables(model)):
                    variable.assign(saved[str(number)])
        return hvd.broadcast_object(int(files[-1].stem[6:]) if files else 0, 0)

    def on_epoch_end(self, epoch, logs=None):
        hvd.allreduce(tf.zeros(1), name="saved")  # everybody's residuals are on disk
        if hvd.rank() == 0:
            values = {str(number): np.asarray(v.value) for number, v in enumerate(self.variables(self.model))}
            np.savez(self.folder / "new.npz", **values)
            (self.folder / "new.npz").rename(self.folder / f"epoch-{epoch + 1:03d}.npz")

    @staticmethod
    def variables(model):
        return [*model.variables, *model.optimizer.variables]


class Report(keras.callbacks.Callback):
    """Tells tony how far the training is."""

    def on_epoch_end(self, epoch, logs=None):
        current().report(step=epoch + 1, loss=logs["loss"])
        if hvd.rank() == 0:
            print(f"epoch {epoch + 1} loss={logs['loss']:.3f}", flush=True)


def checkpoint_folder():
    """Where a restarted job goes on from; None where the job's folder is not a mounted one."""
    folder = os.environ.get("TONY_CHECKPOINT_DIR", "").removeprefix("file://")
    if not folder or ":" in folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def main():
    hvd.init()
    keras.utils.set_random_seed(hvd.rank())
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.data.astype("float32") / 16, digits.target, test_size=0.2, random_state=0
    )
    share = len(train_x) // hvd.size()  # the same for all: every rank makes the same number of steps
    mine = slice(hvd.rank() * share, (hvd.rank() + 1) * share)

    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    optimizer = tg.DistributedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9))  # bits: as the job says
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)

    first, callbacks = 0, [tg.BroadcastInitialState(), Report()]
    if folder := checkpoint_folder():
        checkpoint = Checkpoint(folder)
        if first := checkpoint.restore(model):
            print(f"resumed after epoch {first}", flush=True)
        callbacks += [tg.SaveResiduals(folder / "residuals"), checkpoint]
    model.fit(
        train_x[mine],
        train_y[mine],
        batch_size=BATCH,
        epochs=EPOCHS,
        initial_epoch=first,
        shuffle=False,  # the same order after a restart
        callbacks=callbacks,
        verbose=0,
    )

    own = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
    copies = hvd.allgather(tf.constant(own)[tf.newaxis], name="weights").numpy()
    if (copies != copies[0]).any():
        sys.exit("the ranks ended with different weights")
    if lines := report(optimizer.tony_gradients.exchange) if hvd.size() > 1 else []:
        sent = sum(line.bytes_per_step for line in lines)
        ring = sum(line.bytes_per_step * line.ratio for line in lines)
        print(f"bytes={sent:.0f} a step and rank; as float32 {ring:.0f}, {ring / sent:.1f} times as many", flush=True)
    accuracy = float((np.argmax(model.predict_on_batch(test_x), axis=1) == test_y).mean())
    print(f"accuracy={accuracy:.3f}", flush=True)
    sys.exit(accuracy < GOAL)


if __name__ == "__main__":
    main()
