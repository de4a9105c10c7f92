"""The error tree. Each class carries the exit code that the command line ends with.

TonyError                    1    our own unexpected error
├─ UsageError(problems)      2    the request itself is wrong; nothing was submitted
├─ Refused(problems)         3    the cluster could never run it; nothing was submitted
├─ PackagingError            4    packing or uploading failed; nothing left behind
├─ Unreachable               5    resource manager, file system or driver does not answer
│  └─ AppMasterUnreachable        the job's own master does not answer; may be retried
├─ NotFinished             101    the wait ended before the job did
├─ NoSuchJob               102
├─ NotPermitted            108    ACL, token, ticket
└─ ProtocolError             1    a message that breaks the protocol
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request, with where it came from.

    `key` is the dotted name of the setting (``roles.worker.memory``), `value` what was given, as written;
    `origin` where (``job.yaml:7``, ``--memory on the command line``); `hint` what to do instead.
    """

    key: str
    message: str
    value: str | None = None
    origin: str | None = None
    hint: str | None = None


class TonyError(Exception):
    """Base of every error that tony raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class _ProblemsError(TonyError):
    """An error made of several problems, reported together."""

    def __init__(self, problems: Iterable[Problem] | str, hint: str | None = None) -> None:
        if isinstance(problems, str):
            problems = (Problem(key="", message=problems, hint=hint),)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("; ".join(_line(problem) for problem in self.problems), hint)


def _line(problem: Problem) -> str:
    return f"{problem.key}: {problem.message}" if problem.key else problem.message


class UsageError(_ProblemsError):
    """The request itself is wrong: a flag, a key of the job file, a missing script."""

    exit_code = 2


class Refused(_ProblemsError):
    """The request is well formed, but this cluster would never run it."""

    exit_code = 3


class PackagingError(TonyError):
    """An archive could not be read, built or uploaded."""

    exit_code = 4


class Unreachable(TonyError, ConnectionError):
    """Something that must answer does not: resource manager, HDFS, submit driver."""

    exit_code = 5


class AppMasterUnreachable(Unreachable):
    """The application master of a job does not answer. Retrying may help: it may be starting or gone."""


class NotFinished(TonyError, TimeoutError):
    """The job was still running when the time to wait for it was over."""

    exit_code = 101


class NoSuchJob(TonyError, LookupError):
    """No job of that name is known to the cluster or to this user's records."""

    exit_code = 102


class NotPermitted(TonyError, PermissionError):
    """The cluster or the job refuses this user."""

    exit_code = 108


class ProtocolError(TonyError):
    """A peer sent something that the protocol does not allow."""
