"""Error feedback: what rounding took away is remembered and sent later.

With a gradient g and the residual h, a step sends q = Q(g + alpha h) and keeps h' = beta h + (g - q), which is
computed as (g + alpha h - q) + (beta - alpha) h. With alpha = beta = 1 nothing is ever lost: the sum of all
that was sent plus the residual is the sum of all gradients.

For an unbiased quantizer of relative variance gamma the residual stays bounded iff
``(beta - alpha)**2 + gamma * alpha**2 < 1``. The left side is least at alpha = beta / (1 + gamma) and below 1
there for every gamma and every beta <= 1, so that is the coefficient used with stochastic rounding; gamma is
measured. Rounding to nearest moves no element by more than its own size, so alpha = beta is always stable.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np

from tony.gradients.errors import BadSetting
from tony.gradients.quantizer import Floats, Scheme, dequantize, lane_sum, pack, quantize

log = logging.getLogger(__name__)

GAMMA_STEPS = 16
"""The coefficient is made for the largest gamma of so many measurements."""
GAMMA_EVERY = 4
"""After the first steps gamma is measured in every so many: it changes slowly, and measuring it costs."""


@dataclass(frozen=True)
class Feedback:
    """The two coefficients as the user gave them; alpha None means "choose it"."""

    alpha: float | None = None
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.beta <= 1.0:
            raise BadSetting(f"beta={self.beta!r} is not between 0 and 1")
        if self.alpha is not None and not 0.0 <= self.alpha <= 2.0:
            raise BadSetting(f"alpha={self.alpha!r} is not between 0 and 2", "leave it out to have it chosen")


def measures_gamma_at(step: int) -> bool:
    """Whether stochastic rounding measures gamma in this step."""
    return step < GAMMA_STEPS or step % GAMMA_EVERY == 0


class Coefficients:
    """alpha and beta of one bucket over time, from the measured gamma."""

    def __init__(self, scheme: Scheme, feedback: Feedback) -> None:
        self.beta = feedback.beta
        self._given = feedback.alpha
        self._measures = scheme.rounding == "stochastic"
        self._worst = scheme.worst_gamma
        self._warned = False
        self.gammas: deque[float] = deque(maxlen=GAMMA_STEPS)

    @property
    def gamma(self) -> float:
        """The largest gamma of the last steps; before the first, the bound that theory gives."""
        return max(self.gammas) if self.gammas else self._worst

    @property
    def alpha(self) -> float:
        if self._given is not None:
            return self._given
        return self.beta / (1.0 + self.gamma) if self._measures else self.beta

    def observe(self, gamma: float) -> None:
        """Take the gamma of a step that was applied. Warns once if given coefficients are unstable."""
        self.gammas.append(gamma)
        if self._given is None or not self._measures or self._warned:
            return
        growth = (self.beta - self._given) ** 2 + gamma * self._given**2
        if growth >= 1.0:
            self._warned = True
            log.warning(
                "alpha=%g with beta=%g is unstable here: the residual grows by %.3g a step (gamma %.3g); "
                "alpha=%.3g would be stable",
                self._given,
                self.beta,
                growth,
                gamma,
                self.beta / (1.0 + gamma),
            )


def measured_gamma(units: Floats, stats: Floats) -> float:
    """Relative variance of a whole bucket from its units and the stats of encode (shape (blocks, 2))."""
    weights = np.where(np.isfinite(units), units, np.float32(0)).astype(np.float64) ** 2
    signal = float((weights * stats[:, 1]).sum())
    return float((weights * stats[:, 0]).sum()) / signal if signal > 0.0 else 0.0


def encode_blocks(
    gradient: Floats,
    residual: Floats,
    scheme: Scheme,
    alpha: float,
    beta: float,
    key: int,
    first: int,
) -> tuple[Floats, np.ndarray, Floats, Floats, int]:
    """One step of feedback over whole blocks; gradient and residual have the shape (blocks, 512).

    Returns units, packed codes, new residual, stats and the number of blocks that were not finite. Those keep
    their residual. Stats are, per block, the sums of squares of rounding error and of signal, in units.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = gradient + np.float32(alpha) * residual
    result = quantize(values, scheme, key, first)
    with np.errstate(invalid="ignore", over="ignore"):
        error = values - dequantize(result.units, result.codes)
        kept = error + np.float32(beta - alpha) * residual
    kept[result.bad] = residual[result.bad]
    difference = result.scaled - result.codes.astype(np.float32)
    stats = np.stack([lane_sum(difference * difference), lane_sum(result.scaled * result.scaled)], axis=1)
    return result.units, pack(result.codes, scheme.bits), kept, stats, int(result.bad.sum())
