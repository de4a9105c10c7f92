"""From what a script or its environment asks for to the settings of an exchange."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, TypeAlias

from tony.gradients.auto import WAYS
from tony.gradients.errors import BadSetting
from tony.gradients.exchange import Settings
from tony.gradients.feedback import Feedback
from tony.gradients.quantizer import LEVELS, Norm, Rounding, Scheme
from tony.gradients.sparse import Sparse

Mode: TypeAlias = Literal["nearest", "stochastic", "paper", "sparse"]

VARIABLE = "TONY_QUANTIZE"
"""Counts where the script does not give `bits`."""
NONE = "none"
AUTO = "auto"
_POSSIBLE = "use 2, 4, 8, 'auto' or 'none'"

_MODES: dict[str, tuple[Rounding, Norm]] = {
    "nearest": ("nearest", "max"),
    "stochastic": ("stochastic", "max"),
    "paper": ("stochastic", "l2"),
    "sparse": ("nearest", "max"),
}


def settings_for(
    bits: int | Literal["auto", "none"] | None = None,
    down_bits: int | None = None,
    mode: Mode = "nearest",
    exempt: Sequence[str] = (),
    alpha: float | None = None,
    beta: float = 1.0,
    seed: int = 0,
    bucket_bytes: int = 16 << 20,
    density: float = 0.05,
) -> Settings:
    """The settings. `bits`: 2, 4, 8, "auto", "none" (float32), or None: as the job was submitted, else "auto".

    `down_bits`: bits of the second phase, if not the same. The mode "paper" has one lossy phase, as published:
    its second phase has 8 bits, rounded to nearest. `exempt`: regular expressions, searched in the names
    of tensors that are to travel as float32. The mode "sparse" has no bits, and sends of all tensors the `density`
    largest elements. Raises BadSetting.
    """
    if mode not in _MODES:
        raise BadSetting(f"mode={mode!r} is not possible", f"use one of {', '.join(sorted(_MODES))}")
    if mode == "sparse":
        if bits is not None or down_bits is not None or alpha is not None or beta != 1.0:
            raise BadSetting("the mode 'sparse' takes no bits, alpha or beta", "give density, or another mode")
        few = Sparse(density)
        return Settings(seed=seed, exempt=tuple(exempt), exempt_below=0, bucket_bytes=bucket_bytes, sparse=few)
    rounding, norm = _MODES[mode]
    chosen = _from_job() if bits is None else bits
    ways = WAYS if chosen == AUTO else ()
    up = None if chosen == NONE else Scheme(min(WAYS) if ways else _number(chosen), rounding, norm)
    if up is not None and mode == "paper":
        down: Scheme | None = Scheme(down_bits or 8)
    else:
        down = None if down_bits is None or up is None else Scheme(down_bits, rounding, norm)
    return Settings(
        up, down, Feedback(alpha, beta), seed=seed, exempt=tuple(exempt), bucket_bytes=bucket_bytes, ways=ways
    )


def _from_job() -> int | str:
    text = os.environ.get(VARIABLE, AUTO).strip()
    if text in (NONE, AUTO):
        return text
    if not text.isdecimal() or int(text) not in LEVELS:
        raise BadSetting(f"{VARIABLE}={text!r} is not possible", _POSSIBLE)
    return int(text)


def _number(bits: int | str) -> int:
    if isinstance(bits, str):
        raise BadSetting(f"bits={bits!r} is not possible", _POSSIBLE)
    return bits
