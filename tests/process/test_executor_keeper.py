"""The keeper and what it keeps: real processes that try to get away."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_bench import ScriptedMaster, alive, eventually, executor_process

from executor.process import UserEvent, UserExited, UserGone, UserNotStarted, UserProcess, UserStarted

FOREVER = float("inf")


class Kept:
    """A user process under its keeper, with what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.events: queue.Queue[UserEvent] = queue.Queue()
        self.process = UserProcess(1, self.events.put)
        self._output = folder / "output"
        self._folder = folder

    def start(self, *argv: str, lease: float = FOREVER, grace_s: float = 1.0, **environment: str) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        stdout, stderr = (os.open(self._output, flags) for _ in range(2))
        variables = {"PATH": os.environ["PATH"], **environment}
        self.process.start(argv, variables, self._folder, stdout, stderr, grace_s, lease)

    def python(self, program: str, *arguments: str, **options: object) -> None:
        self.start(sys.executable, "-c", program, *arguments, **options)  # type: ignore[arg-type]

    @property
    def output(self) -> str:
        return self._output.read_text()

    def next(self, kind: type[UserEvent], timeout_s: float = 20.0) -> UserEvent:
        event = self.events.get(timeout=timeout_s)
        assert isinstance(event, kind), event
        return event

    def exited(self) -> UserExited:
        self.next(UserStarted)
        event = self.next(UserExited)
        assert isinstance(event, UserExited)
        return event

    def gone(self) -> UserGone:
        event = self.next(UserGone)
        assert isinstance(event, UserGone)
        return event

    def pids(self, count: int) -> list[int]:
        """The first `count` numbers that were written."""
        assert eventually(lambda: len(self.output.split()) >= count)
        return [int(word) for word in self.output.split()[:count]]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.process.stop(0.0)
    assert made.process.join(15.0)
    made.process.close()
    made.process.close()


@pytest.mark.parametrize(
    ("script", "code", "signal_name"),
    [
        ("exit 0", 0, ""),
        ("exit 7", 7, ""),
        ("exit 255", 255, ""),
        ("kill -KILL $$", 0, "SIGKILL"),
        ("kill -TERM $$", 0, "SIGTERM"),
        ("kill -ABRT $$", 0, "SIGABRT"),
        # The whole process group, which must not be the keeper's.
        ("kill -KILL 0", 0, "SIGKILL"),
    ],
)
def test_exit_codes_and_signals_are_told_as_they_were(kept: Kept, script: str, code: int, signal_name: str) -> None:
    kept.start("sh", "-c", script)
    exited = kept.exited()
    assert (exited.code, exited.signal) == (code, signal_name)
    assert kept.gone() == UserGone(1)


@pytest.mark.parametrize(
    ("argv", "error"),
    [(("no-such-command",), "No such file"), (("./data",), "Permission"), (("./text",), "Exec format")],
)
def test_a_command_that_cannot_be_executed_is_told_by_its_error(
    kept: Kept, tmp_path: Path, argv: tuple[str, ...], error: str
) -> None:
    (tmp_path / "data").touch()
    (tmp_path / "text").write_text("neither script nor program")
    (tmp_path / "text").chmod(0o755)
    kept.start(*argv)
    event = kept.next(UserNotStarted)
    assert isinstance(event, UserNotStarted)
    assert error in os.strerror(event.error)
    assert kept.gone().left == ()


def test_a_folder_that_is_gone_is_a_failed_start(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept._folder = tmp_path / "gone"
    kept.start("true")
    kept.next(UserNotStarted)
    kept.gone()
    kept.process.join(5.0)


def test_the_user_process_starts_clean(kept: Kept) -> None:
    program = (
        "import json, os, signal\n"
        "ignored = [n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) is signal.SIG_IGN]\n"
        "print(json.dumps({'fds': sorted(os.listdir('/proc/self/fd')), 'stdin': os.readlink('/proc/self/fd/0'),\n"
        "  'group': os.getpgid(0) == os.getpid(), 'leads': os.getsid(0) == os.getpid(), 'ignored': ignored,\n"
        "  'environment': dict(os.environ)}))"
    )
    kept.python(program, LC_ALL="C.UTF-8", ODD="a\nb=$(x) ü")
    assert kept.exited().code == 0
    said = json.loads(kept.output)
    # The fourth is the folder that is being listed.
    assert said["fds"] == ["0", "1", "2", "3"]
    assert (said["stdin"], said["group"], said["leads"]) == ("/dev/null", True, False)
    # Python itself ignores these two.
    assert said["ignored"] == [int(signal.SIGPIPE), int(signal.SIGXFSZ)]
    assert said["environment"] == {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "ODD": "a\nb=$(x) ü"}
    kept.gone()


def test_daemons_that_left_the_session_and_are_deaf_end_with_the_user_process(kept: Kept) -> None:
    program = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(0.3)\n"
    )
    kept.python(program)
    assert kept.exited().code == 0
    (daemon,) = kept.pids(1)
    assert kept.gone().left == ()
    assert not alive(daemon)


def test_processes_that_multiply_when_asked_to_end_do_not_win(kept: Kept) -> None:
    program = (
        "import os, signal, time\n"
        "def more(*_):\n"
        "    for _ in range(3):\n"
        "        os.fork()\n"
        "signal.signal(signal.SIGTERM, more)\n"
        "print(os.getpid(), flush=True)\n"
        "deadline = time.monotonic() + 60\n"
        "while time.monotonic() < deadline:\n"
        "    time.sleep(0.05)\n"
    )
    kept.python(program)
    kept.next(UserStarted)
    kept.pids(1)
    kept.process.stop(0.3)
    exited = kept.next(UserExited)
    assert isinstance(exited, UserExited) and exited.signal == "SIGKILL"
    assert kept.gone().left == ()


def test_a_wrapper_that_dies_of_term_does_not_take_the_grace_of_what_it_runs(kept: Kept) -> None:
    save = (
        "import signal, sys, time; "
        "signal.signal(15, lambda *_: (time.sleep(0.7), print('saved', flush=True), sys.exit()))"
    )
    program = f"{save}; print('up', flush=True); time.sleep(60)"
    kept.start("sh", "-c", f'{sys.executable} -c "{program}"; exit 1')
    kept.next(UserStarted)
    assert eventually(lambda: kept.output == "up\n")
    kept.process.stop(20.0)
    kept.next(UserExited)
    assert kept.gone().left == ()
    assert kept.output == "up\nsaved\n"


def test_a_lease_that_is_renewed_goes_on_and_one_that_is_not_ends(kept: Kept) -> None:
    kept.start("sleep", "60", lease=time.monotonic() + 60.0)
    kept.next(UserStarted)
    began = time.monotonic()
    kept.process.renew(began + 0.5)
    kept.process.renew(began + 1.2)
    exited = kept.next(UserExited)
    assert isinstance(exited, UserExited)
    assert exited.signal == "SIGTERM"
    assert time.monotonic() - began > 1.1
    kept.gone()


def test_the_shorter_of_two_graces_counts(kept: Kept) -> None:
    kept.start("sh", "-c", "trap '' TERM; echo 1; while :; do sleep 0.1; done")
    kept.next(UserStarted)
    kept.pids(1)
    asked_at = time.monotonic()
    kept.process.stop(60.0)
    kept.process.stop(0.2)
    exited = kept.next(UserExited)
    assert isinstance(exited, UserExited) and exited.signal == "SIGKILL"
    assert time.monotonic() - asked_at < 5.0
    kept.gone()


def test_a_thread_must_not_start_a_keeper(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(Kept(tmp_path).start, "true").result()


def test_a_killed_executor_leaves_no_socket_behind(tmp_path: Path) -> None:
    master = ScriptedMaster()
    try:
        with executor_process(master, tmp_path) as process:
            master.greet()
            master.release("sh", "-c", "echo $TONY_REPORT_SOCKET; exec sleep 60")
            master.expect("started")
            out = tmp_path / "logs" / "stdout.log"
            assert eventually(lambda: out.read_text().endswith("\n"))
            socket = Path(out.read_text().strip())
            assert socket.exists()
            process.kill()
            assert eventually(lambda: not socket.parent.exists())
    finally:
        master.close()


def test_a_frozen_user_process_still_gets_its_chance_to_end_by_itself(kept: Kept) -> None:
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print(os.getpid(), flush=True)\n"
        "while True: signal.pause()"
    )
    kept.python(program)
    [pid] = kept.pids(1)
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: "T (stopped)" in Path(f"/proc/{pid}/status").read_text())
    kept.process.stop(30.0)
    assert kept.exited().code == 7
    kept.gone()
