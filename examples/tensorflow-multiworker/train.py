"""Handwritten digits with MultiWorkerMirroredStrategy: each worker trains on its part of every batch."""

import os
import signal
import sys

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tony import current

EPOCHS = 15
BATCH = 128  # of all workers together
GOAL = 0.95


class Report(tf.keras.callbacks.Callback):
    """Tells tony how far the training is, and people where it went on."""

    first = True

    def on_epoch_begin(self, epoch, logs=None):
        if self.first and epoch:
            print(f"resumed after epoch {epoch}", flush=True)
        self.first = False

    def on_epoch_end(self, epoch, logs=None):
        current().report(step=epoch + 1, loss=logs["loss"])
        if current().is_chief:
            print(f"epoch {epoch + 1} loss={logs['loss']:.3f}", flush=True)


def checkpoint_folder():
    """Where a restarted job goes on from; None where TensorFlow cannot write to the job's folder."""
    folder = os.environ.get("TONY_CHECKPOINT_DIR")
    if not folder:
        return None
    try:
        tf.io.gfile.makedirs(folder)
        return folder
    except tf.errors.OpError as error:
        print(f"no checkpoints: {error}", file=sys.stderr)
        return None


def weights_of_all(strategy, model):
    """The weights of every worker's copy, one row each."""
    own = np.concatenate([weight.ravel() for weight in model.get_weights()])
    gather = tf.function(lambda: tf.distribute.get_replica_context().all_gather(tf.constant(own)[tf.newaxis], axis=0))
    return strategy.experimental_local_results(strategy.run(gather))[0].numpy()


def main():
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # reads TF_CONFIG; first thing, before any other operation
    # The strategy takes SIGTERM for a warning and goes on; a worker that waits for a lost one should rather end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tf.keras.utils.set_random_seed(0)
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.data.astype("float32") / 16, digits.target, test_size=0.2, random_state=0
    )
    with strategy.scope():
        model = tf.keras.Sequential(
            [
                tf.keras.layers.Dense(64, activation="relu", input_shape=(64,)),
                tf.keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(tf.keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])

    callbacks = [Report()]
    if folder := checkpoint_folder():
        callbacks.append(tf.keras.callbacks.BackupAndRestore(os.path.join(folder, "backup")))
    # Shared out by images, not by files: every worker reads all of them in the same order and keeps its part.
    data = tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(2000, seed=0).batch(BATCH)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    model.fit(data.with_options(options), epochs=EPOCHS, callbacks=callbacks, verbose=0)

    copies = weights_of_all(strategy, model)
    if (copies != copies[0]).any():
        sys.exit("the workers ended with different weights")
    predicted = model(tf.constant(test_x)).numpy().argmax(axis=1)
    accuracy = float((predicted == test_y).mean())
    print(f"accuracy={accuracy:.3f}", flush=True)
    sys.exit(accuracy < GOAL)


if __name__ == "__main__":
    main()
