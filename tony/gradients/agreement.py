"""The header that every rank puts before the first message of a step, and what happens when two differ.

The first collective call of a step is the same on every rank whatever is wrong with it, so a rank with a
problem can tell the others instead of leaving them waiting. When the headers differ, or one reports a problem,
all ranks see it, exchange descriptions, and all raise.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tony.gradients.buckets import first_difference
from tony.gradients.errors import GradientError, RanksDisagree
from tony.gradients.quantizer import CODEC_VERSION, Bytes
from tony.gradients.transport import Transport

_FORMAT = struct.Struct("<4sHHQ16s")
HEADER_BYTES = _FORMAT.size
_MAGIC = b"TnyG"
_PROBLEM = 1


@dataclass(frozen=True)
class Agreement:
    """What must be equal on all ranks, from one rank's view. `problem`: why this rank cannot go on."""

    settings: dict[str, Any]
    tensors: list[list[Any]]
    step: int
    problem: GradientError | None = None

    def header(self, digest: bytes) -> bytes:
        """32 bytes. `digest` as made by `digest_of`."""
        flags = _PROBLEM if self.problem else 0
        return _FORMAT.pack(_MAGIC, CODEC_VERSION, flags, self.step, digest)

    def text(self) -> bytes:
        return json.dumps(
            {
                "codec": CODEC_VERSION,
                "settings": self.settings,
                "tensors": self.tensors,
                "step": self.step,
                "problem": self.problem.message if self.problem else None,
            }
        ).encode()


def digest_of(settings: dict[str, Any], layout_digest: bytes) -> bytes:
    """16 bytes over settings and layout."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + layout_digest).digest()[:16]


def agrees(header: bytes, received: Sequence[Bytes]) -> bool:
    """Whether the messages of all ranks begin with this very header and nobody has a problem."""
    if _FORMAT.unpack(header)[2] & _PROBLEM:
        return False
    return all(message[:HEADER_BYTES].tobytes() == header for message in received)


def explain(transport: Transport, mine: Agreement) -> GradientError:
    """Exchange descriptions and return the error to raise. A collective call: made by all ranks or by none."""
    texts = transport.allgather(np.frombuffer(mine.text(), np.uint8))
    if mine.problem:
        return mine.problem
    ours = json.loads(mine.text())
    for rank, text in enumerate(texts):
        reason = _difference(ours, json.loads(text.tobytes()))
        if reason:
            return RanksDisagree(
                f"rank {transport.rank} and rank {rank} cannot exchange gradients: {reason}",
                "run the same script, settings and tony version on every rank",
            )
    return RanksDisagree("the headers of the ranks differ, but not what they describe")


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    if theirs["problem"]:
        return str(theirs["problem"])
    if ours["codec"] != theirs["codec"]:
        return f"codec version {ours['codec']} here, {theirs['codec']} there"
    for name in sorted(set(ours["settings"]) | set(theirs["settings"])):
        left, right = ours["settings"].get(name), theirs["settings"].get(name)
        if left != right:
            return f"{name} is {left} here and {right} there"
    reason = first_difference(ours["tensors"], theirs["tensors"])
    if reason is None and ours["step"] != theirs["step"]:
        reason = f"step {ours['step']} here, step {theirs['step']} there: resumed from different checkpoints"
    return reason
