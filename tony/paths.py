"""Where this user's files are: state that must be kept, and caches that may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """``$TONY_STATE_DIR``, else ``tony`` below ``$XDG_STATE_HOME`` or ``~/.local/state``. Not created here."""
    given = os.environ.get("TONY_STATE_DIR")
    return Path(given) if given else _home("XDG_STATE_HOME", ".local/state") / "tony"


def cache_dir() -> Path:
    """``$TONY_CACHE_DIR``, else ``tony`` below ``$XDG_CACHE_HOME`` or ``~/.cache``. Not created here."""
    given = os.environ.get("TONY_CACHE_DIR")
    return Path(given) if given else _home("XDG_CACHE_HOME", ".cache") / "tony"


def config_file() -> Path:
    """The user's own settings: ``tony/config.yaml`` below ``$XDG_CONFIG_HOME`` or ``~/.config``."""
    return _home("XDG_CONFIG_HOME", ".config") / "tony" / "config.yaml"


def private_folder(path: Path) -> Path:
    """Create the folder (and missing parents), readable by its owner only; returns it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _home(variable: str, default: str) -> Path:
    given = os.environ.get(variable)
    return Path(given) if given else Path.home() / default
