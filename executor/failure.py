"""What an ended user process died of, as far as its exit and its last lines tell. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tony.state import Reason

CLASH_LIFE_S = 120.0
"""A user process that lived longer than this did not die of a port that it could not have at its start."""

_TRACEBACK_LINES = 200
_TRACEBACK_CHARACTERS = 16_000
_MESSAGE_CHARACTERS = 500

_HEADER = re.compile(r"\s*Traceback \(most recent call last\):|\s*\+ Exception Group Traceback")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?::\s.*)?$")
_SYNTAX = re.compile(r"(?:SyntaxError|IndentationError|TabError)(?::|$)")
_NO_SCRIPT = re.compile(r".*: can't (?:open file|find '__main__' module in) ")

_GPU_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory|OOM when allocating tensor.*(?:GPU|gpu)"
    r"|failed to allocate .* on device.*(?:GPU|gpu)",
)
_GPU_FAULT = re.compile(
    r"uncorrectable ECC error|cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE"
    r"|GPU has fallen off the bus|GPU is lost|NVRM: Xid|\bXid \(PCI:",
)
_DISK = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]")
_MEMORY = re.compile(r"\b(?:_Array)?MemoryError\b|std::bad_alloc|Cannot allocate memory")
_CLASH = re.compile(
    r"address already in use|EADDRINUSE|errno:?\s*-?98\b|code: -98\b"
    r"|no address added out of total|failed to (?:add|bind)(?: to)? (?:any )?(?:port|address)",
    re.IGNORECASE,
)
_PORT = re.compile(r"(?:[:\s(]|port[ =]?)(\d{4,5})(?!\d)")
_IMPORT = ("ModuleNotFoundError", "ImportError")


@dataclass(frozen=True)
class Ending:
    """The facts: exit `code` or `signal` (its name), seconds of life, the last lines of standard error.

    `ports` are those that we had reserved for it; `oom_killed` says that the kernel's out-of-memory killer struck
    in our control group while it ran; `peak_mb` is the largest resident size of the user process itself;
    `gpu_fault` tells how one of its GPUs broke meanwhile; `disk` how much room there is where it worked.
    """

    code: int
    signal: str
    seconds: float
    lines: Sequence[str]
    ports: Collection[int] = ()
    oom_killed: bool = False
    peak_mb: int = 0
    gpu_fault: str = ""
    disk: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """`reason`, one sentence, and the last Python traceback (empty if there is none)."""

    reason: Reason
    message: str
    traceback: str = ""


def diagnose(ending: Ending) -> Diagnosis:
    """Why it ended. The first rule that fits counts; an exit with 0 is a success whatever was written."""
    if ending.code == 0 and not ending.signal:
        return Diagnosis(Reason.SUCCEEDED, "The user process exited with code 0.")
    traceback = last_traceback(ending.lines)
    final = traceback[-1].strip() if traceback else ""
    reason, evidence = _reason(ending, final)
    message = evidence or final or _plain(ending)
    return Diagnosis(reason, _sentence(message), "\n".join(traceback)[-_TRACEBACK_CHARACTERS:])


def _sentence(text: str) -> str:
    """For logs, diagnostics and terminals: bounded, and without control characters that would act there."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_MESSAGE_CHARACTERS]).strip()


def _reason(ending: Ending, final: str) -> tuple[Reason, str]:
    killed = ending.signal == "SIGKILL" or ending.code == 137
    if killed and ending.oom_killed:
        return Reason.OUT_OF_MEMORY, (
            f"The kernel ended it because the container's memory was used up; it alone had {ending.peak_mb} MB."
        )
    clash = _clash(ending)
    if clash:
        return Reason.PORT_CLASH, clash
    for pattern, reason in (
        (_GPU_MEMORY, Reason.GPU_OOM),
        (_GPU_FAULT, Reason.GPU_FAULT),
        (_DISK, Reason.DISK_FULL),
        (_MEMORY, Reason.OUT_OF_MEMORY),
    ):
        # With a traceback its last line decides: a warning somewhere above it is not the cause.
        line = _first(pattern, (final,) if final else ending.lines)
        if line:
            return reason, f"{line} ({ending.disk})" if reason is Reason.DISK_FULL and ending.disk else line
    if ending.gpu_fault:
        return Reason.GPU_FAULT, ending.gpu_fault
    if ending.signal:
        return Reason.WORKER_SIGNAL, f"The user process was ended by {ending.signal}." + (
            f" {final}" if final else ""
        )
    if final.startswith(_IMPORT):
        return Reason.USER_IMPORT, final
    return Reason.WORKER_EXIT, ""


def _clash(ending: Ending) -> str:
    """The line that tells of one of our ports (or of a port that it does not name), if it died young of it."""
    if ending.seconds > CLASH_LIFE_S:
        return ""
    for line in reversed(ending.lines):
        if _CLASH.search(line):
            named = {int(number) for number in _PORT.findall(line)}
            if not named or named & set(ending.ports):
                return line.strip()
    return ""


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if pattern.search(line)), "")


def _plain(ending: Ending) -> str:
    if 128 < ending.code < 160:
        return f"The user process exited with code {ending.code}: a process below it got signal {ending.code - 128}."
    line = next((line.strip() for line in reversed(ending.lines) if line.strip()), "")
    if ending.code == 2 and _NO_SCRIPT.match(line):
        return line
    return f"The user process exited with code {ending.code} and wrote no traceback."


def last_traceback(lines: Sequence[str]) -> list[str]:
    """The last Python traceback among the lines, its exception last; empty if there is none."""
    for start in range(len(lines) - 1, -1, -1):
        if _HEADER.match(lines[start]):
            end = _exception(lines, start + 1)
            return _chained(lines, start, end) if end else []
        if _SYNTAX.match(lines[start]):
            return _syntax(lines, start)
    return []


def _exception(lines: Sequence[str], start: int) -> int:
    """Index after the first line from `start` on that is not part of the stack but names an exception; 0 if none."""
    indent = len(lines[start - 1]) - len(lines[start - 1].lstrip())
    for index in range(start, min(len(lines), start + _TRACEBACK_LINES)):
        line = lines[index][indent:]
        if line and not line[0].isspace() and _EXCEPTION.match(line):
            return index + 1
    return 0


def _chained(lines: Sequence[str], start: int, end: int) -> list[str]:
    """With the tracebacks that caused it, directly above."""
    while (
        start >= 3 and not lines[start - 1].strip() and lines[start - 2].startswith(("During handling", "The above"))
    ):
        earlier = next((index for index in range(start - 3, -1, -1) if _HEADER.match(lines[index])), None)
        if earlier is None or end - earlier > _TRACEBACK_LINES:
            break
        start = earlier
    return list(lines[start:end])


def _syntax(lines: Sequence[str], at: int) -> list[str]:
    """A syntax error in the script itself is reported without a header."""
    start = at
    while start > 0 and lines[start - 1].startswith(" ") and at - start < 10:
        start -= 1
    return list(lines[start : at + 1])
