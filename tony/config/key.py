"""What is known of a setting: its name, what a value of it looks like, its flag and its variable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a value looks like; the text names it in messages and in the default file."""

    TEXT = "text"
    CHOICE = "one of"
    INTEGER = "whole number"
    SIZE = "size with a unit, like 4g"
    DURATION = "duration with a unit, like 30s, 5m, 1h30m"
    SWITCH = "true or false"
    WORDS = "list of texts"
    PAIRS = "map from names to texts"
    COUNTS = "map from names to whole numbers"
    CLUSTERS = "map from names to clusters"


@dataclass(frozen=True)
class Key:
    """One setting. `default` is written as in a file; None: there is none.

    `literal` values are the user's own data and are passed on as they are; in all others, leftovers of templates
    (``{{ ds }}``, ``None``) are refused. `constant` is what a flag without a value stands for.
    """

    name: str
    kind: Kind
    help: str
    default: str | int | bool | tuple[str, ...] | dict[str, str] | None = None
    flag: str | None = None
    group: str = "life"
    metavar: str = ""
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    literal: bool = False
    constant: str | None = None

    @property
    def repeats(self) -> bool:
        """Whether the flag may be given several times."""
        return self.kind in (Kind.WORDS, Kind.PAIRS, Kind.COUNTS)

    @property
    def parameter(self) -> str:
        """The flag as a parameter's name in Python; empty where there is none."""
        return (self.flag or "").lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable: the flag's name where there is one, else the key's."""
        return "TONY_" + (self.flag or self.name).lstrip("-").replace("-", "_").replace(".", "_").upper()
