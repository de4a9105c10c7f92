"""Handwritten digits with ParameterServerStrategy: the chief hands out steps, the ps holds the weights."""

import os
import sys

import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tony import current

EPOCHS = 20
STEPS = 60  # of an epoch, shared among the workers
BATCH = 32
RATE = 0.3
SAVE_EVERY = 5  # epochs
GOAL = 0.95


class Classifier(tf.Module):
    """64 pixels, 64 hidden units, 10 digits."""

    def __init__(self):
        super().__init__()
        initial = tf.random_normal_initializer(stddev=0.1, seed=0)
        self.hidden = tf.Variable(initial((64, 64)))
        self.hidden_bias = tf.Variable(tf.zeros(64))
        self.output = tf.Variable(initial((64, 10)))
        self.output_bias = tf.Variable(tf.zeros(10))

    def __call__(self, images):
        hidden = tf.nn.relu(images @ self.hidden + self.hidden_bias)
        return hidden @ self.output + self.output_bias


def digits():
    """Images of the train and the test set (values 0 to 1), then their labels."""
    data = load_digits()
    return train_test_split(data.data.astype("float32") / 16, data.target, test_size=0.2, random_state=0)


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


def lead(cluster):
    """The chief: builds the model on the ps and gives the workers their steps."""
    strategy = tf.distribute.ParameterServerStrategy(cluster)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    train_x, test_x, train_y, test_y = digits()
    with strategy.scope():
        model = Classifier()
        epochs = tf.Variable(0, dtype=tf.int64)

    def batches():
        return tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(2000).repeat().batch(BATCH)

    data = iter(coordinator.create_per_worker_dataset(batches))

    @tf.function
    def step(batch):
        images, labels = next(batch)
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(RATE * gradient)
        return loss

    # The chief itself reads and writes the files, so that the ps needs no access to the folder.
    checkpoint, options = None, tf.train.CheckpointOptions(experimental_io_device="/job:chief")
    if folder := checkpoint_folder():
        state = tf.train.Checkpoint(model=model, epochs=epochs)
        checkpoint = tf.train.CheckpointManager(state, folder, max_to_keep=2)
        if checkpoint.latest_checkpoint:
            state.restore(checkpoint.latest_checkpoint, options)
            print(f"resumed after epoch {int(epochs.numpy())}", flush=True)

    for epoch in range(int(epochs.numpy()), EPOCHS):
        losses = [coordinator.schedule(step, args=(data,)) for _ in range(STEPS)]
        coordinator.join()
        epochs.assign(epoch + 1)
        loss = float(sum(coordinator.fetch(losses)) / STEPS)
        current().report(step=epoch + 1, loss=loss)
        print(f"epoch {epoch + 1} loss={loss:.3f}", flush=True)
        if checkpoint and (epoch + 1) % SAVE_EVERY == 0:
            checkpoint.save(options=options)

    correct = tf.argmax(model(tf.constant(test_x)), axis=1) == test_y
    accuracy = float(tf.reduce_mean(tf.cast(correct, tf.float32)))
    print(f"accuracy={accuracy:.3f}", flush=True)
    sys.exit(accuracy < GOAL)


def main():
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()  # reads TF_CONFIG
    if cluster.task_type == "chief":
        lead(cluster)
    server = tf.distribute.Server(cluster.cluster_spec(), cluster.task_type, cluster.task_id, protocol="grpc")
    server.join()  # serves the chief until tony ends this process


if __name__ == "__main__":
    main()
