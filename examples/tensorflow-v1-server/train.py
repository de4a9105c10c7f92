"""Handwritten digits in the style of TensorFlow 1, as scripts for TonY are written: each worker runs its own graph.

Reads CLUSTER_SPEC, JOB_NAME and TASK_INDEX, which mean the same as under TonY.
"""

import json
import os
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tony import current

STEPS = 2000  # of all workers together
BATCH = 32
GOAL = 0.95


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
        tf.gfile.MakeDirs(folder)
        return folder
    except tf.errors.OpError as error:
        print(f"no checkpoints: {error}", file=sys.stderr)
        return None


def work(server, cluster, index):
    """A worker: trains until the common step counter is at `STEPS`, then returns the accuracy."""
    train_x, test_x, train_y, test_y = digits()
    with tf.device(tf.train.replica_device_setter(cluster=cluster, worker_device=f"/job:worker/task:{index}")):
        images = tf.placeholder(tf.float32, [None, 64])
        labels = tf.placeholder(tf.int64, [None])
        hidden = tf.get_variable("hidden", [64, 64])
        hidden_bias = tf.get_variable("hidden_bias", [64], initializer=tf.zeros_initializer())
        output = tf.get_variable("output", [64, 10])
        output_bias = tf.get_variable("output_bias", [10], initializer=tf.zeros_initializer())
        scores = tf.nn.relu(images @ hidden + hidden_bias) @ output + output_bias
        loss = tf.losses.sparse_softmax_cross_entropy(labels, scores)
        step = tf.train.get_or_create_global_step()
        train = tf.train.GradientDescentOptimizer(0.3).minimize(loss, global_step=step)
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(scores, axis=1), labels), tf.float32))

    # A worker talks to the ps only, so that it does not matter when another worker comes or goes.
    config = tf.ConfigProto(device_filters=["/job:ps", f"/job:worker/task:{index}"])
    if index > 0:  # the first worker initializes; a MonitoredTrainingSession would look for that every 30 s only
        missing = tf.report_uninitialized_variables()
        with tf.Session(server.target, config=config) as session:
            while session.run(missing).size:
                time.sleep(0.2)
    random = np.random.default_rng(index)
    with tf.train.MonitoredTrainingSession(
        server.target, is_chief=index == 0, checkpoint_dir=checkpoint_folder(), save_checkpoint_secs=10, config=config
    ) as session:
        done = session.run(step)
        if done:
            print(f"joined at step {done}", flush=True)
        while done < STEPS:
            batch = random.choice(len(train_x), BATCH)
            _, done, value = session.run([train, step, loss], {images: train_x[batch], labels: train_y[batch]})
            if done % 100 == 0:
                print(f"step {done} loss={value:.3f}", flush=True)
                current().report(step=int(done), loss=float(value))
        return session.run(accuracy, {images: test_x, labels: test_y})


def main():
    tf.disable_eager_execution()
    cluster = tf.train.ClusterSpec(json.loads(os.environ["CLUSTER_SPEC"]))
    role, index = os.environ["JOB_NAME"], int(os.environ["TASK_INDEX"])
    server = tf.train.Server(cluster, job_name=role, task_index=index)
    if role == "ps":
        server.join()  # serves the workers until tony ends this process
    accuracy = work(server, cluster, index)
    print(f"accuracy={accuracy:.3f}", flush=True)
    sys.exit(bool(accuracy < GOAL))


if __name__ == "__main__":
    main()
