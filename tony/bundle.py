"""From a job to its plan: build the archives, choose the interpreters, name what will be uploaded.

Everything is built in this user's cache and named by its content; nothing leaves the machine.
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tony
from tony.containers import Cluster, SubmitProgress
from tony.errors import PackagingError, Problem, UsageError
from tony.packaging.archive import Archive, archive_suffix, existing_archive
from tony.packaging.environment import pack_environment
from tony.packaging.environment_report import inspect_environment
from tony.packaging.image import InsidePython, inside_python
from tony.packaging.runtime import build_runtime, this_python
from tony.packaging.safety import inspect_archive
from tony.packaging.source import pack_source
from tony.paths import cache_dir, private_folder
from tony.plan import Plan, PlannedUpload
from tony.spec import FileSpec, ImagePython, JobRecord, JobSpec, Upload
from tony.storage import Storage

Progress = Callable[[SubmitProgress], None]

RUNTIME = "runtime bundle"
MASTER_JAR = "skein's jar"
SOURCE = "source"
ENVIRONMENT = "environment"

_IN_ENVIRONMENT = "{environment}/bin/python"
_VERSIONED = re.compile(r"python(3\.\d{1,2})$")
_ASK_VERSION_S = 20.0


@dataclass
class _Bundle:
    """What was collected so far."""

    storage: Storage
    into: Path
    progress: Progress
    uploads: list[PlannedUpload] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, archive: Archive, name: str, what: str, target: str = "", unpack: bool = False) -> Upload:
        """Plan the upload of an archive; what two roles share is uploaded once."""
        url = self.storage.url(f"cache/{archive.name}")
        upload = Upload(name, url, archive.sha256, archive.size, target, unpack)
        if all(item.upload.url != url for item in self.uploads):
            self.uploads.append(PlannedUpload(upload, str(archive.path), what))
        return upload

    def there(self, url: str, name: str, target: str = "", unpack: bool = False) -> Upload:
        """A file that the cluster has already. Raises PackagingError, NotPermitted, Unreachable."""
        try:
            size = self.storage.size(url)
        except FileNotFoundError as error:
            raise PackagingError(f"there is no file {url} on the cluster's storage") from error
        return Upload(name, self.storage.url(url), "", size, target, unpack)

    def shown(self, step: str) -> Callable[[int, int], None]:
        """A progress callback for one step."""
        self.progress(SubmitProgress(step))
        return lambda done, total: self.progress(SubmitProgress(step, done, total))


def bundle(job: JobSpec, cluster: Cluster, node_python: str | None, progress: Progress) -> Plan:
    """The plan of a checked job. Raises UsageError, PackagingError, NotPermitted, Unreachable."""
    local = cluster.name == "local"
    into = private_folder(cache_dir() / "archives")
    storage = Storage(cluster.storage)
    try:
        made = _Bundle(storage, into, progress)
        made.warnings += getattr(cluster, "advice", _no_advice)(job)
        python = node_python or (sys.executable if local else own_interpreter())
        source = _source(job, made)
        user_python, environment = _python(job, made, python, local)
        runtime = None if local else _runtime(made, python, node_python is not None)
        images = {} if local else _images(job, made, user_python)
        record = JobRecord(
            spec=job,
            user=os.environ.get("HADOOP_USER_NAME") or getpass.getuser(),
            storage=cluster.storage,
            python=python,
            user_python=user_python,
            runtime=runtime,
            environment=environment,
            source=source,
            files=_files(job.files, "file", made),
            role_files={role.name: _files(role.files, f"file-{role.name}", made) for role in job.roles if role.files},
            node_count=cluster.node_count(),
            jar=_master_jar(cluster, made),
            images=images,
            version=tony.__version__,
            submitted_at=time.time(),
        )
    finally:
        storage.close()
    return Plan(job, cluster.name, record, tuple(made.uploads), tuple(made.warnings))


def archive_of(item: PlannedUpload) -> Archive:
    """The archive that a planned upload stands for."""
    name = item.upload.url.rpartition("/")[2]
    return Archive(Path(item.path), item.upload.sha256, item.upload.size, name[len(item.upload.sha256) :])


def active_environment(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The virtual environment that is active in the shell, else the one in which tony runs; None without one."""
    given = environ.get("VIRTUAL_ENV")
    if given and (Path(given) / "pyvenv.cfg").is_file():
        return Path(given)
    return Path(sys.prefix) if sys.prefix != sys.base_prefix else None


def own_interpreter() -> str:
    """The interpreter below this one's virtual environment, as a node of the same make would have it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _source(job: JobSpec, made: _Bundle) -> Upload | None:
    if job.source is None:
        return None
    scripts = [role.command[0] for role in job.roles if role.command and role.command[0].endswith(".py")]
    required = sorted({script for script in scripts if not script.startswith("/")})
    archive, warnings = pack_source(
        Path(job.source), job.exclude, made.into, required=required, progress=made.shown("packing source")
    )
    made.warnings += warnings
    return made.add(archive, f"source{archive.suffix}", SOURCE)


def _python(job: JobSpec, made: _Bundle, node_python: str, local: bool) -> tuple[str, Upload | None]:
    """The argv prefix of the user's Python, and the environment to ship."""
    if job.python.interpreter is not None:
        return job.python.interpreter, None
    chosen = job.python.environment
    if chosen == "auto" and all(role.image for role in job.roles):
        # Images bring their libraries.
        chosen = "none"
    if chosen == "none":
        return (own_interpreter() if local else node_python), None
    if chosen == "auto":
        active = active_environment()
        if active is None:
            if not local:
                made.warnings.append(f"no virtual environment is active: tasks run with {node_python} of the nodes")
            return node_python, None
        chosen = str(active)
    if "://" in chosen:
        return _IN_ENVIRONMENT, made.there(chosen, f"environment{archive_suffix(chosen)}")
    path = Path(chosen)
    if path.is_dir() and local:
        return _interpreter_in(path), None
    report = inspect_environment(path)
    if report.problems:
        raise UsageError(report.problems)
    made.warnings += report.warnings
    if path.is_dir():
        archive = pack_environment(path, made.into, made.shown("packing environment"))
        return _IN_ENVIRONMENT, made.add(archive, f"environment{archive.suffix}", ENVIRONMENT)
    made.shown("reading environment")
    archive = existing_archive(path)
    inside = f"{{environment}}/{report.interpreter or 'bin/python'}"
    return inside, made.add(archive, f"environment{archive.suffix}", ENVIRONMENT)


def _interpreter_in(folder: Path) -> str:
    python = folder / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UsageError([Problem("venv", "holds no bin/python that can be run.", str(folder))])
    return str(python)


def _runtime(made: _Bundle, python: str, chosen: bool) -> Upload:
    made.shown("packing runtime bundle")
    archive = build_runtime(_minor_version(python) if chosen else None, made.into)
    return made.add(archive, f"runtime{archive.suffix}", RUNTIME)


def _images(job: JobSpec, made: _Bundle, user_python: str) -> dict[str, ImagePython]:
    """What runs the tasks of each role in Docker, by role."""
    wanted = job.docker.python or job.python.interpreter
    if job.images:
        made.shown("looking at images")
    inside = {image: inside_python(image, wanted) for image in job.images}
    for image, python in inside.items():
        if not python.known:
            made.warnings.append(
                f"the Python of {image} is not known and taken for {python.minor}, as here; --image-python tells"
            )
    return {
        role.name: ImagePython(
            inside[role.image].program,
            _user_python_in(job, inside[role.image], user_python),
            _runtime_for(made, inside[role.image].minor),
        )
        for role in job.roles
        if role.image is not None
    }


def _user_python_in(job: JobSpec, inside: InsidePython, user_python: str) -> str:
    """The user's Python in an image: the image's own, unless an environment or an interpreter was chosen."""
    chosen = job.python.interpreter is not None or job.python.environment not in ("auto", "none")
    return user_python if chosen else inside.program


def _runtime_for(made: _Bundle, minor: str) -> Upload:
    made.shown("packing runtime bundle")
    archive = build_runtime(minor, made.into)
    return made.add(
        archive, f"runtime{archive.suffix}", RUNTIME if minor == this_python() else f"{RUNTIME} for {minor}"
    )


def _master_jar(cluster: Cluster, made: _Bundle) -> Upload | None:
    """The jar that the cluster's application master needs, if it needs one."""
    find: Callable[[], Path | None] = getattr(cluster, "master_jar", _no_jar)
    jar = find()
    return made.add(existing_archive(jar), jar.name, MASTER_JAR) if jar is not None else None


def _minor_version(python: str) -> str:
    """``3.11`` of an interpreter: asked when it is on this machine, else read from its name, else as this one."""
    if os.path.realpath(python) == own_interpreter():
        return this_python()
    named = _VERSIONED.search(python)
    if named:
        return named[1]
    if os.access(python, os.X_OK):
        ask = [python, "-Ic", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(ask, capture_output=True, text=True, timeout=_ASK_VERSION_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise UsageError([Problem("node_python", "is not a Python that runs here.", python)]) from error
        return done.stdout.strip()
    return this_python()


def _files(specs: Sequence[FileSpec], prefix: str, made: _Bundle) -> tuple[Upload, ...]:
    found = []
    for number, spec in enumerate(specs):
        what = f"file {spec.name}"
        if "://" in spec.source:
            name = f"{prefix}-{number}{_plain_suffix(archive_suffix(spec.source))}"
            found.append(made.there(spec.source, name, spec.name, spec.archive))
            continue
        path = Path(spec.source)
        if path.is_dir():
            archive, warnings = pack_source(path, (), made.into, progress=made.shown(f"packing {what}"))
            made.warnings += warnings
        else:
            made.shown(f"reading {what}")
            if spec.archive:
                inspection = inspect_archive(path, key="files")
                if inspection.problems:
                    raise UsageError(inspection.problems)
                made.warnings += inspection.warnings
            archive = existing_archive(path)
        name = f"{prefix}-{number}{_plain_suffix(archive.suffix)}"
        found.append(made.add(archive, name, what, spec.name, spec.archive or path.is_dir()))
    return tuple(found)


def _plain_suffix(suffix: str) -> str:
    """The suffix where it is harmless in a file's name, else nothing."""
    return suffix if re.fullmatch(r"(?:\.[a-z0-9]{1,12}){1,2}", suffix) else ""


def _no_advice(job: JobSpec) -> list[str]:
    return []


def _no_jar() -> Path | None:
    return None
