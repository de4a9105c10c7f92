"""The default file: every key with its default and its meaning, as YAML that changes nothing when it is used."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable

from tony.config.key import Key, Kind
from tony.config.keys import GROUPS, KEYS
from tony.config.rolekeys import ROLE_FLAGS, ROLE_KEYS

_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_./+-]*")

_HEAD = """\
# Every setting of tony with its default. Made from tony/config/keys.py; change that file, not this one.
# Copy what you need into a job file, ~/.config/tony/config.yaml (yours) or /etc/tony/tony-site.yaml (everybody's).
# The first that speaks wins: flag, variable, job file, your file, the site's file, these defaults.
# Sizes and durations need a unit. A line that starts with "# " and a key has no default.
"""


def default_file() -> str:
    """The whole file, with a line end."""
    lines = [_HEAD]
    for group, title in GROUPS.items():
        members = [key for key in KEYS if key.group == group]
        if members:
            lines += ["", f"# {title}"]
            lines += _members(members)
    lines += [
        "",
        "# Keys of a role; tracked unless untracked or sidecar. Roles exist when a job names them.",
        "# roles:",
        "#   NAME:",
    ]
    for key in ROLE_KEYS:
        lines.append(f"#     {key.name}: {as_yaml(key.default)}  # {_about(key)}")
    lines += ["", "# Flags that speak of a role"]
    lines += [f"# {key.flag}: {key.name}, {key.variable}" for key in ROLE_FLAGS]
    return "\n".join(lines) + "\n"


def _members(members: list[Key]) -> Iterable[str]:
    section = ""
    for key in members:
        parent, _, last = key.name.rpartition(".")
        if key.name == "role":
            yield f"# {key.flag}: {key.help}; {key.variable}"
            continue
        if parent != section and parent:
            # A section without any default would be a key without a value.
            empty = all(key.default is None for key in members if key.name.startswith(parent + "."))
            yield f"# {parent}:" if empty else f"{parent}:"
        section = parent
        indent = "  " if parent else ""
        text = f"{indent}{last}: {as_yaml(key.default)}"
        if key.default is None:
            text = f"{indent}# {last}:" if parent else f"# {last}:"
        yield f"{text}  # {_about(key)}"


def _about(key: Key) -> str:
    parts = [key.help]
    if key.kind is Kind.CHOICE:
        parts.append("one of " + ", ".join(key.choices))
    elif key.kind is Kind.INTEGER:
        parts.append(f"{key.low} to {key.high}")
    if key.flag:
        parts.append(f"{key.flag}")
    return "; ".join(parts)


def as_yaml(value: object) -> str:
    """A value on one line, as it may stand in a file; strings are quoted where they must be."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(str(key))}: {as_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(as_yaml(one) for one in value) + "]"
    return str(value)


if __name__ == "__main__":
    sys.stdout.write(default_file())
