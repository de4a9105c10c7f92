"""The faults as a table. `row` is the number in the fault matrix; one row may have several variants.

A fault that a script can be asked for is an argument of ``jobs/train.py``; the others act on processes, files and
connections.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from tests.faults import actions as do
from tests.faults.fault import LOCAL, LONG, NEVER, ONCE, SHORT, UNHURT, YARN, Fault, again, failed, refused, trouble
from tests.faults.faults_cluster import CLUSTER_FAULTS
from tests.faults.invariants import Expected

CANCELLED = Expected("KILLED", "CANCELLED", 130)
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
YARN_SAYS = "Container failed during execution"
"""All that skein hands on of what YARN knows: no exit code, no signal."""
GONE = rf"executor's process ended with signal SIGKILL|{YARN_SAYS}"
HUNG = "none has reported|has reported, written or computed|no sign of progress"
SILENT = r"no sign of life for \d+"


FAULTS: tuple[Fault, ...] = (
    Fault(
        1,
        "user process kill -9",
        again("WORKER_SIGNAL", 2.0, 5.0, "SIGKILL"),
        do.hit("user", KILL),
        quick=True,
    ),
    Fault(1, "kill -9, no restarts", failed("WORKER_SIGNAL", 104, "SIGKILL", 2.0), do.hit("user", KILL), flags=NEVER),
    Fault(
        1,
        "segmentation fault",
        again("WORKER_SIGNAL", None, None, "SIGSEGV"),
        arguments=trouble("signal:SIGSEGV", *ONCE),
    ),
    Fault(
        1,
        "the same crash again and again",
        Expected("FAILED", "REPEATED", 109, cause="WORKER_SIGNAL", message="SIGSEGV", generations=3),
        arguments=trouble("signal:SIGSEGV", "--at", "3"),
    ),
    Fault(
        1,
        "kill -9, survivors exit first",
        again("WORKER_SIGNAL", None, None, "SIGKILL"),
        do.echoed(do.hit("user", KILL)),
    ),
    Fault(
        2,
        "exception",
        failed("WORKER_EXIT", 100, "the loss is not a number"),
        arguments=trouble("raise"),
        quick=True,
    ),
    Fault(2, "exit code 7", failed("WORKER_EXIT", 100, "7"), arguments=trouble("exit:7")),
    Fault(
        3,
        "executor kill -9",
        again("EXECUTOR_LOST", 2.0, 15.0, GONE),
        do.hit("executor", KILL),
        quick=True,
    ),
    Fault(
        3,
        "executor kill -9 at register or release",
        again("EXECUTOR_LOST", 2.0, None, GONE),
        do.hit("executor", KILL),
        points=("register", "release"),
    ),
    Fault(
        3,
        "executor kill -9, survivors exit first",
        again("EXECUTOR_LOST", message=GONE),
        do.echoed(do.hit("executor", KILL)),
    ),
    Fault(
        3,
        "executor kill -9, no restarts",
        failed("EXECUTOR_LOST", 104, GONE, 2.0),
        do.hit("executor", KILL),
        flags=NEVER,
    ),
    Fault(
        3,
        "executor kill -9 before its first word",
        again("LAUNCH_FAILED", message="SIGKILL"),
        do.lost_before_hello,
        points=("start",),
        where=LOCAL,
        prepare=do.hold_at_the_gate,
        wrapped=True,
    ),
    Fault(3, "executor SIGTERM", again("EXECUTOR_LOST", 2.0, 15.0, f"SIGTERM|{YARN_SAYS}"), do.hit("executor", TERM)),
    Fault(3, "keeper kill -9", again("WORKER_SIGNAL", 2.0, 5.0, "SIGKILL"), do.hit("keeper", KILL)),
    Fault(3, "keeper SIGTERM", again("WORKER_SIGNAL", None, None, "SIGTERM|SIGKILL"), do.hit("keeper", TERM)),
    Fault(
        3,
        "a child that outlives its trainer",
        again("EXECUTOR_LOST", 2.0, None, GONE),
        do.hit("executor", KILL),
        arguments=trouble("linger", "--at", "2"),
    ),
    Fault(
        4,
        "executor frozen for ever",
        again("EXECUTOR_UNRESPONSIVE", 15.0, message=SILENT),
        do.freeze("executor", 40.0),
        arguments=LONG,
    ),
    Fault(
        4,
        "executor frozen, wakes up late",
        again("EXECUTOR_UNRESPONSIVE", 15.0, message=SILENT),
        do.freeze("executor", 13.0),
        arguments=LONG,
        where=LOCAL,
    ),
    Fault(
        4,
        "executor frozen, survivors exit first",
        again("EXECUTOR_UNRESPONSIVE", message=SILENT),
        do.echoed(do.freeze("executor", 30.0)),
    ),
    Fault(4, "executor frozen for 5 s", UNHURT, do.freeze("executor", 5.0), arguments=("--steps", "120")),
    Fault(4, "user process frozen for 5 s", UNHURT, do.freeze("user", 5.0)),
    Fault(4, "keeper frozen for 5 s", UNHURT, do.freeze("keeper", 5.0), arguments=("--steps", "120")),
    Fault(5, "memory error", failed("OUT_OF_MEMORY", 107, "cannot allocate 8 GiB"), arguments=trouble("memory")),
    Fault(
        5,
        "container over its memory",
        Expected("FAILED", "OUT_OF_MEMORY", 107, cause="OUT_OF_MEMORY", message="physical memory"),
        arguments=trouble("hog"),
        where=YARN,
        flags=NEVER,
    ),
    Fault(7, "GPU out of memory", failed("GPU_OOM", 107, "CUDA out of memory"), arguments=trouble("gpu-memory")),
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
        14,
        "partition beyond the lease",
        again("PARTITIONED", 15.0, message=SILENT),
        do.partition(30.0),
        arguments=LONG,
        where=LOCAL,
        prepare=do.behind_a_proxy,
        wrapped=True,
    ),
    Fault(
        14,
        "partition, survivors exit first",
        again("PARTITIONED", message=SILENT),
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
            Expected("FAILED", reason, code, cause=reason, root="", message=r"\.(zip|tar)"),
            do.spoil(change),
            points=("start",),
            where=LOCAL,
            prepare=do.hold_at_the_gate,
            wrapped=True,
        )
        for row, name, reason, code, change in (
            (24, "truncated archive", "BAD_ARCHIVE", 100, do.truncate),
            (24, "archive with a flipped bit", "BAD_ARCHIVE", 100, do.flip),
            (25, "archive removed after the submit", "ARTIFACT_CHANGED", 104, do.remove),
        )
    ),
    Fault(
        20,
        "more memory than this machine has",
        refused("Refused", 3, "this machine has"),
        where=LOCAL,
        flags=("--memory", "1t"),
        submits=False,
        quick=True,
    ),
    Fault(
        26,
        "an interpreter that is not on the node",
        Expected("FAILED", "BAD_ENV", 100, cause="BAD_ENV", root="", message="does not exist on this node"),
        flags=("--python", "/opt/nobody/bin/python", *SHORT),
    ),
    Fault(
        26,
        "an environment for another processor",
        Expected("FAILED", "BAD_ENV", 100, cause="BAD_ENV", root="", message="Exec format error"),
        prepare=do.foreign_environment,
    ),
    Fault(
        27,
        "import error",
        failed("USER_IMPORT", 100, "module_that_nobody_has"),
        arguments=trouble("import"),
        quick=True,
    ),
    Fault(
        28,
        "port taken",
        again("PORT_CLASH", message="Address already in use"),
        arguments=trouble("port", *ONCE, "--at", "1"),
    ),
    Fault(
        29,
        "a node whose name nobody knows",
        Expected(
            "FAILED",
            "UNREACHABLE_PEER",
            104,
            cause="UNREACHABLE_PEER",
            root="",
            message=r"cannot reach worker:\d at nobody\.invalid:\d+ \(.*not known",
        ),
        where=LOCAL,
        prepare=do.nameless_host,
        wrapped=True,
        arguments=("--steps", "300"),
    ),
    Fault(
        30,
        "a rank hangs, the others wait for it",
        replace(failed("HUNG", 106, HUNG), evidence="train.py.*trouble", warned="HUNG"),
        arguments=trouble("hang"),
        flags=("--hang-timeout", "10s", "--on-hang", "kill", *SHORT),
    ),
    Fault(
        30,
        "a rank hangs once",
        replace(again("HUNG", message=HUNG), warned="HUNG"),
        arguments=trouble("hang", *ONCE),
        flags=("--hang-timeout", "10s", "--on-hang", "restart", *SHORT),
    ),
    Fault(
        30,
        "user process frozen for ever",
        replace(again("HUNG", 25.0, 30.0, "is stopped"), warned="HUNG"),
        do.freeze("user", 60.0),
        flags=("--hang-timeout", "10s", "--on-hang", "restart", *SHORT),
    ),
    Fault(
        31,
        "one rank ends early",
        Expected("FAILED", "EARLY_EXIT", 100, cause="EARLY_EXIT", message="ended"),
        arguments=trouble("early", "--at", "3"),
        flags=("-c", "early_exit=6s", *SHORT),
        limit_s=60.0,
    ),
    Fault(
        32,
        "a parameter server never ends",
        UNHURT,
        flags=(*SHORT, "--ps", "1", "--ps-memory", "256m"),
        arguments=("--endless", "ps", "--alone"),
    ),
    Fault(
        33,
        "a throttled rank is named",
        replace(UNHURT, warned="STRAGGLER"),
        do.throttle,
        arguments=("--steps", "150", "--own"),
        limit_s=240.0,
    ),
    Fault(
        33,
        "a throttled rank is replaced",
        again("STRAGGLER", 120.0, None, "times as long for a step"),
        do.throttle,
        flags=("--on-straggler", "replace", *SHORT),
        arguments=("--steps", "150", "--own"),
        limit_s=240.0,
    ),
    *(
        Fault(
            35,
            f"nvidia-smi {name}",
            UNHURT,
            do.was_asked,
            where=LOCAL,
            prepare=do.gpu_tool(script),
            wrapped=True,
            points=("release",),
            arguments=("--steps", "120"),
        )
        for name, script in (
            ("fails", "echo NVML: Driver/library version mismatch; exit 18"),
            ("hangs", "exec sleep 60"),
            ("talks nonsense", "head -c 100000 /dev/urandom"),
        )
    ),
    Fault(
        34, "GPU fault in the output", again("GPU_FAULT", message="Xid|GPU"), arguments=trouble("gpu-fault", *ONCE)
    ),
    Fault(36, "log flood", UNHURT, arguments=trouble("flood:150")),
    Fault(
        37,
        "disk full in the script",
        Expected("FAILED", "DISK_FULL", 104, cause="DISK_FULL", message="No space left"),
        arguments=trouble("disk"),
        flags=NEVER,
    ),
    *(
        Fault(
            39,
            f"wall clock of the {whose} jumps by {seconds // 60:+d} min",
            Expected(generations=1, clocks_jump=True),
            do.jump(seconds, master=whose == "master"),
            where=LOCAL,
            prepare=do.other_clocks,
            wrapped=True,
            points=("register", "release", "step:*"),
            arguments=("--steps", "150"),
            needs=do.compiler,
        )
        for whose in ("master", "node")
        for seconds in (600, -600)
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
        41,
        "client killed, and the same key submitted again",
        UNHURT,
        do.submit_twice,
        points=("submit", "start", "register", "release", "step:*"),
        prepare=do.with_a_key,
        quick=True,
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
    *CLUSTER_FAULTS,
)
