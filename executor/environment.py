"""What the container's environment says to the executor, and the environment that the user process gets.

The only reader of `os.environ` in the executor's processes (beside `launch`, which runs before it).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from executor import launch
from tony.errors import TonyError
from tony.spec import TaskId

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_OURS = ("TONY_", "SKEIN_")
"""Prefixes of variables that are for us. What a user may know of them comes with the release."""

_FOREIGN_PYTHON = frozenset({"PYTHONHOME", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__"})
"""Would make the user's interpreter look for its library in another one's folder."""

_MISSING_HOMES = ("", "/", "/home", "/home/", "/nonexistent")
"""What YARN and system accounts set where there is no home."""


@dataclass(frozen=True)
class ContainerEnvironment:
    """Who this executor is and where it stands. Paths are absolute."""

    backend: str
    application_id: str
    am_address: str
    task: TaskId
    incarnation: int
    certificate: Path
    private_key: Path
    host: str
    container_id: str
    folder: Path
    log_folder: Path
    variables: Mapping[str, str]
    gpus: int = 0
    """How many were counted for the task."""

    @classmethod
    def from_environ(cls) -> ContainerEnvironment:
        """Raises TonyError that names the variable which is missing or makes no sense."""
        variables = dict(os.environ)
        folder = Path.cwd()

        def needed(name: str) -> str:
            if not variables.get(name):
                raise TonyError(f"{name} is missing from the container's environment.")
            return variables[name]

        try:
            task, incarnation = TaskId.parse(needed("TONY_TASK")), int(needed("TONY_INCARNATION"))
            gpus = int(variables.get("TONY_GPUS", "0"))
        except ValueError as error:
            raise TonyError(f"The container's environment makes no sense: {error}") from None
        logs = variables.get("LOG_DIRS", "").split(",")[0]
        return cls(
            backend=variables.get("TONY_BACKEND", "yarn"),
            application_id=needed("TONY_APPLICATION_ID"),
            am_address=needed("TONY_AM_ADDRESS"),
            task=task,
            incarnation=incarnation,
            certificate=folder / needed("TONY_CERTIFICATE"),
            private_key=folder / needed("TONY_PRIVATE_KEY"),
            host=variables.get("TONY_HOST") or variables.get("NM_HOST") or "127.0.0.1",
            container_id=variables.get("CONTAINER_ID", ""),
            folder=folder,
            log_folder=Path(logs) if logs else folder / "logs",
            variables=variables,
            gpus=gpus,
        )

    def node_cache(self) -> Path:
        """The folder that keeps unpacked environments on this node. Raises OSError if there can be none."""
        return launch.node_cache(self.variables)


def user_environment(
    container: Mapping[str, str],
    release: Mapping[str, str],
    *,
    library: Path,
    home: Path,
    python_folder: Path | None = None,
    virtual_env: Path | None = None,
    report_socket: str | None = None,
) -> dict[str, str]:
    """The whole environment of the user process. Pure.

    From the container: everything but our own variables (YARN's stay: LOCAL_DIRS, the token file, …). The `release`
    wins over that. `library` (the folder with the ``tony`` package) stands first in PYTHONPATH, `python_folder` first
    in PATH, each before what the user or the container has there. `home` is used where the container has none.
    """
    environment = {
        name: value
        for name, value in container.items()
        if not name.startswith(_OURS) and name not in _FOREIGN_PYTHON and "\0" not in value
    }
    if environment.get("HOME", "") in _MISSING_HOMES:
        environment["HOME"] = str(home)
    # Unpacked environments are shared by all tasks of a node; lines must be seen when they are written.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    environment.pop("VIRTUAL_ENV", None)
    if virtual_env is not None:
        environment["VIRTUAL_ENV"] = str(virtual_env)
    environment.update(release)
    environment["PATH"] = _joined(python_folder, environment.get("PATH") or _DEFAULT_PATH)
    environment["PYTHONPATH"] = _joined(library, environment.get("PYTHONPATH", ""))
    environment.pop("TONY_REPORT_SOCKET", None)
    if report_socket is not None:
        environment["TONY_REPORT_SOCKET"] = report_socket
    return environment


def _joined(first: Path | None, rest: str) -> str:
    # An empty part would mean the current folder.
    parts = [str(first)] if first is not None else []
    return os.pathsep.join(parts + [part for part in rest.split(os.pathsep) if part])
