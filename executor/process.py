"""The executor's handle on one run of the user's command, through its keeper."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor import keeper

_REAP_S = 5.0


@dataclass(frozen=True)
class UserStarted:
    """The user process runs."""

    generation: int
    pid: int


@dataclass(frozen=True)
class UserNotStarted:
    """The command could not be executed; `error` is the system's errno."""

    generation: int
    error: int


@dataclass(frozen=True)
class UserExited:
    """The user process ended: by `signal` (its name) or with `code`. Others of its session may still live."""

    generation: int
    code: int = 0
    signal: str = ""
    seconds: float = 0.0
    peak_mb: int = 0


@dataclass(frozen=True)
class UserGone:
    """Nothing of the session is left, except the processes `left` that even KILL did not end.

    `keeper_lost`: the keeper itself was killed, so how the user process ended is not known.
    """

    generation: int
    left: tuple[int, ...] = ()
    keeper_lost: bool = False


UserEvent = UserStarted | UserNotStarted | UserExited | UserGone


class UserProcess:
    """Starts the keeper and passes on what it says, in order, ending with UserGone. `post` is called in a thread."""

    def __init__(self, generation: int, post: Callable[[UserEvent], None]) -> None:
        self.generation = generation
        self.keeper_pid = 0
        self._post = post
        self._link: socket.socket | None = None
        self._sending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        stdout: int,
        stderr: int,
        grace_s: float,
        lease: float,
        remove: Sequence[str] = (),
    ) -> None:
        """Start the command; returns at once. Takes over (closes) the descriptors `stdout` and `stderr`.

        Must be called in the main thread: a parent-death signal is sent when the *thread* that forked dies.
        `lease` is the monotonic time at which the keeper ends everything unless it is renewed. `remove` names files
        and empty folders that go away with the session, also if this process is killed. Raises OSError when no
        process can be started.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a keeper must be started from the main thread")
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), stdout, stderr),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.keeper_pid = self._process.pid
        self._link = ours
        self._say(
            {
                "argv": list(argv),
                "environment": dict(environment),
                "cwd": str(cwd),
                "stdout": stdout,
                "stderr": stderr,
                "executor": os.getpid(),
                "grace_s": grace_s,
                "lease": lease,
                "remove": list(remove),
            }
        )
        os.close(stdout)
        os.close(stderr)
        self._reader = threading.Thread(target=self._read, name="keeper", daemon=True)
        self._reader.start()

    def renew(self, lease: float) -> None:
        """The executor is in contact: the session may go on until the monotonic time `lease`."""
        self._say({"lease": lease})

    def stop(self, grace_s: float) -> None:
        """Begin to end the session: TERM now, KILL after `grace_s`. Said again, the shorter grace counts."""
        self._say({"stop": grace_s})

    def join(self, timeout_s: float) -> bool:
        """Wait until nothing is left of the session; False when the time is over first."""
        if self._reader is not None:
            self._reader.join(timeout_s)
            return not self._reader.is_alive()
        return True

    def close(self) -> None:
        """Let go: what still runs is ended by the keeper, which outlives us for that. May be called twice."""
        if self._link is not None:
            try:
                self._link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _say(self, word: Mapping[str, object]) -> None:
        if self._link is None:
            return
        with self._sending:
            try:
                self._link.sendall(json.dumps(word).encode() + b"\n")
            except OSError:
                # The keeper is gone; the reader finds out and says so.
                pass

    def _read(self) -> None:
        assert self._link is not None and self._process is not None
        gone = False
        exited = False
        with self._link.makefile("rb") as lines:
            try:
                for line in lines:
                    word = json.loads(line)
                    event = self._event(word)
                    exited = exited or not isinstance(event, UserStarted)
                    gone = gone or isinstance(event, UserGone)
                    if not gone:
                        self._post(event)
                    else:
                        self._reap()
                        self._post(event)
            except OSError:
                pass
        self._link.close()
        if not gone:
            self._reap()
            end_orphans()
            self._post(UserGone(self.generation, keeper_lost=not exited))

    def _event(self, word: Mapping[str, object]) -> UserEvent:
        if "started" in word:
            return UserStarted(self.generation, int(str(word["started"])))
        if "failed" in word:
            return UserNotStarted(self.generation, int(str(word["failed"])))
        if "exited" in word:
            return UserExited(
                self.generation,
                int(str(word["exited"])),
                str(word["signal"]),
                float(str(word["seconds"])),
                int(str(word["peak_mb"])),
            )
        left = word.get("gone")
        return UserGone(self.generation, tuple(left) if isinstance(left, list) else ())

    def _reap(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end_with_master() -> None:
    """On one machine the application master is the parent: without it there is nobody to attend."""
    keeper.end_with_parent()


def adopt_orphans() -> None:
    """Make this process the one that inherits what a killed keeper leaves behind."""
    keeper.become_subreaper()


def kill_descendants() -> list[int]:
    """KILL for everything below this process; returns what was there. Does not wait for its end."""
    found = keeper.descendants(os.getpid())
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    return found


def end_orphans(limit_s: float = 5.0) -> None:
    """End everything below this process, as after the death of a keeper. Blocks, at most `limit_s`."""
    give_up_at = time.monotonic() + limit_s
    while (left := kill_descendants()) and time.monotonic() < give_up_at:
        for pid in left:
            try:
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                continue
        time.sleep(0.02)
