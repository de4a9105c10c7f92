"""Handwritten digits with DistributedDataParallel on CPUs: every process trains on its share of each epoch."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from tony import current

EPOCHS = 20
BATCH = 32
GOAL = 0.95


def digits():
    """Train and test set: 64 pixels from 0 to 1, and which digit they show. Every fifth image is for the test."""
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images = torch.from_numpy(file["images"].astype("float32") / 16)
        labels = torch.from_numpy(file["labels"].astype("int64"))
    test = torch.arange(len(labels)) % 5 == 0
    return TensorDataset(images[~test], labels[~test]), TensorDataset(images[test], labels[test])


def checkpoint_file():
    """Where a restarted job goes on from; None where the job's folder is not one that torch can write to."""
    folder = os.environ.get("TONY_CHECKPOINT_DIR", "").removeprefix("file://")
    if not folder or ":" in folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder, "digits.pt")


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")  # reads MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE
    rank = dist.get_rank()
    train, test = digits()
    sampler = DistributedSampler(train, seed=0)
    batches = DataLoader(train, BATCH, sampler=sampler)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    first, checkpoint = 0, checkpoint_file()
    if checkpoint and checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epochs"]
        print(f"resumed after epoch {first}", flush=True)

    for epoch in range(first, EPOCHS):
        sampler.set_epoch(epoch)
        for images, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()  # averages the gradients of all processes
            optimizer.step()
        current().report(step=epoch + 1, loss=loss.item())
        if rank == 0:
            print(f"epoch {epoch + 1} loss={loss.item():.3f}", flush=True)
        if checkpoint and rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)

    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    everyones = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, weights)
    images, labels = test.tensors
    accuracy = (model(images).argmax(1) == labels).float().mean().item()
    dist.barrier()  # nobody leaves while another still talks to it
    dist.destroy_process_group()
    if not all(torch.equal(weights, other) for other in everyones):
        sys.exit("the processes ended with different weights")
    print(f"accuracy={accuracy:.3f}", flush=True)
    sys.exit(accuracy < GOAL)


if __name__ == "__main__":
    main()
