"""Handwritten digits with Horovod's elastic mode: ranks may be lost, replaced and added while the others train on."""

import sys

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf
from horovod.common.elastic import ObjectState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tony import current
from tony.gradients.tensorflow import Gradients

STEPS = 600
BATCH = 32  # of each rank
RATE = 0.05
COMMIT_EVERY = 10  # steps: so many are done again when a rank is lost
GOAL = 0.95


class Model(tf.Module):
    """64 pixels, 256 and 128 hidden units, 10 digits; momentum beside every weight."""

    def __init__(self):
        super().__init__()
        sizes = (64, 256, 128, 10)
        self.kernels, self.biases = [], []
        for seed, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            initial = tf.random.stateless_normal((inputs, outputs), (seed, 0), stddev=inputs**-0.5)
            self.kernels.append(tf.Variable(initial, name=f"kernel{seed}"))
            self.biases.append(tf.Variable(tf.zeros(outputs), name=f"bias{seed}"))
        self.weights = [*self.kernels, *self.biases]
        self.speeds = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self.weights]

    def __call__(self, images):
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            images = (tf.nn.relu(images) if layer else images) @ kernel + bias
        return images


class State(ObjectState):
    """What all ranks must have in common: `values`, and the variables (Horovod's own class for those needs TF 1)."""

    def __init__(self, variables, **values):
        self.variables = variables
        super().__init__(hvd.broadcast_object, hvd.rank, arrays=self.read(), **values)

    def read(self):
        return [variable.numpy() for variable in self.variables]

    def save(self):
        self.arrays = self.read()
        super().save()

    def restore(self):
        super().restore()
        self.write()

    def sync(self):
        super().sync()  # from rank 0, to those that are new
        self.write()

    def write(self):
        for variable, array in zip(self.variables, self.arrays, strict=True):
            variable.assign(array)


def main():
    hvd.init()
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.data.astype("float32") / 16, digits.target, test_size=0.2, random_state=0
    )
    model = Model()

    @hvd.elastic.run
    def train(state):
        """Begins anew, from the last commit, whenever the ranks have changed."""
        print(f"at step {state.step}: rank {hvd.rank()} of {hvd.size()}", flush=True)
        gradients = Gradients()  # bits: as the job says; what the ranks of before owed is gone with them
        random = np.random.default_rng([state.step, hvd.rank()])
        while state.step < STEPS:
            picked = random.integers(0, len(train_x), BATCH)
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(train_y[picked], model(train_x[picked]))
                loss = tf.reduce_mean(losses)
            averages, finite = gradients.average(tape.gradient(loss, model.weights), model.weights)
            if finite:
                for weight, speed, average in zip(model.weights, model.speeds, averages, strict=True):
                    speed.assign(0.9 * speed + average)
                    weight.assign_sub(RATE * speed)
            state.step += 1
            current().report(step=state.step, loss=float(loss))
            if state.step % COMMIT_EVERY == 0:
                state.commit()

    state = State([*model.weights, *model.speeds], step=0)
    train(state)
    if state.step < STEPS:
        sys.exit("training ended early")

    own = np.concatenate([np.ravel(weight.numpy()) for weight in model.weights])
    copies = hvd.allgather(tf.constant(own)[tf.newaxis], name="weights").numpy()
    if (copies != copies[0]).any():
        sys.exit("the ranks ended with different weights")
    accuracy = float((np.argmax(model(test_x), axis=1) == test_y).mean())
    print(f"accuracy={accuracy:.3f}", flush=True)
    sys.exit(accuracy < GOAL)


if __name__ == "__main__":
    main()
