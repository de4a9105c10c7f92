"""`ContainerBackend` on one machine: every executor is a child process in a folder of its own.

Nothing is limited or scheduled here: a request is held at once. The folder has what YARN would have put there:
the files of the role, the certificate, a log folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tony.containers import AppState, EndCause, HandleState, Identity, Phase
from tony.errors import TonyError
from tony.paths import private_folder

_KILL_AFTER_S = 5.0
_LAST_WORDS_BYTES = 4096
_LINE_CHARACTERS = 300


@dataclass
class _Child:
    handle: str
    container_id: str
    process: subprocess.Popen[bytes]
    said: Path
    stopped: bool = False
    last_words: str | None = None


class LocalContainers:
    """Executors as children of the application master's process.

    `launch` is the argv that starts an executor, `folder` the job's own folder, `files(role)` what the folder of
    a container of that role holds (name → path), `environment` the base of every executor's environment.
    """

    def __init__(
        self,
        folder: Path,
        launch: Sequence[str],
        files: Callable[[str], Mapping[str, Path]],
        environment: Mapping[str, str],
        host: str = "127.0.0.1",
    ) -> None:
        self._folder = folder
        self._launch = list(launch)
        self._files = files
        self._environment = dict(environment)
        self._host = host
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._count = 0

    def request(self, identity: Identity, environment: Mapping[str, str]) -> str:
        with self._lock:
            self._count += 1
            number = self._count
        handle = f"{identity.task.role}_{number}"
        container_id = f"container_{number:06d}"
        folder = private_folder(self._folder / "containers" / container_id)
        logs = private_folder(folder / "logs")
        try:
            for name, path in self._files(identity.task.role).items():
                (folder / name).symlink_to(path)
            said = logs / "executor.out"
            with said.open("wb") as output:
                process = subprocess.Popen(
                    self._launch,
                    cwd=folder,
                    env={
                        **self._environment,
                        **environment,
                        "CONTAINER_ID": container_id,
                        "LOG_DIRS": str(logs),
                        "LOCAL_DIRS": str(folder),
                        "PWD": str(folder),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise TonyError(f"cannot start an executor: {error}") from error
        with self._lock:
            self._children[handle] = _Child(handle, container_id, process, said)
        return handle

    def stop(self, handle: str) -> None:
        with self._lock:
            child = self._children.get(handle)
        if child is None or child.process.poll() is not None:
            return
        child.stopped = True
        _signal(child.process, signal.SIGTERM)
        # Like a NodeManager: TERM, then KILL; the executor's keeper ends the user's session by itself.
        timer = threading.Timer(_KILL_AFTER_S, _signal, (child.process, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def poll(self) -> list[HandleState]:
        with self._lock:
            children = list(self._children.values())
        return [self._state(child) for child in children]

    def progress(self, fraction: float) -> None:
        """Nobody looks here."""

    def finish(self, state: AppState, diagnostics: str) -> None:
        """The verdict in the job folder is all that counts here."""

    def close(self) -> None:
        with self._lock:
            children = list(self._children.values())
        for child in children:
            if child.process.poll() is None:
                child.stopped = True
                _signal(child.process, signal.SIGTERM)
        for child in children:
            try:
                child.process.wait(_KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                _signal(child.process, signal.SIGKILL)
                child.process.wait(_KILL_AFTER_S)

    def _state(self, child: _Child) -> HandleState:
        code = child.process.poll()
        if code is None:
            return HandleState(child.handle, Phase.HELD, child.container_id, self._host)
        cause = EndCause.KILLED_BY_US if child.stopped else EndCause.EXITED
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if child.last_words is None:
            child.last_words = "" if child.stopped or code == 0 else _last_line(child.said)
        if child.last_words:
            ended = f"{ended}: {child.last_words}"
        return HandleState(
            child.handle,
            Phase.ENDED,
            child.container_id,
            self._host,
            cause,
            code,
            f"the executor's process ended with {ended}",
        )


def _last_line(path: Path) -> str:
    """What an executor that crashed said last: the exception of its last traceback, else its last line."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_WORDS_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    heads = [number for number, line in enumerate(lines) if line.startswith("Traceback (")]
    raised = [line for line in lines[heads[-1] + 1 :] if line and not line[0].isspace()] if heads else []
    line = raised[0] if raised else next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "".join(letter for letter in line if letter.isprintable())[:_LINE_CHARACTERS]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the process only: its keeper sees to the rest, and a session of the user's must not be cut off first."""
    if process.poll() is None:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            pass
