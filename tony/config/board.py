"""The role that ``tensorboard`` asks for: a sidecar that shows a folder of event files."""

from __future__ import annotations

from typing import Any

from tony.config.layers import Given, Layer, Settings

ROLE = "tensorboard"
_SERVE = 'exec python3 -m tensorboard.main --bind_all --port "$TB_PORT" --logdir "$0"'


def add_board(settings: Settings) -> bool:
    """Describe the role, if there shall be one; its sizes may be set like those of any other. Says whether."""
    folder = settings.get("tensorboard")
    if folder is None:
        return False
    told = settings.layers(f"roles.{ROLE}.command")
    if any(given.layer <= Layer.JOB for given in told):
        settings.problem(
            "tensorboard", f"the role {ROLE} of this job has a command already.", "Leave out one of them."
        )
        return False
    described: dict[str, Any] = {"sidecar": True, "command": ("bash", "-c", _SERVE, folder.value)}
    for key, value in described.items():
        settings.add(f"roles.{ROLE}.{key}", Given(value, folder.text, folder.origin, folder.layer, folder.folder))
    return True
