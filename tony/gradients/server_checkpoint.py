"""The state of a parameter-server exchange in one file, written and read by the coordinator.

It holds each worker's residuals and the servers' views, not the model: keep it beside the checkpoint of the model
and the optimizers. A run that goes on from both has the bits of one that was never interrupted, as far as the order
of its steps is the same: with one worker it is.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tony.gradients.buckets import first_difference
from tony.gradients.checkpoint import write_whole
from tony.gradients.errors import ResidualMismatch
from tony.gradients.quantizer import CODEC_VERSION, Floats

if TYPE_CHECKING:
    from tony.gradients.parameter_server import ParameterServers

FORMAT = 1
FILE = "parameter-servers.npz"


def save(servers: ParameterServers, folder: Path) -> Path:
    """Write the file, whole or not at all. Call it while nothing is scheduled, after ``coordinator.join()``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = _about(servers) | {"scheduled": servers.scheduled, "known": []}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for number, (state, residuals) in enumerate(zip(servers.discipline.states, servers.residuals(), strict=True)):
        about["known"].append(state.known.numpy().tolist())
        for index, view in enumerate(state.views):
            arrays[f"view-{number}-{index}"] = view.numpy()
        for worker, residual in enumerate(residuals):
            arrays[f"residual-{number}-{worker}"] = residual
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path = folder / FILE
    write_whole(path, arrays)
    return path


def restore(servers: ParameterServers, folder: Path, resize: bool = False) -> int:
    """Take the state back, after the model's, before the first step; returns the number of steps scheduled so far.

    With `resize`, the file may be of another number of workers: what old ones owed is divided among the new.
    Raises ResidualMismatch for a file that is missing, damaged or of another model, setting or codec version.
    """
    path = folder / FILE
    about, arrays = _read(path)
    _accept(servers, path, about, resize)
    old = int(about["workers"])
    for number, (shard, state) in enumerate(zip(servers.shards, servers.discipline.states, strict=True)):
        owed = [np.zeros((shard.blocks, 512), np.float32) for _ in range(servers.workers)]
        for worker in range(old):
            owed[worker % servers.workers] += _array(arrays, f"residual-{number}-{worker}", path)
        views: list[Floats] | None = None
        started = [any(about["known"][number])] * servers.workers
        if old == servers.workers:
            views = [_array(arrays, f"view-{number}-{index}", path) for index in range(len(state.views))]
            started = [version > 0 for version in about["known"][number]]
        state.take_back(owed, views, started)
    servers.scheduled = int(about["scheduled"])
    return servers.scheduled


def _about(servers: ParameterServers) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "codec": CODEC_VERSION,
        "workers": servers.workers,
        "settings": json.loads(json.dumps(asdict(servers.settings))),
        "tensors": [[t.name, list(t.shape), t.dtype] for shard in servers.shards for t in shard.layout.tensors],
        "servers": [len(shard.indices) for shard in servers.shards],
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
    except FileNotFoundError:
        raise ResidualMismatch(f"{path} does not exist") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise ResidualMismatch(f"{path} cannot be read: {problem}") from problem
    if not isinstance(about, dict):
        raise ResidualMismatch(f"{path} was not written by this library")
    return about, arrays


def _accept(servers: ParameterServers, path: Path, about: dict[str, Any], resize: bool) -> None:
    mine = _about(servers)
    for name in ("format", "codec"):
        if about.get(name) != mine[name]:
            raise ResidualMismatch(f"{path} has the {name} version {about.get(name)}, this library {mine[name]}")
    reason = first_difference(about["tensors"], mine["tensors"])
    if reason:
        raise ResidualMismatch(f"{path} is of another model: {reason}")
    for name in ("servers", "settings", *(() if resize else ("workers",))):
        if about.get(name) != mine[name]:
            raise ResidualMismatch(f"{path} was written with {name} = {about.get(name)}, not {mine[name]}")


def _array(arrays: dict[str, np.ndarray[Any, Any]], name: str, path: Path) -> Floats:
    if name not in arrays:
        raise ResidualMismatch(f"{path} has no {name}")
    return arrays[name].astype(np.float32)
