"""What names may look like: of jobs, roles, queues, hosts, variables. Each check returns what is wrong, or None."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 200
MAX_KEY = 1000
MAX_ENV_VARIABLES = 10_000
MAX_ENV_BYTES = 1_000_000
MAX_ENV_VALUE_BYTES = 128 * 1024 - 1
"""Linux starts no process with a longer argument or variable."""

_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_USER = re.compile(r"\*|[A-Za-z_][A-Za-z0-9_.@-]{0,63}\$?")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9./_-]{0,99}")
_TEMPLATE = re.compile(r"\{\{|\{%|\}\}|%\}")

TEMPLATE_HINT = "A template was not rendered (Airflow: is the field in template_fields?)."
EMPTY_HINT = "A template or a script's variable was empty. Leave the setting out, or give it a value."

_OURS = frozenset(
    {
        *("JOB_NAME", "TASK_INDEX", "TASK_NUM", "JOB_ID", "SESSION_ID", "IS_CHIEF", "DISTRIBUTED_MODE"),
        *("CLUSTER_SPEC", "TB_PORT", "INIT_METHOD", "RANK", "WORLD", "TF_CONFIG", "MASTER_ADDR", "MASTER_PORT"),
        *("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
        *("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE", "HOROVOD_CROSS_RANK"),
        *("HOROVOD_CROSS_SIZE", "HOROVOD_HOSTNAME", "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
        *("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER"),
        *("DMLC_NODE_HOST", "DMLC_WORKER_ID"),
    }
)


def unprintable(text: str) -> str | None:
    """The first character that no name may hold (control, zero-width, right-to-left, line ends), as U+XXXX."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return f"U+{ord(character):04X}"
    return None


def template_left(text: str) -> str | None:
    """Why this text looks like an unrendered template or an empty variable; None when it does not."""
    if _TEMPLATE.search(text):
        return f"holds the leftover of a template. {TEMPLATE_HINT}"
    if text.strip() in ("None", "null", "undefined", "nil"):
        return f"is the word {text.strip()}. {EMPTY_HINT}"
    return None


def job_name(text: str) -> str | None:
    """A name for people; anything printable."""
    if not text.strip():
        return "is empty."
    if len(text) > MAX_NAME:
        return f"has {len(text)} characters; at most {MAX_NAME} are allowed."
    hidden = unprintable(text)
    return f"holds the invisible character {hidden}." if hidden else None


def role_name(text: str) -> str | None:
    """Role names are part of task names, host-safe."""
    if _ROLE.fullmatch(text):
        return None
    return "not a role's name. Lower-case letters, digits and '-', starting with a letter, at most 32."


def tag(text: str) -> str | None:
    """YARN: printable ASCII, at most 100 characters."""
    if 1 <= len(text) <= 100 and text.isascii() and text.isprintable() and "," not in text:
        return None
    return "not a tag. 1 to 100 printable ASCII characters without a comma."


def idempotency_key(text: str) -> str | None:
    """Anything printable; its hash is what the cluster sees."""
    if text.strip() and len(text) <= MAX_KEY and unprintable(text) is None:
        return None
    return f"not a key. 1 to {MAX_KEY} visible characters."


def queue(text: str) -> str | None:
    """A queue's name or its full path."""
    return None if _QUEUE.fullmatch(text) else "not a queue's name. Letters, digits, '_', '-' and '.'."


def label(text: str) -> str | None:
    """A node label."""
    return None if _LABEL.fullmatch(text) else "not a node label. Letters, digits, '_' and '-'."


def host(text: str) -> str | None:
    """A host name."""
    return None if _HOST.fullmatch(text) else "not a host's name. Letters, digits, '.' and '-'."


def user(text: str) -> str | None:
    """A user's name, or ``*``."""
    return None if _USER.fullmatch(text) else "not a user's name."


def resource(text: str) -> str | None:
    """A resource type of YARN, like ``yarn.io/fpga``."""
    if text in ("memory", "memory-mb", "vcores", "yarn.io/gpu"):
        return "has a key of its own: memory, vcores, gpus."
    return None if _RESOURCE.fullmatch(text) else "not the name of a resource type, like yarn.io/fpga."


def variable(text: str) -> str | None:
    """A variable that a user may set for the user process."""
    if not _ENV.fullmatch(text):
        return "not a variable's name. Letters, digits and '_', not starting with a digit."
    if text.startswith("TONY_") or text in _OURS:
        return "is set by tony itself for every task."
    return None


def variable_value(name: str, value: str) -> str | None:
    """What the kernel could not pass on."""
    if "\0" in value:
        return "holds a NUL character."
    size = len(name) + 1 + len(value.encode("utf-8", "surrogateescape"))
    if size > MAX_ENV_VALUE_BYTES:
        return f"has {size} bytes; one variable may have {MAX_ENV_VALUE_BYTES}. Put it into a file (--files)."
    return None
