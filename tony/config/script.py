"""Where the user's code is, and the argv that each role runs in it."""

from __future__ import annotations

import difflib
import stat
from dataclasses import dataclass
from pathlib import Path

from tony.config.layers import Given, Layer, Settings
from tony.errors import Problem
from tony.spec import RoleSpec


@dataclass(frozen=True)
class Code:
    """The folder that becomes the source archive (None: no source), and the command of roles without their own.

    `title` is the stem of the script, for naming the job.
    """

    source: str | None
    command: tuple[str, ...]
    title: str = ""


def code_of(settings: Settings, folder: Path) -> Code:
    """Find the source folder; problems go to the settings."""
    command = settings.get("command")
    words: tuple[str, ...] = command.value if command else ()
    title = Path(words[0]).stem if words and words[0] else ""
    if command is not None and (not words or not words[0]):
        settings.problem("command", "is empty.")
    elif command is not None and command.layer is not Layer.JOB and words[0].endswith((".yaml", ".yml")):
        settings.problem("command", "looks like a job file.", f"A job file goes behind -f: -f {words[0]}")
    src = settings.get("src")
    if src is not None and src.value == "none":
        return Code(None, words, title)
    if src is not None and src.value != "auto":
        source = _folder(settings, src)
    elif command is not None and command.layer is not Layer.JOB and words and words[0]:
        source = _script_folder(command, words[0])
    elif settings.job_file is not None:
        source = settings.job_file.absolute().parent
    else:
        source = None
    if command is not None and command.layer is not Layer.JOB and source is not None:
        words = _relative(settings, command, words, source)
    return Code(str(source) if source is not None else None, words, title)


def command_for(settings: Settings, code: Code, role: RoleSpec) -> tuple[str, ...]:
    """The role's argv. A ``.py`` must exist below the source; a program that lies there is called ``./program``."""
    own = bool(role.command)
    key = f"roles.{role.name}.command" if own else "command"
    words = role.command or code.command
    if not words:
        if settings.job_file is None and settings.get("command") is None and not own:
            problem = Problem(
                "command", "no script was given.", hint="tony submit [FLAGS] SCRIPT -- ARGS, or -f job.yaml"
            )
        else:
            problem = Problem(
                f"roles.{role.name}", "has no command, and the job has none for all.", hint="command: [train.py]"
            )
        if problem not in settings.problems:
            settings.problems.append(problem)
        return words
    first = words[0]
    if code.source is None:
        if first.endswith(".py") and not first.startswith("/"):
            _missing(settings, key, first, None)
        return words
    path = Path(code.source) / first
    if first.endswith(".py"):
        # An absolute path elsewhere is one of the nodes.
        if path.is_relative_to(code.source) and not path.is_file():
            _missing(settings, key, first, Path(code.source))
    elif "/" not in first and path.is_file():
        return (f"./{first}", *words[1:])
    return words


def _folder(settings: Settings, src: Given) -> Path | None:
    path: Path = src.folder / Path(src.value).expanduser()
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        settings.problem("src", f"cannot be read: {error.strerror}.")
        return None
    if not is_folder:
        settings.problem("src", "not a folder.")
        return None
    return path


def _script_folder(command: Given, script: str) -> Path | None:
    """The folder of a script that exists or should; None for a program of the nodes."""
    path = command.folder / script
    return path.parent if path.is_file() or script.endswith(".py") else None


def _relative(settings: Settings, command: Given, words: tuple[str, ...], source: Path) -> tuple[str, ...]:
    """The words with the script's path as seen from the source folder."""
    path = command.folder / words[0]
    if not path.is_file():
        return words
    try:
        inside = path.absolute().relative_to(source.absolute())
    except ValueError:
        try:
            inside = path.resolve().relative_to(source.resolve())
        except ValueError:
            if not (source / words[0]).is_file():
                settings.problem("command", f"the script lies outside of --src {source.name}.")
            return words
    return (str(inside), *words[1:])


def _missing(settings: Settings, key: str, script: str, source: Path | None) -> None:
    given = settings.get(key)
    hint = None
    if source is not None and source.is_dir():
        here = [path.name for path in sorted(source.glob("*.py"))[:1000]]
        near = difflib.get_close_matches(Path(script).name, here, 1)
        hint = f"Did you mean {near[0]!r}?" if near else "The script's path is relative to the source folder."
    elif source is None:
        hint = "There is no source folder. Give --src DIR."
    problem = Problem(key, "no such script.", script, given.origin if given else None, hint)
    if problem not in settings.problems:
        settings.problems.append(problem)
