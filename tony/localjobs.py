"""``--cluster local``: jobs as processes of this machine. The client's side; the master's is `appmaster.local`.

A job is a folder below ``<state>/local/jobs``: ``app.json`` (what it is, and the master's process), the master's
files, ``containers/<container id>/logs``. Whether the master lives is read from its process id and start time; how
the job ended from ``verdict.json`` in the job's folder on the storage, ``file://<state>/local/storage``.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from tony.containers import AppReport, AppState, LogLine
from tony.errors import NoSuchJob, PackagingError, Problem, ProtocolError
from tony.paths import private_folder, state_dir
from tony.plan import JobSecrets, Plan
from tony.processes import start_time
from tony.records import decode, encode
from tony.snapshot import Verdict
from tony.spec import JobSpec
from tony.state import JobState
from tony.units import format_memory

MASTER_CONTAINER = "container_000000"
CERTIFICATE, PRIVATE_KEY = "tony.crt", "tony.pem"
_APP, _KILLED = "app.json", "killed"
_POLL_S = 0.05
_START_S = 5.0
_TERM_GRACE_S = 10.0
_TAIL_BYTES = 4096
_KEPT_VARIABLES = ("TONY_STATE_DIR", "TONY_CACHE_DIR")
_GPU_NODES = "nvidia[0-9]*"


@dataclass(frozen=True)
class LocalApp:
    """What is kept of a job of this machine. `started`: when the process `pid` started, in kernel ticks.

    Without a `pid` the process `submitter` is about to start it.
    """

    application_id: str
    name: str
    user: str
    queue: str
    tags: tuple[str, ...]
    submitted_at: float
    pid: int = 0
    started: str = ""
    submitter: int = 0
    submitter_started: str = ""

    @property
    def alive(self) -> bool:
        """Whether its master runs, or is about to."""
        if self.pid:
            return start_time(self.pid) == self.started != ""
        return bool(self.submitter) and start_time(self.submitter) == self.submitter_started != ""


class LocalJobs:
    """`containers.Cluster` on this machine."""

    name = "local"

    def __init__(self, state: Path | None = None) -> None:
        self._state = (state or state_dir()).absolute()
        self._jobs = self._state / "local" / "jobs"
        self.storage = "file://" + quote(str(self._state / "local" / "storage"))
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def check(self, job: JobSpec) -> list[Problem]:
        """Tasks that are larger than this machine."""
        memory_mb, cores, gpus = machine_memory_mb(), os.cpu_count() or 1, gpu_count()
        found: list[Problem] = []
        for role in job.roles:
            size, key = role.resources, f"roles.{role.name}"
            if role.image is not None:
                hint = "On this machine: tony cluster start --docker"
                found.append(Problem(f"{key}.image", "only a YARN cluster runs images.", role.image, hint=hint))
            if memory_mb and size.memory_mb > memory_mb:
                whole = f"this machine has {format_memory(memory_mb)}."
                found.append(Problem(f"{key}.memory", whole, format_memory(size.memory_mb), hint="Ask for less."))
            if size.gpus > gpus:
                message = f"this machine has {gpus or 'no'} GPU{'s' if gpus != 1 else ''}."
                found.append(Problem(f"{key}.gpus", message, str(size.gpus), hint="Ask for fewer, or use a cluster."))
            for name, count in sorted(size.other.items()):
                if count:
                    found.append(Problem(f"{key}.resources", f"this machine has no {name}.", f"{name}={count}"))
            if size.vcores > 64 * cores:
                found.append(Problem(f"{key}.vcores", f"this machine has {cores} cores.", str(size.vcores)))
        return found

    def advice(self, job: JobSpec) -> list[str]:
        """What will work, but perhaps not as its user thinks."""
        memory_mb, gpus = machine_memory_mb(), gpu_count()
        asked_mb = sum(role.instances * role.resources.memory_mb for role in job.roles)
        asked_gpus = sum(role.instances * role.resources.gpus for role in job.roles)
        found = []
        if memory_mb and asked_mb > memory_mb:
            found.append(
                f"the tasks ask for {format_memory(asked_mb)} together; this machine has {format_memory(memory_mb)}"
            )
        if asked_gpus > gpus:
            found.append(f"the tasks ask for {asked_gpus} GPUs together and share the {gpus} of this machine")
        if job.queue != "default" or job.node_label or job.nodes or job.exclude_nodes:
            found.append("queue, node labels and hosts mean nothing on the local back-end")
        return found

    def node_count(self) -> int:
        return 1

    def submit(self, plan: Plan, secrets: JobSecrets) -> str:
        """Start the application master, detached from this process."""
        from tony.packaging.runtime import launch_file, runtime_path

        folder, app = self._new(plan.job)
        try:
            private_folder(folder / "containers" / MASTER_CONTAINER / "logs")
            _write(folder / "tony-job.json", encode(plan.record))
            _write(folder / "tony-secrets.json", encode(secrets))
            _write(folder / CERTIFICATE, secrets.certificate.encode())
            _write(folder / PRIVATE_KEY, secrets.private_key.encode())
            private_folder(self._state / "jobs")
            _write(self._record(app.application_id), encode(replace(secrets, secrets={})))
            # Kept before there is a process: a submitter that dies in between leaves no master that nobody knows.
            _write(folder / _APP, encode(app))
            python = plan.record.python or sys.executable
            self._start(folder, app, [python, "-I", str(launch_file()), "appmaster"], runtime_path())
        except BaseException as error:
            started = self._children.pop(app.application_id, None)
            if started is not None:
                started.kill()
                started.wait()
            self.forget(app.application_id)
            if isinstance(error, OSError):
                raise PackagingError(f"cannot start the application master: {error}") from error
            raise
        return app.application_id

    def report(self, application_id: str) -> AppReport:
        return self._report(self._app(application_id))

    def list(
        self, states: Sequence[AppState] = (), user: str | None = None, tag: str | None = None
    ) -> list[AppReport]:
        found = []
        for path in self._jobs.glob(f"*/{_APP}"):
            try:
                app = self._read(path)
            except (OSError, ProtocolError):
                continue  # half-written, or being removed
            if (user is None or app.user == user) and (tag is None or tag in app.tags):
                report = self._report(app)
                if not states or report.state in states:
                    found.append(report)
        return sorted(found, key=lambda one: one.started_at, reverse=True)

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        """TERM for the master, KILL after a grace. Executors that it left behind are ended, also of an ended job."""
        app = self._app(application_id)
        while _starts(app):
            time.sleep(_POLL_S)
            app = self._app(application_id)
        if self._report(app).state.ended:
            self._end_executors(application_id)
            return self._report(app)
        (self._folder(application_id) / _KILLED).touch(mode=0o600)
        term_s = min(_TERM_GRACE_S, timeout_s / 2)
        for number, within_s in ((signal.SIGTERM, term_s), (signal.SIGKILL, timeout_s - term_s)):
            deadline = time.monotonic() + within_s
            app = self._begun(app, deadline)
            self._signal(app, number)
            while self._alive(app) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if not self._alive(app):
                break
        self._end_executors(application_id)
        return self._report(app)

    def logs(self, application_id: str) -> Iterator[LogLine]:
        self._app(application_id)
        folder = self._folder(application_id) / "containers"
        for container in sorted(folder.iterdir()) if folder.is_dir() else []:
            for path in sorted((container / "logs").glob("*"), key=_oldest_first):
                if path.is_file():
                    with path.open("r", encoding="utf-8", errors="replace", newline="\n") as lines:
                        for line in lines:
                            yield LogLine(container.name, path.name, line.rstrip("\n"))

    def forget(self, application_id: str) -> None:
        """Remove all that is kept of a job that has ended (or never began)."""
        shutil.rmtree(self._folder(application_id), ignore_errors=True)
        storage = self._state / "local" / "storage" / "jobs" / application_id
        shutil.rmtree(storage, ignore_errors=True)
        self._record(application_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Jobs live on. Those that ended are reaped."""
        for child in self._children.values():
            child.poll()
            child.returncode = child.returncode if child.returncode is not None else 0  # not ours to wait for
        self._children.clear()

    def _new(self, job: JobSpec) -> tuple[Path, LocalApp]:
        private_folder(self._jobs)
        now = time.time()
        for number in range(1, 10_000):
            application_id = f"local_{int(now * 1000)}_{number:04d}"
            try:
                self._folder(application_id).mkdir(mode=0o700)
            except FileExistsError:
                continue
            app = LocalApp(
                application_id,
                job.name,
                getpass.getuser(),
                job.queue,
                job.tags,
                now,
                submitter=os.getpid(),
                submitter_started=start_time(os.getpid()) or "",
            )
            return self._folder(application_id), app
        raise PackagingError(f"no free name for a job below {self._jobs}")

    def _start(self, folder: Path, app: LocalApp, argv: Sequence[str], path: Sequence[str]) -> None:
        logs = folder / "containers" / MASTER_CONTAINER / "logs"
        with (logs / "appmaster.out").open("wb") as output, (logs / "appmaster.err").open("wb") as errors:
            child = subprocess.Popen(
                argv,
                cwd=folder,
                env=self._environment(app.application_id, logs, path),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        self._children[app.application_id] = child
        kept = replace(app, pid=child.pid, started=start_time(child.pid) or "")
        _write(folder / _APP, encode(kept))

    def _environment(self, application_id: str, logs: Path, path: Sequence[str]) -> Mapping[str, str]:
        """Like the submitter's, without settings of tony that were meant for the submit."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TONY_") or k in _KEPT_VARIABLES}
        return kept | {
            "TONY_BACKEND": "local",
            "TONY_APPLICATION_ID": application_id,
            "TONY_RUNTIME_PATH": ":".join(path),
            "TONY_NODE_CACHE": str(private_folder(self._state / "local" / "node-cache")),
            "TONY_CERTIFICATE": CERTIFICATE,
            "TONY_PRIVATE_KEY": PRIVATE_KEY,
            "CONTAINER_ID": MASTER_CONTAINER,
            "LOG_DIRS": str(logs),
        }

    def _folder(self, application_id: str) -> Path:
        return self._jobs / application_id

    def _record(self, application_id: str) -> Path:
        return self._state / "jobs" / f"{application_id}.json"

    def _app(self, application_id: str) -> LocalApp:
        try:
            if "/" in application_id:
                raise FileNotFoundError
            return self._read(self._folder(application_id) / _APP)
        except (OSError, ProtocolError) as error:
            raise NoSuchJob(f"no job {application_id} on this machine", hint="tony ls --all lists them.") from error

    def _read(self, path: Path) -> LocalApp:
        """What is kept of a job; a master whose submitter died before it could write its number is looked for."""
        app = decode(path.read_bytes(), LocalApp)
        if app.pid:
            return app
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink() == path.parent:
                    pid = int(process.name)
                    return replace(app, pid=pid, started=start_time(pid) or "")
            except OSError:
                continue
        return app

    def _alive(self, app: LocalApp) -> bool:
        child = self._children.get(app.application_id)
        if child is not None and child.poll() is not None:
            return False
        return app.alive

    def _begun(self, app: LocalApp, deadline: float) -> LocalApp:
        """The same when its submitter has started it; unchanged when that takes too long."""
        while not app.pid and self._alive(app) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            app = self._app(app.application_id)
        return app

    def _signal(self, app: LocalApp, number: signal.Signals) -> None:
        if app.pid and self._alive(app):
            try:
                os.kill(app.pid, number)
            except ProcessLookupError:
                pass

    def _end_executors(self, application_id: str) -> None:
        """Executors, known by their working folder: a killed master could not end them. Their keepers do the rest."""
        containers = self._folder(application_id) / "containers"
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink().parent == containers:
                    os.kill(int(process.name), signal.SIGTERM)
            except OSError:
                continue

    def _report(self, app: LocalApp) -> AppReport:
        job_folder = self._state / "local" / "storage" / "jobs" / app.application_id
        alive = self._alive(app)  # asked first: a verdict is written before the end
        try:
            verdict: Verdict | None = decode((job_folder / "verdict.json").read_bytes(), Verdict)
        except (OSError, ProtocolError):
            verdict = None
        attached = (job_folder / "address.json").is_file()
        report = AppReport(
            app.application_id,
            app.name,
            app.user,
            app.queue,
            AppState.RUNNING if attached else AppState.ACCEPTED,
            started_at=app.submitted_at,
            tags=app.tags,
            am_host="127.0.0.1" if attached else "",
            am_attempts=1,
        )
        if alive or (_starts(app) and verdict is None):
            return report
        if verdict is not None:
            state = _APP_STATES[verdict.state]
            finished = verdict.timeline.finished
            text = f"{verdict.message} ({verdict.reason.value})"
            return replace(report, state=state, finished_at=finished, diagnostics=text, progress=1.0)
        finished = _changed_at(self._folder(app.application_id) / "containers" / MASTER_CONTAINER / "logs")
        if (self._folder(app.application_id) / _KILLED).exists():
            return replace(report, state=AppState.KILLED, finished_at=finished, diagnostics="killed by its user")
        said = self._last_words(app.application_id)
        text = f"the application master ended without a verdict (AM_LOST){': ' + said if said else ''}"
        return replace(report, state=AppState.FAILED, finished_at=finished, diagnostics=text)

    def _last_words(self, application_id: str) -> str:
        path = self._folder(application_id) / "containers" / MASTER_CONTAINER / "logs" / "appmaster.err"
        try:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                lines = stream.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


def _starts(app: LocalApp) -> bool:
    """Whether its submitter is just about to start the master; one that has died meanwhile never will."""
    return not app.pid and abs(time.time() - app.submitted_at) < _START_S


_APP_STATES = {
    JobState.SUCCEEDED: AppState.SUCCEEDED,
    JobState.FAILED: AppState.FAILED,
    JobState.KILLED: AppState.KILLED,
}


def machine_memory_mb() -> int:
    """This machine's memory in MiB, 0 when it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)
    except (OSError, ValueError):
        return 0


def gpu_count() -> int:
    """NVIDIA devices of this machine."""
    return sum(1 for _ in Path("/dev").glob(_GPU_NODES))


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by the owner only."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    partial.replace(path)


def _changed_at(folder: Path) -> float:
    times = [path.stat().st_mtime for path in folder.glob("*")]
    return max(times, default=0.0)


def _oldest_first(path: Path) -> tuple[str, int]:
    """``stdout.log.2`` before ``stdout.log.1`` before ``stdout.log``."""
    stem, _, number = path.name.rpartition(".")
    return (stem, -int(number)) if number.isdigit() else (path.name, 1)
