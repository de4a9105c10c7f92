"""What Hadoop's Java answers, as errors of ours: YARN's own sentence, without class names and stack traces."""

from __future__ import annotations

import re

from tony.errors import NotPermitted, PackagingError, Problem, Refused, TonyError, Unreachable

_MAX_LENGTH = 600
_CLASS = re.compile(r"\b(?:[a-z_][\w$]*\.){2,}[A-Z][\w$]*(?:Exception|Error)?(?:\([^)]*\))?:\s*")
_PREFIX = re.compile(r"^Failed to [\w ]+, exception:\s*", re.IGNORECASE)
_SUBMIT = re.compile(r"^Failed to submit application_\w+ to YARN\s*:\s*")
_TWICE = re.compile(r"^(.{10,300}?)\1")
_FRAME = re.compile(r"^\s*(at [\w.$]+\(|\.\.\. \d+ more|Caused by:)")
# A remote exception brings the frames of the other side on its own line.
_INNER_FRAMES = re.compile(r"(\s+at [\w.$/]+\([\w .$]*(:\d+)?\))+")

_REFUSED = (
    ("unknown queue", "queue"),
    ("Application rejected by queue placement policy", "queue"),
    ("is STOPPED. Cannot accept submission", "queue"),
    ("is not a leaf queue", "queue"),
    ("non-leaf queue", "queue"),
    ("Invalid resource request", "roles"),
    ("InvalidResourceRequestException", "roles"),
    ("is not defined in your cluster's configuration", "roles"),
    ("Invalid label resource request", "node_label"),
)
_NOT_PERMITTED = (
    "cannot submit applications to queue",
    "Permission denied",
    "does not have permission",
    "doesn't have permissions",
    "AccessControl",
    "is not allowed to impersonate",
)
_FULL = ("DSQuotaExceeded", "NSQuotaExceeded", "quota", "could only be written to 0 of the", "No space left")
_TICKET = ("Kerberos ticket not found", "Failed to find any Kerberos tgt", "TOKEN, KERBEROS", "GSSException")
_SILENT = (
    "Connection refused",
    "ConnectException",
    "failed on connection exception",
    "UnknownHost",
    "No route to host",
    "SocketTimeout",
    "timed out",
    "safe mode",
    "StandbyException",
    "RetriableException",
)


def sentence(text: str) -> str:
    """The first thing that was said, in one line."""
    lines = [line.strip() for line in _INNER_FRAMES.sub("", text).splitlines() if line.strip()]
    lines = [line for line in lines if not _FRAME.match(line)]
    said = _PREFIX.sub("", " ".join(lines))
    said = re.sub(r"\s+", " ", _CLASS.sub("", said)).strip()
    # The resource manager says who submitted, and then says it again with the reason.
    said = _TWICE.sub(r"\1", _SUBMIT.sub("", said))
    return said if len(said) <= _MAX_LENGTH else said[: _MAX_LENGTH - 1] + "…"


def refusal(text: str, doing: str) -> TonyError:
    """The error of ours for a Java exception's text; `doing` completes "could not …"."""
    said = sentence(text) or "no reason was given"
    # Frames hold names such as AccessController, which say nothing.
    text = _INNER_FRAMES.sub("", text)
    message = f"could not {doing}: {said}"
    if _says(text, _TICKET):
        return Unreachable(message, "Get a Kerberos ticket with kinit and try again.")
    if _says(text, _NOT_PERMITTED):
        return NotPermitted(message)
    for words, key in _REFUSED:
        if words.lower() in text.lower():
            return Refused([Problem(key, said)])
    if _says(text, _FULL):
        return PackagingError(message, "Make room on HDFS or ask for a larger quota.")
    if _says(text, _SILENT):
        return Unreachable(message, "For a cluster on this machine: tony cluster status")
    return TonyError(message)


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(word.lower() in text.lower() for word in words)
