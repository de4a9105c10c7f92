"""What ``yarn logs`` prints, line by line: the kept logs of a finished application."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tony.containers import LogLine
from tony.errors import NoSuchJob, TonyError, Unreachable
from tony.rm import ResourceManager
from tony.yarn.driver import hadoop_environment, yarn_command
from tony.yarn.refusals import sentence

_CONTAINER = re.compile(rb"Container: (container_\S+) on \S+")
_FILE = re.compile(rb"LogType:(\S.*)")
_LENGTH = re.compile(rb"LogLength:(\d+)")
_CONTENTS = (b"LogContents:", b"Log Contents:")
_MAX_LINE_BYTES = 1024 * 1024
# What YARN writes about the launch itself is of no interest beside the logs, except where it failed.
_UNWANTED = ("launch_container.sh", "directory.info", "prelaunch.out")
_GATHERING = ("NOT_START", "RUNNING", "RUNNING_WITH_FAILURE")
_GATHERING_S = 30.0
_GATHERING_POLL_S = 0.5
_READ_S = 1800.0
_TRIES = 3
_TRY_PAUSE_S = 2.0


def kept_logs(
    rm: ResourceManager, conf_dir: Path, bin_dir: Path | None, application_id: str, user: str
) -> Iterator[LogLine]:
    """The logs of a finished application, all containers. Waits up to 30 s for what is still being gathered.

    Raises TonyError when there are none, Unreachable when the command `yarn` cannot be run.
    """
    owner = ""
    try:
        report = rm.report(application_id)
        owner = report.user
        deadline = time.monotonic() + _GATHERING_S
        while report.state.ended and rm.log_aggregation(application_id) in _GATHERING and time.monotonic() < deadline:
            time.sleep(_GATHERING_POLL_S)
    except NoSuchJob:
        # Forgotten by the resource manager; its logs may still be there.
        pass
    environment = hadoop_environment(conf_dir, bin_dir)
    environment.setdefault("HADOOP_USER_NAME", user)
    command = [yarn_command(environment), "logs", "-applicationId", application_id, "-log_files_pattern", ".*"]
    if owner and owner != user:
        command += ["-appOwner", owner]
    for turn in range(_TRIES):
        told = False
        for line in _run(command, environment, last=turn == _TRIES - 1):
            told = True
            yield line
        if told:
            return
        time.sleep(_TRY_PAUSE_S)


def _run(command: list[str], environment: dict[str, str], last: bool) -> Iterator[LogLine]:
    """The lines that one run prints; the `last` one raises when there are none."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            raise Unreachable(f"`yarn logs` could not be started: {error}") from error
        end = threading.Timer(_READ_S, process.kill)
        end.start()
        told = False
        try:
            assert process.stdout is not None
            for line in log_lines(process.stdout):
                told = True
                if line.stream not in _UNWANTED:
                    yield line
            process.wait()
        finally:
            end.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if not told and last:
            errors.seek(0)
            raise TonyError(f"no logs were found: {_reason(errors.read(65536).decode(errors='replace'))}")


def _reason(printed: str) -> str:
    """The command's own sentence, without the log lines around it."""
    lines = [line for line in printed.splitlines() if line.strip() and " INFO " not in line and " WARN " not in line]
    return sentence("\n".join(lines[:4])) or "yarn logs printed nothing."


def log_lines(stream: IO[bytes]) -> Iterator[LogLine]:
    """The lines of every file in the output of ``yarn logs``, in its order.

    A file's text is cut by the length that its header tells, never by the trailer, which a log could imitate.
    Lines longer than 1 MiB come in pieces; bytes that are not UTF-8 are replaced.
    """
    container = file = ""
    length: int | None = None
    while header := stream.readline(_MAX_LINE_BYTES):
        line = header.rstrip(b"\r\n")
        if match := _CONTAINER.fullmatch(line):
            container, file, length = match[1].decode(), "", None
        elif match := _FILE.fullmatch(line):
            file, length = match[1].decode(errors="replace").strip(), None
        elif match := _LENGTH.fullmatch(line):
            length = int(match[1])
        elif line.strip() in _CONTENTS and container and file and length is not None:
            yield from _contents(stream, container, file, length)
            file, length = "", None


def _contents(stream: IO[bytes], container: str, file: str, length: int) -> Iterator[LogLine]:
    left = length
    while left > 0:
        raw = stream.readline(min(left, _MAX_LINE_BYTES))
        if not raw:
            return
        left -= len(raw)
        yield LogLine(container, file, raw.rstrip(b"\n").removesuffix(b"\r").decode(errors="replace"))
