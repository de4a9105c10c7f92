"""skein's submit driver as a process of ours: a JVM with YARN's client classes, started with credentials of its own.

One that ends with the command lives as long as its standard input; a kept one (`start_driver`) is recorded in the
state folder, is found by `running_driver` and ends with `stop_driver`. Nothing here imports skein.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tony import records
from tony.errors import ProtocolError, Unreachable
from tony.paths import cache_dir, private_folder, state_dir
from tony.protocol.credentials import Credentials, new_credentials

START_TIMEOUT_S = 60.0
_CLASSPATH_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_MAIN = "com.anaconda.skein.Driver"
_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m")
_JAVA_HINT = "Install a Java runtime (17 or newer), or set JAVA_HOME."
_CERTIFICATE, _KEY, _LOG = "driver.crt", "driver.pem", "driver.log"
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
        return self.started != "" and _started(self.pid) == self.started


class DriverProcess:
    """A running driver JVM: its `address`, and the credentials that it accepts."""

    def __init__(
        self, address: str, credentials: Credentials, process: subprocess.Popen[bytes], folder: Path
    ) -> None:
        self.address = address
        self.credentials = credentials
        self.process = process
        self._folder = folder

    def close(self) -> None:
        """End the process (it ends when its standard input closes) and remove its folder. May be called twice."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def open_driver(
    conf_dir: Path, bin_dir: Path | None, user: str | None = None, cancelled: Callable[[], bool] = lambda: False
) -> DriverProcess:
    """Start a driver that ends with this process. Blocks for the JVM's start, 1-3 s, or until `cancelled`.

    Raises Unreachable.
    """
    folder = _new_folder()
    process: subprocess.Popen[bytes] | None = None
    credentials = new_credentials()
    try:
        with socket.create_server(("127.0.0.1", 0)) as callback, (folder / _LOG).open("wb") as log:
            process = subprocess.Popen(
                _command(folder),
                # The driver ends when this closes, so also when we are killed.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(conf_dir, bin_dir, user, credentials, callback),
                cwd=folder,
                start_new_session=True,
            )
            living = process.poll
            port = _announced_port(callback, lambda: living() is None and not cancelled(), folder / _LOG)
    except BaseException as error:
        if process is not None:
            process.kill()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, Unreachable):
            raise Unreachable(f"the submit driver could not be started: {error}", _JAVA_HINT) from error
        raise
    return DriverProcess(f"127.0.0.1:{port}", credentials, process, folder)


def _new_folder() -> Path:
    """A folder for a driver that ends with this process; those whose process was killed are removed."""
    parent = private_folder(cache_dir() / "drivers")
    for old in parent.iterdir():
        if not Path(f"/proc/{old.name.partition('-')[0]}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))


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
        line = [*_command(folder), "--daemon"]
        environment = _environment(conf_dir, bin_dir, user, credentials, callback)
        try:
            shell = ["/bin/sh", "-c", _DETACH, "sh", str(folder / _LOG), *line]
            done = subprocess.run(
                shell,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
                timeout=_STOP_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreachable(f"the submit driver could not be started: {error}") from error
        pid = int(done.stdout)
        started = _started(pid)
        try:
            port = _announced_port(callback, lambda: _started(pid) == started != "", folder / _LOG)
        except BaseException:
            if _started(pid) == started != "":
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


def _command(folder: Path) -> list[str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    options = ["-Dskein.log.level=INFO", f"-Djava.io.tmpdir={temporary}", *_OPTIONS]
    return [_java(), *options, _MAIN, "--jar", str(skein_jar())]


def _environment(
    conf_dir: Path, bin_dir: Path | None, user: str | None, credentials: Credentials, callback: socket.socket
) -> dict[str, str]:
    environment = hadoop_environment(conf_dir, bin_dir)
    environment |= {
        "SKEIN_CERTIFICATE": credentials.certificate,
        "SKEIN_KEY": credentials.private_key,
        "SKEIN_CALLBACK_PORT": str(callback.getsockname()[1]),
        "CLASSPATH": f"{skein_jar()}:{conf_dir}:{_hadoop_class_path(environment)}",
        "LANG": "C.UTF-8",
    }
    if user:
        environment["HADOOP_USER_NAME"] = user
    return environment


def _announced_port(callback: socket.socket, alive: Callable[[], bool], log: Path) -> int:
    """Wait for the driver to call back with its port, a big-endian int."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while living := alive():
        if time.monotonic() > deadline:
            break
        if select.select([callback], [], [], 0.2)[0]:
            connection = callback.accept()[0]
            connection.settimeout(5.0)
            with connection, connection.makefile("rb") as stream:
                answer = stream.read(4)
            if len(answer) == 4:
                return int(struct.unpack("!i", answer)[0])
    lines = log.read_text(errors="replace").splitlines()[-50:]
    told = next((line for line in reversed(lines) if line.strip() and not line.startswith(("\t", " "))), "")
    what = "did not come up in time" if living else "ended while it started"
    raise Unreachable(f"the submit driver {what}" + (f": {told.strip()}" if told else "."))


def hadoop_environment(conf_dir: Path, bin_dir: Path | None) -> dict[str, str]:
    """This process's environment with the Hadoop configuration and commands in front."""
    environment = dict(os.environ)
    environment["HADOOP_CONF_DIR"] = environment["YARN_CONF_DIR"] = str(conf_dir)
    if bin_dir is not None:
        environment["PATH"] = f"{bin_dir}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return environment


def yarn_command(environment: dict[str, str]) -> str:
    """The path of the `yarn` command. Raises Unreachable when there is none."""
    home = environment.get("HADOOP_HOME")
    places = [environment.get("PATH", os.defpath)] + ([f"{home}/bin"] if home else [])
    found = shutil.which("yarn", path=os.pathsep.join(places))
    if found is None:
        raise Unreachable(
            "the command `yarn` was not found; it tells where Hadoop's client libraries are.",
            "Put Hadoop's bin folder on PATH or set HADOOP_HOME, or start a cluster with: tony cluster start",
        )
    return found


def _hadoop_class_path(environment: dict[str, str]) -> str:
    command = [yarn_command(environment), "classpath"]
    try:
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_CLASSPATH_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unreachable(f"`{' '.join(command)}` failed: {error}") from error
    return answer.stdout.strip()


def skein_jar() -> Path:
    """skein's jar, found without importing skein."""
    found = importlib.util.find_spec("skein")
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        jar = Path(folder) / "java" / "skein.jar"
        if jar.is_file():
            return jar
    raise Unreachable("skein's Java part is not installed.", "pip install 'skein==0.8.2'")


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        raise Unreachable(f"Java was not found{f' in JAVA_HOME={home}' if home else ''}.", _JAVA_HINT)
    return java


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks: with the pid it names one process for ever. Empty: none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
