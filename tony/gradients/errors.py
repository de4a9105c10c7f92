"""What can go wrong in an exchange of gradients."""

from __future__ import annotations

from tony.errors import TonyError


class GradientError(TonyError):
    """Base of every error that this room raises on purpose. Its text has the hint, too: scripts let it be printed."""

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class BadSetting(GradientError, ValueError):
    """A setting that can never work: bits that do not exist, a coefficient out of range."""


class BadGradient(GradientError, TypeError):
    """A gradient that cannot be quantized: not floating point, or two of one name. Raised on every rank."""


class RanksDisagree(GradientError):
    """The ranks would not exchange the same thing: layout, settings, step or codec version. On every rank."""


class ResidualMismatch(GradientError):
    """A residual checkpoint of another model, world size, rank or setting."""
