"""A recurrent model over Horovod guesses the next letter of Shakespeare's sonnets; gradients travel as codes."""

import os
import sys
from pathlib import Path

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from tony import current
from tony.gradients.report import report
from tony.gradients.tensorflow import Gradients

STEPS = 400
BATCH = 16  # of each rank
LENGTH = 40
GOAL = 3.0  # bits for each character; 4.8 without a model of what comes next


def read(path):
    """The text as numbers: a part to train on, a part to test on, and how many characters there are."""
    text = Path(path).read_text().lower()
    alphabet = sorted(set(text))
    numbers = np.array([alphabet.index(character) for character in text], np.int64)
    cut = len(numbers) * 9 // 10
    return numbers[:cut], numbers[cut:], len(alphabet)


class Model(tf.Module):
    """Embedding, one GRU, a dense layer: the plainest recurrent model that learns something."""

    def __init__(self, alphabet, width=32, hidden=160):
        super().__init__()
        random = tf.random.Generator.from_seed(1)  # the same on all ranks

        def matrix(name, rows, columns):
            return tf.Variable(random.normal((rows, columns)) / rows**0.5, name=name)

        self.hidden = hidden
        self.embedding = matrix("embedding", alphabet, width)
        self.gates = matrix("gates", width + hidden, 2 * hidden)
        self.gate_bias = tf.Variable(tf.ones(2 * hidden), name="gate_bias")
        self.candidate = matrix("candidate", width + hidden, hidden)
        self.candidate_bias = tf.Variable(tf.zeros(hidden), name="candidate_bias")
        self.output = matrix("output", hidden, alphabet)
        self.output_bias = tf.Variable(tf.zeros(alphabet), name="output_bias")

    def scores(self, characters):
        """Shape (batch, length) to (batch, length, alphabet)."""
        state = tf.zeros((characters.shape[0], self.hidden))
        states = []
        for now in tf.unstack(tf.gather(self.embedding, characters), axis=1):
            gates = tf.sigmoid(tf.concat([now, state], 1) @ self.gates + self.gate_bias)
            forget, keep = tf.split(gates, 2, axis=1)
            new = tf.tanh(tf.concat([now, forget * state], 1) @ self.candidate + self.candidate_bias)
            state = keep * state + (1 - keep) * new
            states.append(state)
        return tf.stack(states, axis=1) @ self.output + self.output_bias

    def loss(self, windows):
        """Mean cross entropy in nats; each window has one character more than the model sees."""
        scores = self.scores(windows[:, :-1])
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(windows[:, 1:], scores))


def main():
    hvd.init()
    train, test, alphabet = read(Path(__file__).with_name("sonnets.txt"))
    windows = np.lib.stride_tricks.sliding_window_view(train, LENGTH + 1)
    model = Model(alphabet)
    variables = list(model.trainable_variables)
    speeds = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
    mode = os.environ.get("MODE", "nearest")
    gradients = Gradients(mode=mode, density=0.03)  # bits: as the job says

    @tf.function
    def step(batch, rate):
        with tf.GradientTape() as tape:
            loss = model.loss(batch)
        averages, finite = gradients.average(tape.gradient(loss, variables), variables)
        if finite:
            averages, _ = tf.clip_by_global_norm(averages, 1.0)
            for variable, speed, average in zip(variables, speeds, averages, strict=True):
                speed.assign(0.9 * speed + average)
                variable.assign_sub(rate * speed)
        return loss

    random = np.random.default_rng([7, hvd.rank()])
    for number in range(STEPS):
        batch = tf.constant(windows[random.integers(0, len(windows), BATCH)])
        loss = float(step(batch, tf.constant(0.4 * (1 - number / STEPS) + 0.02)))
        if (number + 1) % 50 == 0:
            current().report(step=number + 1, loss=loss)
            if hvd.rank() == 0:
                print(f"step {number + 1} loss={loss:.3f}", flush=True)

    own = np.concatenate([np.ravel(variable.numpy()) for variable in variables])
    copies = hvd.allgather(tf.constant(own)[tf.newaxis], name="weights").numpy()
    if (copies != copies[0]).any():
        sys.exit("the ranks ended with different weights")
    if lines := report(gradients.exchange) if hvd.size() > 1 else []:
        sent = sum(line.bytes_per_step for line in lines)
        ring = sum(line.bytes_per_step * line.ratio for line in lines)
        print(f"bytes={sent:.0f} a step and rank; as float32 {ring:.0f}, {ring / sent:.1f} times as many", flush=True)
    length = len(test) // (LENGTH + 1) * (LENGTH + 1)
    rows = tf.constant(test[:length].reshape(-1, LENGTH + 1))
    scores = model.scores(rows[:, :-1])
    bits = float(model.loss(rows)) / np.log(2)
    accuracy = float((scores.numpy().argmax(axis=2) == rows[:, 1:].numpy()).mean())
    print(f"bits={bits:.3f} for each character, accuracy={accuracy:.3f}", flush=True)
    sys.exit(bool(bits > GOAL))


if __name__ == "__main__":
    main()
