"""Training programs that the tests of the gradient exchange start as ranks. Each prints one JSON line at its end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from typing import Any

import numpy as np


def digest(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def keras_fit(folder: str, epochs: str, die_at_step: str = "0") -> None:
    """Train a small model on this rank's share; with die_at_step, rank 1 kills itself there. Resumes from folder."""
    import tensorflow as tf

    if os.environ.get("TF_USE_LEGACY_KERAS"):
        import tf_keras as keras
    else:
        import keras
    import tony.gradients.keras as tg

    rank = int(os.environ["HOROVOD_RANK"])
    keras.utils.set_random_seed(rank)
    random = np.random.default_rng(100 + rank)
    x = random.standard_normal((96, 64)).astype(np.float32)
    y = (x[:, :10] * 3).argmax(axis=1)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
    optimizer = tg.DistributedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9), bits=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    first = 0
    saved = sorted(name for name in os.listdir(folder) if name.startswith("weights-"))
    if saved:
        optimizer.build(model.trainable_variables)
        with np.load(os.path.join(folder, saved[-1])) as stored:
            for index, variable in enumerate([*model.variables, *optimizer.variables]):
                variable.assign(stored[str(index)])
        first = int(saved[-1][8:-4])

    class Saved(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if rank == 0:
                values = [tf.convert_to_tensor(v).numpy() for v in [*model.variables, *optimizer.variables]]
                partial = os.path.join(folder, "partial.npz")
                np.savez(partial, **{str(index): value for index, value in enumerate(values)})
                os.replace(partial, os.path.join(folder, f"weights-{epoch + 1:04d}.npz"))

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if rank == 1 and int(optimizer.iterations.numpy()) == int(die_at_step) > 0:
                os.kill(os.getpid(), signal.SIGKILL)

    callbacks = [tg.BroadcastInitialState(), tg.SaveResiduals(os.path.join(folder, "residuals")), Saved()]
    model.fit(
        x, y, batch_size=16, epochs=int(epochs), initial_epoch=first, shuffle=False, verbose=0, callbacks=callbacks
    )
    exchange = optimizer.tony_gradients.exchange
    print(json.dumps({"weights": digest(model.get_weights()), "steps": exchange.step, "first": first}), flush=True)


def custom_loop() -> None:
    """A loop of one's own: NaN on one rank in one step, then another layout on one rank."""
    import tensorflow as tf

    from tony.gradients.errors import GradientError
    from tony.gradients.tensorflow import Gradients

    rank = int(os.environ["HOROVOD_RANK"])
    gradients = Gradients(bits=4)
    variable = tf.Variable(np.ones((64, 32), np.float32), name="w")

    @tf.function
    def step(gradient: Any) -> Any:
        averages, finite = gradients.average([gradient], [variable])
        if finite:
            variable.assign_sub(0.1 * averages[0])
        return finite

    random = np.random.default_rng(rank)
    finite = []
    for number in range(4):
        gradient = random.standard_normal((64, 32)).astype(np.float32)
        if number == 2 and rank == 1:
            gradient[3, 3] = np.nan
        finite.append(bool(step(tf.constant(gradient))))
    try:
        gradients.average([tf.ones((64, 33 if rank else 32))], [variable])
        message = "no error"
    except (GradientError, tf.errors.OpError) as error:
        message = str(error)
    print(json.dumps({"weights": digest([variable.numpy()]), "finite": finite, "message": message}), flush=True)


def connect(kind: str) -> Any:
    """The transport of that kind; blocks until all ranks have come."""
    if kind == "torch":
        import torch.distributed as dist

        from tony.gradients.torch import TorchTransport

        dist.init_process_group("gloo")
        return TorchTransport()
    if kind == "collective":
        from tony.gradients.collective import CollectiveTransport

        return CollectiveTransport()
    from tony.gradients.horovod import HorovodTransport

    return HorovodTransport()


def error_of(work: Any) -> str:
    from tony.gradients.errors import GradientError

    try:
        work()
    except GradientError as error:
        return str(error)
    return "no error"


def bad_inputs(kind: str, folder: str) -> None:
    """Everything that one rank can bring that does not fit the others, one after the other."""
    from pathlib import Path

    from tony.gradients import agreement
    from tony.gradients.auto import exchange_for
    from tony.gradients.checkpoint import restore, save
    from tony.gradients.request import settings_for

    told = {"three bits": error_of(lambda: settings_for(3)), "no bits": error_of(lambda: settings_for("many"))}
    transport = connect(kind)
    odd = transport.rank == 1
    good = [("w", np.ones((64, 32), np.float32)), ("b", np.ones(32, np.float32))]

    def average(bits: Any, gradients: list[Any], floats: bool = False) -> None:
        exchange = exchange_for(transport, settings_for(bits))
        if floats:
            exchange.average(good)
            exchange.travel(32)
        exchange.average(gradients)

    integer = [("w", np.ones((64, 32), np.int32)), good[1]]
    wide = [("w", np.ones((64, 33), np.float32)), good[1]]
    told |= {
        "bits": error_of(lambda: average(8 if odd else 4, good)),
        "auto": error_of(lambda: average(4 if odd else "auto", good)),
        "integer": error_of(lambda: average(4, integer if odd else good)),
        "shape": error_of(lambda: average(4, wide if odd else good)),
        "shape of floats": error_of(lambda: average(4, wide if odd else good, floats=True)),
        "integer of floats": error_of(lambda: average(4, integer if odd else good, floats=True)),
    }
    version = agreement.CODEC_VERSION
    agreement.CODEC_VERSION = version + odd
    told["codec"] = error_of(lambda: average(4, good))
    agreement.CODEC_VERSION = version
    exchange = exchange_for(transport, settings_for(4))
    exchange.average(good)
    save(exchange, Path(folder))
    if odd:
        Path(folder, "residuals-00001-of-00002.npz").write_bytes(b"not a checkpoint")
    told["damaged"] = error_of(lambda: restore(exchange_for(transport, settings_for(4)), Path(folder)))
    save(exchange, Path(folder))

    def other_model() -> None:
        resumed = exchange_for(transport, settings_for(4))
        restore(resumed, Path(folder))
        resumed.average(wide)

    told["model"] = error_of(other_model)
    exchange.average(good)  # and still it works
    print(json.dumps(told), flush=True)
    os._exit(0)


def other_size(kind: str, folder: str) -> None:
    """Residuals of another number of ranks: taken back as they are, then divided anew."""
    from pathlib import Path

    from tony.gradients.auto import exchange_for
    from tony.gradients.checkpoint import restore
    from tony.gradients.request import settings_for

    transport = connect(kind)
    told = {"refused": error_of(lambda: restore(exchange_for(transport, settings_for(4)), Path(folder)))}
    divided = exchange_for(transport, settings_for(4))
    told["step"] = str(restore(divided, Path(folder), resize=True))
    print(json.dumps(told), flush=True)
    os._exit(0)


def auto_loop() -> None:
    """Train until the job knows how gradients travel best, and a little longer; one rank is slower than the other."""
    import time

    import tensorflow as tf

    from tony.gradients.tensorflow import Gradients

    rank = int(os.environ["HOROVOD_RANK"])
    gradients = Gradients()
    exchange = gradients.exchange
    variable = tf.Variable(np.zeros((256, 512), np.float32), name="w")
    random = np.random.default_rng(rank)
    ways = []
    while len(ways) < 5 or ways[-5:] != [exchange.bits] * 5 or exchange.deciding:
        gradient = tf.constant(random.standard_normal((256, 512)).astype(np.float32))
        averages, finite = gradients.average([gradient], [variable])
        assert bool(finite)
        variable.assign_sub(0.1 * averages[0])
        ways.append(exchange.bits)
        time.sleep(0.01 * rank)
    tried = sorted(set(ways))
    answer = {"weights": digest([variable.numpy()]), "tried": tried, "kept": exchange.bits, "steps": len(ways)}
    print(json.dumps(answer), flush=True)


def torch_ddp() -> None:
    """Train under DistributedDataParallel, with buckets small enough that there are several."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from tony.gradients.torch_hook import State

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    target = torch.randn(64, 10)
    model = DistributedDataParallel(network, bucket_cap_mb=0.02)
    state = State(network, bits=4)
    state.attach(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.manual_seed(1 + dist.get_rank())
    losses = []
    for _ in range(30):
        x = torch.randn(32, 64)
        loss = torch.nn.functional.cross_entropy(model(x), (x @ target).argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    weights = digest([parameter.detach().numpy() for parameter in network.parameters()])
    answer = {"weights": weights, "first": losses[0], "last": losses[-1], "steps": state.exchange.step}
    print(json.dumps(answer), flush=True)
    dist.destroy_process_group()


PROGRAMS = (keras_fit, custom_loop, bad_inputs, other_size, auto_loop, torch_ddp)

if __name__ == "__main__":
    {program.__name__: program for program in PROGRAMS}[sys.argv[1]](*sys.argv[2:])
