"""skein's submit driver as a process of ours: a JVM with YARN's client classes, started with credentials of its own.

This one lives as long as its standard input, so it ends with the command that started it, however that ends.
Nothing here imports skein.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from tony.errors import Unreachable
from tony.paths import cache_dir, private_folder
from tony.protocol.credentials import Credentials, new_credentials

START_TIMEOUT_S = 60.0
_CLASSPATH_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_MAIN = "com.anaconda.skein.Driver"
_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m")
_JAVA_HINT = "Install a Java runtime (17 or newer), or set JAVA_HOME."
LOG_FILE = "driver.log"


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
        with socket.create_server(("127.0.0.1", 0)) as callback, (folder / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(
                driver_command(folder),
                # The driver ends when this closes, so also when we are killed.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=driver_environment(conf_dir, bin_dir, user, credentials, callback),
                cwd=folder,
                start_new_session=True,
            )
            living = process.poll
            port = announced_port(callback, lambda: living() is None and not cancelled(), folder / LOG_FILE)
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


def driver_command(folder: Path) -> list[str]:
    """The driver's command line; `folder` takes its temporary files. Raises Unreachable without Java or skein."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    # The driver uploads this file anew for every application. The whole of skein's jar reaches application masters
    # by way of the cache on the cluster's storage instead (`JobRecord.jar`).
    jar = folder / "empty.jar"
    jar.write_bytes(empty_jar())
    options = ["-Dskein.log.level=INFO", f"-Djava.io.tmpdir={temporary}", *_OPTIONS]
    return [find_java(), *options, _MAIN, "--jar", str(jar)]


def empty_jar() -> bytes:
    """A jar that holds a manifest and nothing else; always the same bytes."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as jar:
        jar.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), "Manifest-Version: 1.0\r\n\r\n")
    return content.getvalue()


def driver_environment(
    conf_dir: Path, bin_dir: Path | None, user: str | None, credentials: Credentials, callback: socket.socket
) -> dict[str, str]:
    """What the driver finds in its environment: whom to trust, Hadoop's classes, and where to tell its port."""
    environment = hadoop_environment(conf_dir, bin_dir)
    environment |= {
        "SKEIN_CERTIFICATE": credentials.certificate,
        "SKEIN_KEY": credentials.private_key,
        "SKEIN_CALLBACK_PORT": str(callback.getsockname()[1]),
        "CLASSPATH": f"{skein_jar()}:{conf_dir.absolute()}:{_hadoop_class_path(environment)}",
        "LANG": "C.UTF-8",
    }
    if user:
        environment["HADOOP_USER_NAME"] = user
    return environment


def announced_port(callback: socket.socket, alive: Callable[[], bool], log: Path) -> int:
    """Wait for the driver to call back with its port, a big-endian int. Raises Unreachable with what it logged."""
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
    environment["HADOOP_CONF_DIR"] = environment["YARN_CONF_DIR"] = str(conf_dir.absolute())
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


def find_java() -> str:
    """The Java that starts a driver: that of JAVA_HOME, else the first on the path. Raises Unreachable."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        raise Unreachable(f"Java was not found{f' in JAVA_HOME={home}' if home else ''}.", _JAVA_HINT)
    return java
