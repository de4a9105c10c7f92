"""The folder of Hadoop's jars: fetched once by Maven from our pom.xml, kept in the user's cache by the pom's hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tony.errors import Refused, TonyError
from tony.paths import cache_dir

POM = Path(__file__).with_name("pom.xml")
_MARKER = "complete.json"
_JARS_EXPECTED = 184
_FETCH_TIMEOUT_S = 1800.0
_LOCK_TIMEOUT_S = 1800.0
_PROGRESS_STEP_S = 5.0
_LINES_KEPT = 200
_LINES_SHOWN = 12


def hadoop_version(pom: str | None = None) -> str:
    """Hadoop's version as our pom names it."""
    found = re.search(r"<hadoop\.version>([^<]+)</hadoop\.version>", pom or POM.read_text())
    assert found is not None
    return found[1]


def jars_folder(root: Path | None = None) -> Path:
    """Where the jars of this pom are, or will be."""
    pom = POM.read_bytes()
    digest = hashlib.sha256(pom).hexdigest()[:12]
    return (root or cache_dir()).absolute() / "hadoop" / f"{hadoop_version(pom.decode())}-{digest}"


def is_complete(folder: Path) -> bool:
    """Whether every jar that the fetch brought is still there with its size."""
    try:
        sizes = json.loads((folder / _MARKER).read_text())["sizes"]
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def fetch(java_home: Path, progress: Callable[[str], None], root: Path | None = None) -> Path:
    """The jar folder, complete. Uses the network only when it is not there yet; blocks until Maven is done.

    Two processes may call this at once: the second one waits for the first. Raises Refused when there is no
    Maven, TonyError when it fails; nothing half-written stays behind.
    """
    folder = jars_folder(root)
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _fetch_lock(folder.parent / ".lock", progress):
        if is_complete(folder):
            return folder
        maven = shutil.which("mvn")
        if maven is None:
            raise Refused(
                "Hadoop's jars are not in the cache yet, and there is no Maven (mvn) on the PATH to fetch them",
                "install Maven 3.6 or newer; it is needed for the first start only",
            )
        progress(f"fetching Hadoop {hadoop_version()} with Maven (100 MB, once)")
        fresh = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder.parent))
        try:
            _run_maven(maven, java_home, fresh, progress)
            sizes = {jar.name: jar.stat().st_size for jar in sorted(fresh.glob("*.jar"))}
            if not any(name.startswith("hadoop-yarn-server-resourcemanager") for name in sizes):
                raise TonyError("Maven reported success but brought no Hadoop", f"look at {POM}")
            (fresh / _MARKER).write_text(json.dumps({"hadoop": hadoop_version(), "sizes": sizes}, indent=1))
            fresh.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def maven_failure(lines: list[str]) -> str:
    """What to show of a failed Maven run: its own error lines if it wrote any, else its last lines."""
    errors = [line for line in lines if line.startswith("[ERROR]") and line.strip() != "[ERROR]"]
    shown = errors[:_LINES_SHOWN] or lines[-_LINES_SHOWN:]
    return "\n".join("    " + line for line in shown)


def _run_maven(maven: str, java_home: Path, target: Path, progress: Callable[[str], None]) -> None:
    command = [maven, "-B", "-C", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    environment = {**os.environ, "JAVA_HOME": str(java_home)}
    kept: deque[str] = deque(maxlen=_LINES_KEPT)
    fetched, next_report = 0, time.monotonic() + _PROGRESS_STEP_S
    with subprocess.Popen(
        command,
        cwd=target,  # empty: Maven takes options from a .mvn folder beside its working directory
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        limit = threading.Timer(_FETCH_TIMEOUT_S, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                kept.append(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip())
                fetched += "Downloaded from" in line and ".jar" in line
                if fetched and time.monotonic() >= next_report:
                    progress(f"  fetched {fetched} of about {_JARS_EXPECTED} files")
                    next_report = time.monotonic() + _PROGRESS_STEP_S
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
            limit.join()
    if code != 0:
        raise TonyError(
            f"Maven could not fetch Hadoop (exit code {code}):\n{maven_failure(list(kept))}",
            "check Maven's settings (mirror, proxy) and the network, then start again; what arrived is kept",
        )


@contextmanager
def _fetch_lock(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Only one process fetches; the others wait, at most half an hour."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    told = False
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TonyError(f"another process holds {path} for too long") from None
                if not told:
                    progress("waiting for another process that is fetching Hadoop")
                    told = True
                time.sleep(0.5)
        yield
