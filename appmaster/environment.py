"""The application master's only reader of ``os.environ``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ATTEMPT = re.compile(r"container_(?:e\d+_)?\d+_\d+_(\d+)_\d+")


@dataclass(frozen=True)
class AppMasterEnvironment:
    """What the container tells its application master. `base` is all of it, for child processes."""

    backend: str
    application_id: str
    host: str
    certificate: str
    private_key: str
    attempt: int
    log_folder: Path | None
    base: Mapping[str, str]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> AppMasterEnvironment:
        """Raises KeyError when it does not run where it is meant to."""
        match = _ATTEMPT.fullmatch(environ.get("CONTAINER_ID", ""))
        return cls(
            backend=environ["TONY_BACKEND"],
            application_id=environ.get("TONY_APPLICATION_ID") or environ["SKEIN_APPLICATION_ID"],
            host=environ.get("TONY_HOST") or environ.get("NM_HOST") or "127.0.0.1",
            certificate=environ["TONY_CERTIFICATE"],
            private_key=environ["TONY_PRIVATE_KEY"],
            attempt=int(match[1]) if match else 1,
            log_folder=Path(environ["LOG_DIRS"].split(",")[0]) if environ.get("LOG_DIRS") else None,
            base=dict(environ),
        )

    def of_executor(self) -> dict[str, str]:
        """What a child executor on this machine inherits: our own settings, and a shell's plain basics."""
        kept = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
        ours = ("TONY_BACKEND", "TONY_RUNTIME", "TONY_RUNTIME_PATH", "TONY_NODE_CACHE", "TONY_CERTIFICATE")
        names = (*kept, *ours, "TONY_PRIVATE_KEY", "TONY_HOST")
        return {name: self.base[name] for name in names if name in self.base}
