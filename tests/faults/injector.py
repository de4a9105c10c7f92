"""One job on one back-end, and the means to hurt it at a named point: processes, events, trace, gates, proxies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.proxy import Proxy
from tony.client import attach
from tony.containers import Cluster
from tony.events import Event
from tony.jobhandle import JobHandle
from tony.localcluster.cluster import LocalCluster

TRAIN = Path(__file__).parent / "jobs" / "train.py"
_LOOK_S = 0.05
_POINT_S = 90.0
_STEP_S = 0.3
"""How long a step may take; usually 0.1 s."""

_WRAPPER = """#!/bin/sh
# Runs master and executors of one job: with clocks and tools of the test, and behind its gates and proxies.
for last; do :; done
case "$last" in
  executor) clock={folder}/clock-$TONY_TASK ;;
  *) clock={folder}/clock-$last ;;
esac
if [ -e "$clock" ]; then
  export LD_PRELOAD={folder}/clock.so FAULTS_CLOCK="$clock"
fi
if [ -e {folder}/host-$TONY_TASK ]; then TONY_HOST=$(cat {folder}/host-$TONY_TASK); export TONY_HOST; fi
if [ -d {folder}/path ]; then export PATH={folder}/path:"$PATH" TONY_GPUS=1; fi
if [ "$last" = executor ]; then
  name="$TONY_TASK-$TONY_INCARNATION"
  printf %s "$TONY_AM_ADDRESS" > {folder}/master.new && mv {folder}/master.new {folder}/master
  : > {folder}/started-$name
  while [ -e {folder}/gate-$name ]; do sleep 0.05; done
  if [ -e {folder}/proxy-$name ]; then TONY_AM_ADDRESS=$(cat {folder}/proxy-$name); export TONY_AM_ADDRESS; fi
fi
exec {python} "$@"
"""


class NotReached(Exception):
    """The job never came to the point where the fault belongs, or something that was awaited did not happen."""


@dataclass(frozen=True)
class Site:
    """A cluster as its user has it: name of the back-end, the client's variables, our own view of the cluster.

    `own`: the daemons, where they may be hurt. `patience`: how many times
    as long we wait as on a quiet machine.
    """

    backend: str
    environment: Mapping[str, str]
    cluster: Cluster
    state: Path
    own: LocalCluster | None = None
    patience: float = 1.0


@dataclass
class Scene:
    """One job under a fault. `victim` is the rank that is hurt. Times are wall seconds, as in events and traces."""

    site: Site
    folder: Path
    rng: random.Random
    workers: int = 2
    victim: int = 0
    injected_at: float = 0.0
    application_id: str = ""
    wrapped: bool = False
    flags: list[str] = field(default_factory=list)
    client: subprocess.Popen[str] | None = None
    events: list[Event] = field(default_factory=list)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)
    at_mark: Callable[[], None] | None = None
    _handle: JobHandle | None = None
    _follower: threading.Thread | None = None

    # The job --------------------------------------------------------------------------------------------------

    @property
    def trace(self) -> Path:
        """Where every rank tells what it does."""
        return self.folder / "trace"

    @property
    def path(self) -> Path:
        """First in the PATH of executors where it exists, which then have a GPU; only with `wrapped`."""
        return self.folder / "path"

    @property
    def task(self) -> str:
        """The victim as the product names it."""
        return f"worker:{self.victim}"

    def begin(self, arguments: Sequence[str], flags: Sequence[str]) -> None:
        """Submit and follow, as a user at a terminal does. Returns at once."""
        self.trace.mkdir(parents=True, exist_ok=True)
        tag = f"fault-{uuid.uuid4().hex[:12]}"
        command = [
            *(sys.executable, "-m", "tony", "--json", "submit", "--workers", str(self.workers), "--memory", "256m"),
            *("--am-memory", "1g", "--tag", tag, *flags, *self.flags),
            *(() if "--venv" in self.flags else ("--venv", "none")),
            *(["-c", f"node_python={self._wrapper()}"] if self.wrapped else []),
            *(str(TRAIN), "--", "--trace", str(self.trace), *arguments),
        ]
        self._tag, self._command = tag, command
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell in the background hands that on, and the client could not be interrupted either.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._start()

    def begin_again(self) -> None:
        """The same command once more, as a scheduler does that has lost sight of the first one, which is dead."""
        assert self.client is not None
        self.client.kill()
        self.client.wait(10)
        assert self.client.stdout is not None
        self.client.stdout.close()
        self._start()

    def _start(self) -> None:
        with (self.folder / "client.err").open("a") as errors:
            self.client = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=dict(self.site.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # As at a terminal of its own, also for the scheduler of the kernel, which is fair to sessions.
                start_new_session=True,
            )

    def find(self) -> str:
        """The application's id, as soon as the cluster knows it."""
        if not self.application_id:
            self.application_id = self.wait_for(self._submitted, "the job to be submitted")
            self._handle = attach(self.application_id, self.site.cluster)
            self._follower = threading.Thread(target=self._follow, name="events", daemon=True)
            self._follower.start()
        return self.application_id

    def known(self) -> list[str]:
        """Applications of this scene that the cluster knows."""
        return [one.application_id for one in self.site.cluster.list(tag=self._tag)]

    def _submitted(self) -> str | None:
        assert self.client is not None
        found = self.known()
        if not found and self.client.poll() is not None:
            raise NotReached(f"the submit ended with {self.client.returncode}: {self.last_words()}")
        return found[0] if found else None

    def _follow(self) -> None:
        assert self._handle is not None
        try:
            for event in self._handle.events():
                self.events.append(event)
        except Exception as error:  # noqa: BLE001 - a walk that does not hear the job must not call it silent
            self.notes.append(f"events were not heard: {type(error).__name__}: {error}")

    def hear_out(self) -> None:
        """Wait for the last events of a job that has ended."""
        if self._follower is not None:
            self._follower.join(10.0)

    @property
    def handle(self) -> JobHandle:
        """The job as a library user has it."""
        self.find()
        assert self._handle is not None
        return self._handle

    def words(self) -> str:
        """What the client has told its user."""
        path = self.folder / "client.err"
        return path.read_text(errors="replace") if path.exists() else ""

    def last_words(self) -> str:
        """The end of that, on one line."""
        return " / ".join(self.words().split("\n"))[-300:]

    def result(self, timeout_s: float) -> tuple[int, dict[str, Any]]:
        """Exit code and document of the client. Raises NotReached when it does not end in time."""
        assert self.client is not None
        timeout_s *= self.site.patience
        try:
            output, _ = self.client.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise NotReached(f"the client has not ended within {timeout_s:.0f} s") from None
        lines = output.splitlines()
        return self.client.returncode, json.loads(lines[-1]) if lines else {}

    def close(self) -> None:
        """Whatever still runs of it is ended. May be called twice."""
        if self.client is not None:
            if self.client.poll() is None:
                self.client.kill()
            self.client.wait(10)
            if self.client.stdout is not None:
                self.client.stdout.close()
        for gate in self.folder.glob("gate-*"):
            gate.unlink()
        if self._handle is not None:
            with suppress(Exception):
                if not self._handle.report().state.ended:
                    self._handle.kill()
            self._handle.close()
        for pid in self.everything():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for proxy in self.proxies.values():
            proxy.close()
        while self.undo:
            self.undo.pop()()
        if self._follower is not None:
            self._follower.join(5.0)

    # Points ---------------------------------------------------------------------------------------------------

    def wait_for(self, look: Callable[[], Any], what: str, timeout_s: float = _POINT_S) -> Any:
        """The first true value of `look`. Raises NotReached."""
        timeout_s *= self.site.patience
        deadline = time.monotonic() + timeout_s
        while not (found := look()):
            if time.monotonic() > deadline:
                raise NotReached(f"waited {timeout_s:.0f} s for {what}")
            if what != "end" and self.client is not None and self.application_id and self.client.poll() is not None:
                raise NotReached(f"the client ended while {what} was awaited: {self.last_words()}")
            time.sleep(_LOOK_S)
        return found

    def reach(self, point: str) -> None:
        """Wait for a named point of the victim: submit, start, register, release, step:K, end."""
        name, _, step = point.partition(":")
        if name == "submit":
            time.sleep(self.rng.uniform(0.5, 3.0))
            return
        self.find()
        if name == "start":
            self.wait_for(lambda: self.processes("executor"), "an executor")
        elif name == "register":
            self.wait_for(lambda: self.told("REGISTERED"), f"{self.task} to be registered")
        elif name == "release":
            self.wait_for(lambda: self.lines(self.victim), f"{self.task} to be released")
        elif name == "step":
            limit_s = _POINT_S + _STEP_S * int(step)
            self.wait_for(lambda: self.steps() >= int(step), f"step {step}", limit_s)
        elif name == "end":
            self.wait_for(lambda: any(e.fields.get("state") == "STOPPING" for e in self.events), "the end's begin")

    def told(self, state: str) -> bool:
        """Whether the product has said that the victim came into that state."""
        return any(e.task == self.task and e.fields.get("state") == state for e in list(self.events))

    def steps(self) -> int:
        """The lowest step that every rank has done."""
        return min((max((line["step"] for line in self.lines(r)), default=0) for r in range(self.workers)), default=0)

    def generation(self) -> int:
        """The generation that every rank has come to."""
        return min(max((line["generation"] for line in self.lines(r)), default=0) for r in range(self.workers))

    def lines(self, rank: int) -> list[dict[str, Any]]:
        """What a rank has told."""
        path = self.trace / f"rank-{rank}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def mark(self) -> None:
        """The fault happens now."""
        self.injected_at = time.time()
        if self.at_mark is not None:
            self.at_mark()

    # Processes ------------------------------------------------------------------------------------------------

    def processes(self, kind: str, task: str = "") -> list[int]:
        """Processes of this application: ``user``, ``keeper``, ``executor``, ``appmaster`` or ``jvm``."""
        return [pid for pid, what, whose in self._all() if what == kind and (not task or whose == task)]

    def one(self, kind: str, task: str = "") -> int:
        """The only one of its kind, awaited."""
        return int(self.wait_for(lambda: self.processes(kind, task), f"a process {kind} of {task or 'the job'}")[0])

    def everything(self) -> list[int]:
        """Every process that this job has brought into the world and that is still there."""
        known = {pid for pid, _, _ in self._all()} if self.application_id else set()
        told = {(line["pid"]) for rank in range(self.workers) for line in self.lines(rank)}
        return sorted(known | {pid for pid in told if self._is_ours(pid)})

    def _is_ours(self, pid: int) -> bool:
        return str(self.trace).encode() in _read(pid, "cmdline") and not _zombie(pid)

    def _all(self) -> Iterator[tuple[int, str, str]]:
        id_ = self.application_id.encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            pid = int(entry)
            variables = dict(part.split(b"=", 1) for part in _read(pid, "environ").split(b"\0") if b"=" in part)
            words = _read(pid, "cmdline").split(b"\0")[:-1]
            if b"com.anaconda.skein.ApplicationMaster" in words and any(id_ in value for value in variables.values()):
                yield pid, "jvm", ""
            elif id_ in map(variables.get, (b"TONY_APPLICATION_ID", b"SKEIN_APPLICATION_ID")) and not _zombie(pid):
                yield pid, _kind(words, variables), variables.get(b"TONY_TASK", b"").decode()

    # Gates and proxies ----------------------------------------------------------------------------------------

    def gate(self, task: str, incarnation: int = 1) -> Path:
        """Keep that executor waiting before its first line. Only before `begin`, with `wrapped`."""
        path = self.folder / f"gate-{task}-{incarnation}"
        path.touch()
        return path

    def proxy(self, task: str, incarnation: int = 1) -> Proxy:
        """Put a proxy between that executor and its master. Only before `begin`, with `wrapped`."""

        def master() -> tuple[str, int]:
            host, _, port = (self.folder / "master").read_text().rpartition(":")
            return host, int(port)

        proxy = self.proxies[task] = Proxy(master)
        (self.folder / f"proxy-{task}-{incarnation}").write_text(proxy.address)
        return proxy

    def _wrapper(self) -> Path:
        path = self.folder / "node-python"
        path.write_text(_WRAPPER.format(folder=self.folder, python=sys.executable))
        path.chmod(0o755)
        return path


def _kind(words: Sequence[bytes], variables: Mapping[bytes, bytes]) -> str:
    if b"-I" in words and words[-1:] in ([b"executor"], [b"appmaster"]):
        return words[-1].decode()
    if any(word.endswith(b"executor/keeper.py") for word in words):
        return "keeper"
    return "user" if b"TONY_RANK" in variables and TRAIN.name.encode() in b" ".join(words) else "other"


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _zombie(pid: int) -> bool:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return not fields or fields[0] in (b"Z", b"X")
