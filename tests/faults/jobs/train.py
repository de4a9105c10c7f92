"""A training that needs no framework: steps, checkpoints, peers that give up, and one trouble of its own if asked.

Every rank appends what it does to a file of its own in the trace folder; that is the witness for the tests, beside
what the product says of itself. A lock tells when two processes live with one rank.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from tony import current

parser = argparse.ArgumentParser()
parser.add_argument("--trace", type=Path, required=True)
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--pause", type=float, default=0.1)
parser.add_argument("--trouble", default="none")
parser.add_argument("--rank", type=int, default=0, help="who has the trouble")
parser.add_argument("--at", type=int, default=5, help="at which step")
parser.add_argument("--generation", type=int, default=0, help="only in this one; 0: in every one")
parser.add_argument("--endless", default="", help="a role that never ends")
parser.add_argument("--own", action="store_true", help="report what a step took without the waiting")
parser.add_argument("--alone", action="store_true", help="steps do not wait for the other ranks")
options = parser.parse_args()

_PIECES = 10
"""A step of many short waits takes longer when the process is stopped again and again, as work does."""

me = current()
trace = (options.trace / f"rank-{me.rank}.jsonl").open("a", buffering=1)
checkpoints = {rank: options.trace / f"checkpoint-{rank}" for rank in (*range(me.world_size), me.rank)}
peer_gone = options.trace / "peer-gone"
lock = (options.trace / f"lock-{me.rank}").open("w")


def tell(what: str, step: int) -> None:
    """One line of the trace."""
    line = {"what": what, "step": step, "generation": me.generation, "pid": os.getpid(), "at": time.time()}
    trace.write(json.dumps({**line, "task": f"{me.role}:{me.index}", "incarnation": me.incarnation}) + "\n")


def trouble(kind: str) -> None:
    """Whatever may happen in a user's script."""
    kind, _, value = kind.partition(":")
    if kind == "raise":
        raise ValueError("the loss is not a number")
    if kind == "exit":
        sys.exit(int(value))
    if kind == "signal":
        os.kill(os.getpid(), signal.Signals[value])
    if kind == "import":
        __import__("module_that_nobody_has")
    if kind == "memory":
        raise MemoryError("cannot allocate 8 GiB")
    if kind == "hog":
        blocks = []
        while True:
            blocks.append(b"x" * (16 << 20))
            time.sleep(0.02)
    if kind == "map":
        import mmap

        mapped = mmap.mmap(-1, 1 << 38, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
        time.sleep(60)
        mapped.close()
    if kind == "gpu-memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if kind == "gpu-fault":
        print("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", file=sys.stderr)
        sys.exit(1)
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/data/checkpoint")
    if kind == "port":
        # Somebody else was quicker: what a framework says when it wants the port that was reserved for it.
        port = me.cluster_spec[me.role][me.index].rpartition(":")[2]
        raise OSError(errno.EADDRINUSE, f"Address already in use: ('0.0.0.0', {port})")
    if kind == "flood":
        block = b"f" * 99 + b"\n"
        for _ in range(int(value)):
            os.write(1, block * 10_000)
    if kind == "garbage":
        # No line end, no valid text, and what would act on a terminal.
        os.write(1, b"\x1b[2J\0" + (os.urandom(1 << 20).replace(b"\n", b"") * int(value)))
        os.write(2, b"\xff\xfe\0\x1b]0;" + os.urandom(1 << 20).replace(b"\n", b""))
    if kind == "no-folder":
        shutil.rmtree(os.getcwd())
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "closed":
        # Whatever was inherited, also standard output, standard error and the socket for reports.
        kept = {trace.fileno(), lock.fileno()}
        for descriptor in set(range(256)) - kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    if kind == "hang":
        time.sleep(600)
    if kind == "linger" and os.fork() == 0:
        # A data loader that outlives its trainer, in a session of its own, as a daemon.
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell("child", 0)
        time.sleep(600)
    if kind == "early":
        tell("end", -1)
        sys.exit(0)


def reached(rank: int) -> int:
    """The last step that a rank has kept."""
    try:
        return int(checkpoints[rank].read_text())
    except FileNotFoundError:
        return 0


def together(step: int) -> None:
    """Like a collective operation: wait until every rank has done that step. For ever, when one never does."""
    while not options.alone and min(map(reached, range(me.world_size))) < step:
        if me.generation == 1 and peer_gone.exists():
            tell("echo", step)
            sys.exit("a peer has gone")
        time.sleep(0.01)


def main() -> None:
    """Train from the last step that every rank has kept."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tell("twin", 0)
    step = reached(me.rank) if options.alone else min(map(reached, range(me.world_size)))
    tell("begin", step)
    with (options.trace / f"sockets-{me.rank}").open("a") as sockets:
        sockets.write(os.environ.get("TONY_REPORT_SOCKET", "") + "\n")
    while step < options.steps or options.endless == me.role:
        together(step)
        began = time.monotonic()
        for _ in range(_PIECES if options.own else 1):
            time.sleep(options.pause / (_PIECES if options.own else 1))
        step += 1
        tell("step", step)
        if step == options.at and me.rank == options.rank and options.generation in (0, me.generation):
            tell("trouble", step)
            trouble(options.trouble)
        me.report(step=step, **({"step_s": time.monotonic() - began} if options.own else {}))
        temporary = checkpoints[me.rank].with_suffix(".new")
        temporary.write_text(str(step))
        temporary.replace(checkpoints[me.rank])
    tell("end", step)


if __name__ == "__main__":
    main()
