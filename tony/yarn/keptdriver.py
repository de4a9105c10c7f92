"""A submit driver that outlives the command that started it, so that the next submits need not wait for a JVM.

It is started on request only (``tony cluster start`` for its own cluster), recorded in the state folder, and has
credentials of its own in a folder that only its owner can read.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tony import records
from tony.errors import ProtocolError, Unreachable
from tony.paths import private_folder, state_dir
from tony.processes import start_time
from tony.protocol.credentials import Credentials, new_credentials
from tony.yarn.driver import LOG_FILE, announced_port, driver_command, driver_environment

_STOP_TIMEOUT_S = 10.0
_SPAWN_TIMEOUT_S = 10.0
_CERTIFICATE, _KEY = "driver.crt", "driver.pem"
_RECORD = "driver.json"

# The script leaves at once: the driver becomes init's child and survives the terminal.
_DETACH = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'


@dataclass(frozen=True)
class KeptDriver:
    """A driver that outlives the command that started it, as recorded in ``<state>/driver.json``."""

    address: str
    pid: int
    conf_dir: str
    folder: str
    started: str

    def credentials(self) -> Credentials:
        """What it was started with. Raises Unreachable when the files are gone."""
        folder = Path(self.folder)
        try:
            return Credentials((folder / _CERTIFICATE).read_text(), (folder / _KEY).read_text())
        except OSError as error:
            raise Unreachable(f"the credentials of the kept submit driver cannot be read: {error}") from error

    @property
    def alive(self) -> bool:
        """Whether the recorded process still runs; a later process with the same pid does not count."""
        return self.started != "" and start_time(self.pid) == self.started


def start_driver(conf_dir: Path, bin_dir: Path | None, folder: Path, user: str | None = None) -> KeptDriver:
    """Start a driver that outlives this process and record it; `folder` keeps its credentials and log, owner-only.

    One that already runs for this configuration is returned as it is; one for another is stopped first.
    Blocks for 1-3 s. Raises Unreachable.
    """
    running = running_driver(conf_dir)
    if running is not None:
        return running
    stop_driver()
    private_folder(folder).chmod(0o700)
    credentials = new_credentials()
    _write(folder / _CERTIFICATE, credentials.certificate.encode())
    _write(folder / _KEY, credentials.private_key.encode())
    with socket.create_server(("127.0.0.1", 0)) as callback:
        line = [*driver_command(folder), "--daemon"]
        environment = driver_environment(conf_dir, bin_dir, user, credentials, callback)
        try:
            shell = ["/bin/sh", "-c", _DETACH, "sh", str(folder / LOG_FILE), *line]
            done = subprocess.run(
                shell,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
                timeout=_SPAWN_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreachable(f"the submit driver could not be started: {error}") from error
        pid = int(done.stdout)
        started = start_time(pid) or ""
        try:
            port = announced_port(callback, lambda: start_time(pid) == started, folder / LOG_FILE)
        except BaseException:
            if start_time(pid) == started:
                os.kill(pid, signal.SIGKILL)
            raise
    kept = KeptDriver(f"127.0.0.1:{port}", pid, str(conf_dir.resolve()), str(folder.resolve()), started)
    _write(private_folder(state_dir()) / _RECORD, records.encode(kept))
    return kept


def running_driver(conf_dir: Path) -> KeptDriver | None:
    """The recorded driver for this configuration folder, if its process lives."""
    kept = _recorded()
    if kept is not None and kept.alive and kept.conf_dir == str(conf_dir.resolve()):
        return kept
    return None


def stop_driver() -> bool:
    """End the recorded driver and forget it; tells whether one was running. Blocks up to 10 s."""
    kept = _recorded()
    (state_dir() / _RECORD).unlink(missing_ok=True)
    if kept is None:
        return False
    alive = kept.alive
    for number, patience_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + patience_s
        if kept.alive:
            os.kill(kept.pid, number)
        while kept.alive and time.monotonic() < deadline:
            time.sleep(0.05)
    for name in (_CERTIFICATE, _KEY):
        (Path(kept.folder) / name).unlink(missing_ok=True)
    return alive


def _recorded() -> KeptDriver | None:
    try:
        return records.decode((state_dir() / _RECORD).read_bytes(), KeptDriver)
    except (OSError, ProtocolError):
        return None


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
