"""Residuals on disk, one file a rank: a resumed run goes on with the very bits of the uninterrupted one.

The alternative needs no file: an exchange with ``flush=True`` just before the checkpoint sends all that is owed
and leaves the residuals at zero.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tony.gradients.buckets import Tensor, first_difference
from tony.gradients.errors import GradientError, ResidualMismatch
from tony.gradients.exchange import Exchange
from tony.gradients.parts import DOWN, UP
from tony.gradients.quantizer import Floats

log = logging.getLogger(__name__)

FORMAT = 1


def file_name(rank: int, size: int) -> str:
    """The file of one rank inside a checkpoint's folder."""
    return f"residuals-{rank:05d}-of-{size:05d}.npz"


def save(exchange: Exchange, folder: Path) -> Path:
    """Write this rank's residuals, whole or not at all, and return the file. Not a collective call."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = exchange.layout.tensors if exchange.layout else ()
    about = {
        "format": FORMAT,
        "rank": exchange.transport.rank,
        "size": exchange.transport.size,
        "step": exchange.step,
        "settings": asdict(exchange.settings),
        "bits": None if exchange.deciding else exchange.bits,
        "tensors": [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in tensors],
    }
    arrays: dict[str, np.ndarray[Any, Any]] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for part in exchange.parts:
        for phase in (UP, DOWN):
            arrays[f"residual-{part.index}-{phase}"] = part.residuals[phase]
            arrays[f"gammas-{part.index}-{phase}"] = np.array(part.coefficients[phase].gammas, np.float64)
    path = folder / file_name(exchange.transport.rank, exchange.transport.size)
    write_whole(path, arrays)
    return path


def write_whole(path: Path, arrays: dict[str, Any]) -> None:
    """Write the arrays so that the file appears whole, on the disk, or not at all. Raises OSError."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def restore(exchange: Exchange, folder: Path, resize: bool = False) -> int:
    """Take back the residuals of `folder` into a fresh exchange; returns the step to go on with.

    A collective call. With `resize`, files of another world size are accepted: what all old ranks owed is
    divided among the new ones, and how gradients travel is decided anew; a missing old file is logged as lost.
    Raises ResidualMismatch, on every rank, for files that are missing, damaged, or of another model, rank, size or
    setting.
    """
    transport = exchange.transport
    problem, step = "", -1
    try:
        step = _restore_own(exchange, folder, resize)
    except GradientError as error:
        problem = error.message
    mine = json.dumps([step, problem]).encode()
    for rank, text in enumerate(transport.allgather(np.frombuffer(mine, np.uint8))):
        their_step, their_problem = json.loads(text.tobytes())
        if problem or their_problem:
            raise ResidualMismatch(problem or f"rank {rank}: {their_problem}")
        if their_step != step:
            raise ResidualMismatch(f"rank {transport.rank} has step {step}, rank {rank} has step {their_step}")
    return step


def _restore_own(exchange: Exchange, folder: Path, resize: bool) -> int:
    rank, size = exchange.transport.rank, exchange.transport.size
    path = folder / file_name(rank, size)
    if resize and not path.exists():
        return _restore_resized(exchange, folder)
    about, arrays = _read(path)
    _accept(exchange, path, about)
    if (about["rank"], about["size"]) != (rank, size):
        raise ResidualMismatch(f"{path.name} holds rank {about['rank']} of {about['size']}")
    if about.get("bits"):
        exchange.decided(int(about["bits"]))
    for part in exchange.parts:
        for phase in (UP, DOWN):
            part.residuals[phase][:] = _array(arrays, f"residual-{part.index}-{phase}", part.residuals[phase], path)
            part.coefficients[phase].gammas.extend(arrays[f"gammas-{part.index}-{phase}"].tolist())
    exchange.step = int(about["step"])
    return exchange.step


def _restore_resized(exchange: Exchange, folder: Path) -> int:
    """Old rank q's residual goes to the new rank q mod size, scaled so that the average still owes the same."""
    rank, size = exchange.transport.rank, exchange.transport.size
    found = sorted(folder.glob("residuals-?????-of-?????.npz"))
    sizes = {int(path.stem[-5:]) for path in found}
    if len(sizes) != 1:
        raise ResidualMismatch(f"{folder} has residuals of {len(sizes)} world sizes", "keep one checkpoint a folder")
    old_size = sizes.pop()
    steps = set()
    owed: dict[int, list[Floats]] = {}
    for old_rank in range(old_size):
        path = folder / file_name(old_rank, old_size)
        if not path.exists():
            log.warning("residuals of rank %d of %d are missing: what it had not sent is lost", old_rank, old_size)
            continue
        about, arrays = _read(path)
        _accept(exchange, path, about)
        steps.add(int(about["step"]))
        for part in exchange.parts:
            if old_rank % size == rank:
                up = _array(arrays, f"residual-{part.index}-{UP}", part.residuals[UP], path)
                part.residuals[UP] += up * np.float32(size / old_size)
            owed.setdefault(part.index, []).append(arrays[f"residual-{part.index}-{DOWN}"])
    if len(steps) != 1:
        raise ResidualMismatch(f"{folder} has residuals of the steps {sorted(steps)}")
    for part in exchange.parts:
        whole = np.concatenate(owed[part.index])
        if len(whole) != part.bounds[-1]:
            lost = float(np.linalg.norm(whole))
            log.warning(
                "bucket %d: owner residuals of norm %.3g cannot be divided anew and are lost", part.index, lost
            )
        elif not part.direct:
            part.residuals[DOWN][:] = whole[part.bounds[rank] : part.bounds[rank + 1]]
        else:
            part.residuals[UP] += whole
    exchange.step = steps.pop()
    return exchange.step


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
        if about["format"] != FORMAT:
            raise ResidualMismatch(f"{path.name} has the format {about['format']}, this version reads {FORMAT}")
    except FileNotFoundError:
        raise ResidualMismatch(f"{path} does not exist") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ResidualMismatch(f"{path} is damaged: {error}") from error
    return about, arrays


def _accept(exchange: Exchange, path: Path, about: dict[str, Any]) -> None:
    """Check settings and tensors, and lay the exchange out when it has not seen a gradient yet."""
    mine = json.loads(json.dumps(asdict(exchange.settings)))
    for name, value in mine.items():
        if about["settings"].get(name) != value:
            raise ResidualMismatch(
                f"{path.name} was written with {name} = {about['settings'].get(name)}, not {value}"
            )
    if exchange.layout is not None:
        here = [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in exchange.layout.tensors]
        reason = first_difference(here, about["tensors"])
        if reason:
            raise ResidualMismatch(f"{path.name} is of another model: {reason}")
    tensors = [Tensor(name, tuple(shape), dtype) for name, shape, dtype in about["tensors"]]
    exchange.adopt(exchange.lay_out(tensors))


def _array(arrays: dict[str, np.ndarray[Any, Any]], name: str, like: Floats, path: Path) -> Floats:
    if name not in arrays or arrays[name].shape != like.shape or arrays[name].dtype != like.dtype:
        raise ResidualMismatch(f"{path.name} is damaged: {name} is missing or has another shape")
    return arrays[name]
