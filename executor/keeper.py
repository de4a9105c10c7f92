"""The keeper: a tiny process that leads the user's session and lets nothing of it survive.

Runs as ``python -I -S keeper.py FD``; standard library only. FD is a socket to the executor, which says, one JSON
document a line:

    {"argv", "environment", "cwd", "stdout", "stderr", "executor", "grace_s", "lease", "remove"}   first, once
    {"lease": T}      the executor is in contact: go on until the monotonic time T
    {"stop": S}       end everything: TERM now, KILL after S seconds (the smallest S ever said counts)

and hears ``{"started": pid}`` or ``{"failed": errno}``, then ``{"exited": code, "signal": name, "seconds",
"peak_mb"}``, and ``{"gone": left}`` when no process is left (`left` names those that even KILL did not end).
End of the socket, or the parent-death signal, means that the executor is dead: everything ends after `grace_s`.
Only fd numbers stand in the command line, because that is readable by everybody on the node.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PTRACER = 0x59616D61
_ROUND_S = 0.02
_LEFTOVER_GRACE_S = 2.0
_KILL_LIMIT_S = 10.0
_DEATH_GRACE_S = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Everything, in order; returns the exit code of the keeper itself."""
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    if os.getsid(0) != os.getpid():
        os.setsid()
    become_subreaper()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    return Keeper(link, wake_read).run()


def end_with_parent() -> None:
    """From now on the end of the process that started this one, kill -9 included, sends it TERM."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def become_subreaper() -> None:
    """From now on orphans below this process become its children, not those of the machine's first process."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Keeper:
    """The loop of one user process. Single-threaded; sleeps until a signal, a word or a deadline."""

    def __init__(self, link: socket.socket, wake: int) -> None:
        self._link = link
        self._wake = wake
        self._pending = b""
        self._link_open = True
        self._user = 0
        self._started_at = 0.0
        self._user_ended = False
        self._grace_s = _DEATH_GRACE_S
        self._executor = 0
        self._lease = float("inf")
        self._kill_at: float | None = None
        self._remove: list[str] = []

    def run(self) -> int:
        """Start the user process and stay until nothing is left of it."""
        specification = self._first_word()
        if specification is None:
            return 0
        self._grace_s = float(specification["grace_s"])
        self._lease = float(specification["lease"])
        self._executor = int(specification["executor"])
        self._remove = list(specification["remove"])
        if os.getppid() != self._executor:
            return 0
        left: list[int] = []
        if self._start(specification):
            while not self._user_ended:
                self._step(None)
            # What the user process left behind gets a moment; what is being stopped keeps its whole grace.
            if self._kill_at is None:
                self._stop(_LEFTOVER_GRACE_S)
            left = self._outlast()
        for path in self._remove:
            _remove(path)
        self._say({"gone": left})
        return 0

    def _first_word(self) -> dict[str, Any] | None:
        while b"\n" not in self._pending:
            block = self._link.recv(1 << 16)
            if not block:
                return None
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        word = json.loads(line)
        return word if isinstance(word, dict) else None

    def _start(self, specification: dict[str, Any]) -> bool:
        stdout, stderr = int(specification["stdout"]), int(specification["stderr"])
        for descriptor in (stdout, stderr):
            os.set_inheritable(descriptor, False)
        failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_user_process(specification, keeper, stdout, stderr, failed_write)
        self._user = pid
        self._started_at = time.monotonic()
        for descriptor in (failed_write, stdout, stderr):
            os.close(descriptor)
        with os.fdopen(failed_read, "rb") as failed:
            code = failed.read()
        if code:
            os.waitpid(pid, 0)
            self._say({"failed": int(code)})
            return False
        self._say({"started": pid})
        return True

    def _step(self, at_most_s: float | None) -> None:
        """Wait for whatever comes next, and answer it."""
        timeout_s = self._until_next_deadline()
        if at_most_s is not None:
            timeout_s = at_most_s if timeout_s is None else min(timeout_s, at_most_s)
        self._wait(timeout_s)
        self._reap()
        now = time.monotonic()
        if self._kill_at is None and now >= self._lease:
            self._stop(self._grace_s)
        if self._kill_at is not None and now >= self._kill_at:
            for pid in descendants(os.getpid()):
                _send(pid, signal.SIGKILL)

    def _outlast(self) -> list[int]:
        """Stay until nothing is left of the session; returns the processes that withstand even KILL."""
        while left := descendants(os.getpid()):
            if time.monotonic() > (self._kill_at or 0.0) + _KILL_LIMIT_S:
                break
            # Most of them are not our own children yet, so no signal tells of their end.
            self._step(_ROUND_S)
        self._reap()
        return left

    def _until_next_deadline(self) -> float | None:
        now = time.monotonic()
        if self._kill_at is not None:
            # Past the deadline KILL is repeated: somebody may fork while we kill.
            return max(_ROUND_S, self._kill_at - now)
        return None if self._lease == float("inf") else max(0.0, self._lease - now)

    def _wait(self, timeout_s: float | None) -> None:
        watched = [self._wake] + ([self._link.fileno()] if self._link_open else [])
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if self._wake in readable and int(signal.SIGTERM) in os.read(self._wake, 512):
            self._stop(self._grace_s if os.getppid() == self._executor else _DEATH_GRACE_S)
        if self._link_open and self._link.fileno() in readable:
            self._listen()

    def _listen(self) -> None:
        try:
            block = self._link.recv(1 << 16)
        except OSError:
            block = b""
        if not block:
            self._link_open = False
            self._stop(min(self._grace_s, _DEATH_GRACE_S))
            return
        self._pending += block
        while b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            word = json.loads(line)
            if "lease" in word:
                self._lease = float(word["lease"])
            if "stop" in word:
                self._stop(float(word["stop"]))

    def _stop(self, grace_s: float) -> None:
        kill_at = time.monotonic() + grace_s
        if self._kill_at is None:
            self._kill_at = kill_at
            for pid in descendants(os.getpid()):
                _send(pid, signal.SIGTERM)
                # A stopped process would hear of it only when somebody lets it go on.
                _send(pid, signal.SIGCONT)
        else:
            self._kill_at = min(self._kill_at, kill_at)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._user:
                self._user_ended = True
                self._say(
                    {
                        "exited": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
                        "signal": _signal_name(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "",
                        "seconds": time.monotonic() - self._started_at,
                        "peak_mb": usage.ru_maxrss // 1024,
                    }
                )

    def _say(self, word: dict[str, object]) -> None:
        try:
            self._link.sendall(json.dumps(word).encode() + b"\n")
        except OSError:
            self._link_open = False


def _become_user_process(specification: dict[str, Any], keeper: int, stdout: int, stderr: int, failed: int) -> None:
    """The forked child: never returns."""
    try:
        os.setpgid(0, 0)
        # Should the keeper be killed, the user process ends at once.
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)
        # Where only ancestors may look into a process (Yama), what the executor starts for that may do so, too.
        _libc.prctl(_PR_SET_PTRACER, int(specification["executor"]), 0, 0, 0)
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP) and number in signal.valid_signals():
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _prefer_for_oom_killer()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.chdir(str(specification["cwd"]))
        argv, environment = specification["argv"], specification["environment"]
        assert isinstance(argv, list) and isinstance(environment, dict)
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        os.write(failed, str(error.errno or errno.EIO).encode())
    except BaseException:  # noqa: BLE001 - the copy of the keeper must not go on, whatever it was
        os.write(failed, str(errno.EINVAL).encode())
    finally:
        os._exit(127)


def _prefer_for_oom_killer() -> None:
    """When memory is short, the kernel shall end the user process and not whoever reports that."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            adjusted = min(1000, int(file.read()) + 200)
            file.seek(0)
            file.write(str(adjusted))
    except (OSError, ValueError):
        pass


def descendants(of: int) -> list[int]:
    """Every live process below the process `of`. Nobody gets out of the tree of a subreaper: it inherits orphans."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/" + name + "/stat", "rb") as file:
                    # The name in brackets may hold anything, also brackets and blanks.
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            # A zombie waits for its parent only, unless threads of it live on without the first one.
            if len(fields) > 17 and (fields[0] not in (b"Z", b"X") or int(fields[17]) > 1):
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [of]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            found.append(pid)
            waiting.append(pid)
    return found


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "SIG" + str(number)


def _remove(path: str) -> None:
    """A socket and its folder, or a file."""
    for take in (os.unlink, os.rmdir):
        try:
            take(path)
            return
        except OSError:
            continue


if __name__ == "__main__":
    sys.exit(main())
