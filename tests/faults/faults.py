"""The faults as a table: the row of the matrix, where it exists, how and when it is injected, what follows.

`row` is the number in the fault matrix; one row may have several variants, told apart by `name`. A fault that a
script can be asked for is an argument of ``jobs/train.py``; the others act on processes, files and connections.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import actions as do
from tests.faults.injector import Scene
from tests.faults.invariants import Expected

LOCAL, YARN, BOTH = ("local",), ("yarn",), ("local", "yarn")
OWN = ("own",)
"""A YARN whose daemons may be hurt."""

SHORT = ("-c", "times.lease=12s", "-c", "stop_grace=5s")
NEVER = ("--restart", "never", *SHORT)
CANCELLED = Expected("KILLED", "CANCELLED", 130)


@dataclass(frozen=True)
class Fault:
    """One way to hurt a job. `points`: named points, one of which is drawn; `step:*` draws a step too.

    `act` hurts; without it the script does so itself (`arguments`). `prepare` comes before the submit. `wrapped`: the
    executors start through a script of the scene, for gates and proxies. `limit_s` bounds the whole job.
    """

    row: int
    name: str
    expected: Expected
    act: Callable[[Scene], None] | None = None
    points: tuple[str, ...] = ("step:*",)
    where: tuple[str, ...] = BOTH
    flags: tuple[str, ...] = SHORT
    arguments: tuple[str, ...] = ()
    prepare: Callable[[Scene], None] | None = None
    wrapped: bool = False
    limit_s: float = 120.0
    workers: int = 2
    quick: bool = False
    """Whether it belongs to the short part."""

    @property
    def key(self) -> str:
        """Row and name."""
        return f"{self.row} {self.name}"


def _trouble(kind: str, *more: str) -> tuple[str, ...]:
    return ("--trouble", kind, *more)


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
ONCE = ("--generation", "1")


def _failed(reason: str, code: int, message: str = "", detect_s: float | None = None) -> Expected:
    return Expected("FAILED", reason, code, cause=reason, message=message, detect_s=detect_s, generations=1)


def _again(cause: str, detect_s: float | None = None, recover_s: float | None = None, message: str = "") -> Expected:
    return Expected(cause=cause, generations=2, detect_s=detect_s, recover_s=recover_s, message=message)


HALF = (
    *SHORT,
    *("--memory", "1g", "--gang-timeout", "10s"),
    *("-c", "times.gang_rounds=30", "-c", "times.backoff_min=2s", "-c", "times.backoff_max=20s"),
)
"""Of 8 GiB two masters leave room for 6 of the 8 tasks."""
MASTER_TOO = (("FAILED", "NODE_LOST", 104), ("FAILED", "AM_LOST", 104))
"""The only attempt of the master may have been on the lost node."""
UNHURT = Expected(generations=1)
LONG = ("--steps", "250")

FAULTS: tuple[Fault, ...] = (
    Fault(
        1,
        "user process kill -9",
        _again("WORKER_SIGNAL", 2.0, 5.0, "SIGKILL"),
        do.hit("user", KILL),
        quick=True,
    ),
    Fault(
        1, "kill -9, no restarts", _failed("WORKER_SIGNAL", 104, "SIGKILL", 2.0), do.hit("user", KILL), flags=NEVER
    ),
    Fault(
        1,
        "segmentation fault",
        _again("WORKER_SIGNAL", None, None, "SIGSEGV"),
        arguments=_trouble("signal:SIGSEGV", *ONCE),
    ),
    Fault(
        1,
        "the same crash again and again",
        Expected("FAILED", "REPEATED", 109, cause="WORKER_SIGNAL", message="SIGSEGV", generations=3),
        arguments=_trouble("signal:SIGSEGV", "--at", "3"),
    ),
    Fault(1, "kill -9, survivors exit first", _again("WORKER_SIGNAL", None, None), do.echoed(do.hit("user", KILL))),
    Fault(
        2,
        "exception",
        _failed("WORKER_EXIT", 100, "the loss is not a number"),
        arguments=_trouble("raise"),
        quick=True,
    ),
    Fault(2, "exit code 7", _failed("WORKER_EXIT", 100, "7"), arguments=_trouble("exit:7")),
    Fault(
        3,
        "executor kill -9",
        _again("EXECUTOR_LOST", 2.0, 15.0),
        do.hit("executor", KILL),
        quick=True,
    ),
    Fault(
        3,
        "executor kill -9 at register or release",
        _again("EXECUTOR_LOST", 2.0),
        do.hit("executor", KILL),
        points=("register", "release"),
    ),
    Fault(3, "executor kill -9, survivors exit first", _again("EXECUTOR_LOST"), do.echoed(do.hit("executor", KILL))),
    Fault(
        3,
        "executor kill -9, no restarts",
        _failed("EXECUTOR_LOST", 104, "", 2.0),
        do.hit("executor", KILL),
        flags=NEVER,
    ),
    Fault(
        3,
        "executor kill -9 before its first word",
        _again("LAUNCH_FAILED"),
        do.lost_before_hello,
        points=("start",),
        where=LOCAL,
        prepare=do.hold_at_the_gate,
        wrapped=True,
    ),
    Fault(3, "executor SIGTERM", _again("EXECUTOR_LOST", 2.0, 15.0), do.hit("executor", TERM)),
    Fault(3, "keeper kill -9", _again("WORKER_SIGNAL", 2.0, 5.0), do.hit("keeper", KILL)),
    Fault(3, "keeper SIGTERM", _again("WORKER_SIGNAL", None, None), do.hit("keeper", TERM)),
    Fault(
        3,
        "a child that outlives its trainer",
        _again("EXECUTOR_LOST", 2.0),
        do.hit("executor", KILL),
        arguments=_trouble("linger", "--at", "2"),
    ),
    Fault(
        4,
        "executor frozen for ever",
        _again("EXECUTOR_UNRESPONSIVE", 15.0),
        do.freeze("executor", 40.0),
        arguments=LONG,
    ),
    Fault(
        4,
        "executor frozen, wakes up late",
        _again("EXECUTOR_UNRESPONSIVE", 15.0),
        do.freeze("executor", 13.0),
        arguments=LONG,
        where=LOCAL,
    ),
    Fault(
        4,
        "executor frozen, survivors exit first",
        _again("EXECUTOR_UNRESPONSIVE"),
        do.echoed(do.freeze("executor", 30.0)),
    ),
    Fault(4, "executor frozen for 5 s", UNHURT, do.freeze("executor", 5.0), arguments=("--steps", "120")),
    Fault(4, "user process frozen for 5 s", UNHURT, do.freeze("user", 5.0)),
    Fault(4, "keeper frozen for 5 s", UNHURT, do.freeze("keeper", 5.0), arguments=("--steps", "120")),
    Fault(5, "memory error", _failed("OUT_OF_MEMORY", 107), arguments=_trouble("memory")),
    Fault(
        5,
        "container over its memory",
        Expected("FAILED", "OUT_OF_MEMORY", 107, cause="OUT_OF_MEMORY"),
        arguments=_trouble("hog"),
        where=YARN,
        flags=NEVER,
    ),
    Fault(7, "GPU out of memory", _failed("GPU_OOM", 107, "CUDA out of memory"), arguments=_trouble("gpu-memory")),
    Fault(
        8,
        "node lost with its containers",
        Expected(alternatives=MASTER_TOO, files_may_stay=True),
        do.kill_node(with_containers=True),
        where=OWN,
        arguments=LONG,
        limit_s=240.0,
    ),
    Fault(
        8,
        "NodeManager kill -9, its containers live on",
        Expected(alternatives=MASTER_TOO),
        do.kill_node(with_containers=False),
        where=OWN,
        arguments=("--steps", "200"),
        limit_s=240.0,
    ),
    Fault(
        9,
        "NodeManagers restarted",
        UNHURT,
        do.restart_daemon("nodemanager", 3.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        10,
        "application master kill -9",
        UNHURT,
        do.hit("appmaster", KILL),
        points=("register", "release", "step:*"),
        where=YARN,
        arguments=("--steps", "120"),
    ),
    Fault(
        10,
        "application master kill -9, no supervisor",
        # Who was not welcomed yet looks for its master for a minute.
        Expected("FAILED", "AM_LOST", 104, gone_s=75.0),
        do.hit("appmaster", KILL),
        points=("register", "release", "step:*"),
        where=LOCAL,
        arguments=("--steps", "600"),
        quick=True,
    ),
    Fault(
        10,
        "application master frozen for 5 s",
        UNHURT,
        lambda scene: do.freeze_master(scene, 5.0),
        where=LOCAL,
        arguments=("--steps", "120"),
    ),
    Fault(
        10,
        "application master frozen for 25 s",
        UNHURT,
        lambda scene: do.freeze_master(scene, 25.0),
        flags=("-c", "stop_grace=5s"),
        where=LOCAL,
        arguments=("--steps", "400"),
        limit_s=150.0,
    ),
    Fault(
        11,
        "container of the master lost, one attempt",
        Expected("FAILED", "AM_LOST", 104),
        do.hit("jvm", KILL),
        where=YARN,
    ),
    Fault(
        11,
        "container of the master lost, two attempts",
        Expected(generations=2),
        do.hit("jvm", KILL),
        where=YARN,
        flags=(*SHORT, "--am-attempts", "2"),
        limit_s=240.0,
    ),
    Fault(
        12,
        "ResourceManager restarted",
        UNHURT,
        do.restart_daemon("resourcemanager", 3.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        19,
        "two jobs that each hold half of the cluster",
        Expected(),
        do.rival(HALF),
        points=("submit",),
        where=YARN,
        flags=HALF,
        arguments=("--steps", "20"),
        limit_s=300.0,
        workers=4,
    ),
    Fault(
        23,
        "NameNode restarted",
        UNHURT,
        do.restart_daemon("namenode", 3.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        14,
        "partition beyond the lease",
        _again("EXECUTOR_UNRESPONSIVE", 15.0),
        do.partition(30.0),
        arguments=LONG,
        where=LOCAL,
        prepare=do.behind_a_proxy,
        wrapped=True,
    ),
    Fault(
        14,
        "partition, survivors exit first",
        _again("EXECUTOR_UNRESPONSIVE"),
        do.echoed(do.partition(30.0)),
        where=LOCAL,
        prepare=do.behind_a_proxy,
        wrapped=True,
    ),
    *(
        Fault(
            15,
            name,
            UNHURT,
            act,
            where=LOCAL,
            prepare=do.behind_a_proxy,
            wrapped=True,
            arguments=("--steps", "150"),
            points=("register", "release", "step:*"),
            quick=name == "flapping connection",
        )
        for name, act in (
            ("flapping connection", do.flap),
            ("2 s of delay", do.slow),
            ("partition for 5 s", do.partition(5.0)),
            ("half-open connection for some seconds", do.one_way),
        )
    ),
    Fault(
        16,
        "client kill -9",
        Expected(code=-9, generations=1),
        do.signal_client(KILL),
        points=("start", "register", "release", "step:*"),
    ),
    Fault(
        17, "Ctrl-C", CANCELLED, do.signal_client(INT), points=("start", "register", "release", "step:*"), quick=True
    ),
    Fault(17, "Ctrl-C while it is submitted", CANCELLED, do.signal_client(INT), points=("submit",)),
    Fault(18, "SIGTERM while it is submitted", CANCELLED, do.signal_client(TERM), points=("submit",)),
    Fault(
        18,
        "SIGTERM for the client",
        CANCELLED,
        do.signal_client(TERM),
        points=("start", "register", "release", "step:*"),
    ),
    *(
        Fault(
            row,
            name,
            Expected("FAILED", "BAD_ARCHIVE", 100, cause="BAD_ARCHIVE", root=""),
            do.spoil(change),
            points=("start",),
            where=LOCAL,
            prepare=do.hold_at_the_gate,
            wrapped=True,
        )
        for row, name, change in (
            (24, "truncated archive", do.truncate),
            (24, "archive with a flipped bit", do.flip),
            (25, "archive removed after the submit", do.remove),
        )
    ),
    Fault(
        27,
        "import error",
        _failed("USER_IMPORT", 100, "module_that_nobody_has"),
        arguments=_trouble("import"),
        quick=True,
    ),
    Fault(28, "port taken", _again("PORT_CLASH"), arguments=_trouble("port", *ONCE, "--at", "1")),
    Fault(
        31,
        "one rank ends early",
        Expected("FAILED", "EARLY_EXIT", 100, cause="EARLY_EXIT"),
        arguments=_trouble("early", "--at", "3"),
        limit_s=60.0,
    ),
    Fault(
        32,
        "a parameter server never ends",
        UNHURT,
        flags=(*SHORT, "--ps", "1", "--ps-memory", "256m"),
        arguments=("--endless", "ps", "--alone"),
    ),
    Fault(34, "GPU fault in the output", _again("GPU_FAULT"), arguments=_trouble("gpu-fault", *ONCE)),
    Fault(36, "log flood", UNHURT, arguments=_trouble("flood:150")),
    Fault(
        37,
        "disk full in the script",
        Expected("FAILED", "DISK_FULL", 104, cause="DISK_FULL"),
        arguments=_trouble("disk"),
        flags=NEVER,
    ),
    Fault(
        40,
        "strangers and noise at the master's port",
        UNHURT,
        do.strangers,
        where=LOCAL,
        wrapped=True,
        arguments=("--steps", "80"),
    ),
    Fault(
        42,
        "master killed while it ends the job",
        Expected(alternatives=(("FAILED", "AM_LOST", 104),)),
        do.kill_master_at_the_end,
        points=("end",),
        where=LOCAL,
    ),
    Fault(
        42,
        "master killed while it ends the job, supervised",
        Expected(),
        do.kill_master_at_the_end,
        points=("end",),
        where=YARN,
    ),
    Fault(0, "no fault", UNHURT),
)
