"""Handwritten digits with ParameterServerStrategy, where gradients and weights travel as codes of a few bits."""

import os
import sys
from pathlib import Path

import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tony import current
from tony.gradients.parameter_server import ParameterServers, standing_in

EPOCHS = 20
STEPS = 44  # of an epoch
BATCH = 32
RATE = 0.3
SAVE_EVERY = 5  # epochs
GOAL = 0.95
READS = 400
EQUAL = 1e-6


class Classifier(tf.Module):
    """64 pixels, 256 and 128 hidden units, 10 digits."""

    def __init__(self):
        super().__init__()
        sizes = (64, 256, 128, 10)
        self.kernels, self.biases = [], []
        for seed, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            initial = tf.random.stateless_normal((inputs, outputs), (seed, 0), stddev=inputs**-0.5)
            self.kernels.append(tf.Variable(initial, name=f"kernel{seed}"))
            self.biases.append(tf.Variable(tf.zeros(outputs), name=f"bias{seed}"))

    def __call__(self, images):
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            images = (tf.nn.relu(images) if layer else images) @ kernel + bias
        return images


def digits():
    """Images of the train and the test set (values 0 to 1), then their labels."""
    data = load_digits()
    return train_test_split(data.data.astype("float32") / 16, data.target, test_size=0.2, random_state=0)


def descend(gradients, variables):
    """Runs on the parameter server, with what one worker has pushed."""
    for gradient, variable in zip(gradients, variables, strict=True):
        variable.assign_sub(RATE * gradient)


def farthest(servers, coordinator):
    """How far what a worker has read is from the weights, when training is over: pull until nothing is owed."""
    read = tf.function(lambda number: servers.pull()[0])
    for _ in range(READS):
        # which worker makes a call is open, so it goes on until both have read often enough
        servers.schedule(coordinator, read)
        servers.join(coordinator)
        apart = max(
            float(abs(copy - shard.flatten(shard.variables)[0].numpy()).max(initial=0.0))
            for shard, copies in zip(servers.shards, servers.copies(), strict=True)
            for copy in copies
        )
        if apart <= EQUAL:
            break
    return apart


def lead(cluster):
    """The chief: builds the model on the ps and gives the workers their steps."""
    strategy = tf.distribute.ParameterServerStrategy(cluster)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    train_x, test_x, train_y, test_y = digits()
    with strategy.scope():
        model = Classifier()
        epochs = tf.Variable(0, dtype=tf.int64)
    servers = ParameterServers(strategy, model.trainable_variables, descend)
    images, labels = tf.constant(train_x), tf.constant(train_y)

    @tf.function
    def step(number):
        # a call that is repeated, because its worker was lost, takes the same batch
        seed = tf.stack([number, 0])
        picked = tf.random.stateless_uniform((BATCH,), seed, maxval=len(train_x), dtype=tf.int32)
        weights = servers.pull()
        with tf.GradientTape() as tape:
            tape.watch(weights)
            with standing_in(model, weights):
                scores = model(tf.gather(images, picked))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, picked), scores)
            loss = tf.reduce_mean(losses)
        servers.push(tape.gradient(loss, weights), number)
        return loss

    # The chief itself reads and writes the files, so that the ps needs no access to the folder.
    state = tf.train.Checkpoint(model=model, epochs=epochs)
    options = tf.train.CheckpointOptions(experimental_io_device="/job:chief")
    folder = os.environ.get("TONY_CHECKPOINT_DIR", "")
    if not folder.startswith("/"):
        print("no checkpoints: the checkpoint folder is not mounted", file=sys.stderr)
        folder = ""
    # the exchange's state is written after the model's, so where it is both are
    if folder and (saved := sorted(Path(folder).glob("epoch-*/parameter-servers.npz"))):
        state.read(str(saved[-1].parent / "model"), options)
        servers.restore(saved[-1].parent)
        print(f"resumed after epoch {int(epochs.numpy())}", flush=True)

    for epoch in range(int(epochs.numpy()), EPOCHS):
        losses = [servers.schedule(coordinator, step) for _ in range(STEPS)]
        servers.join(coordinator)
        epochs.assign(epoch + 1)
        loss = float(sum(coordinator.fetch(losses)) / len(losses))
        current().report(step=epoch + 1, loss=loss)
        print(f"epoch {epoch + 1} loss={loss:.3f}", flush=True)
        if folder and (epoch + 1) % SAVE_EVERY == 0:
            newest = Path(folder, f"epoch-{epoch + 1:04d}")
            state.write(str(newest / "model"), options)
            servers.save(newest)

    apart = farthest(servers, coordinator)
    traffic = servers.traffic()
    print(f"a step of a worker: {traffic.pushed:,} bytes pushed, {traffic.pulled:,} pulled,", end=" ")
    print(f"{traffic.ratio:.1f} times fewer than float32", flush=True)
    correct = tf.argmax(model(tf.constant(test_x)), axis=1) == test_y
    accuracy = float(tf.reduce_mean(tf.cast(correct, tf.float32)))
    print(f"workers read the weights, to {apart:.1e} accuracy={accuracy:.3f}", flush=True)
    sys.exit(apart > EQUAL or accuracy < GOAL)


def main():
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()  # reads TF_CONFIG
    if cluster.task_type == "chief":
        lead(cluster)
    server = tf.distribute.Server(cluster.cluster_spec(), cluster.task_type, cluster.task_id, protocol="grpc")
    server.join()  # serves the chief until tony ends this process


if __name__ == "__main__":
    main()
