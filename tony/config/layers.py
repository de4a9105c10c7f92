"""The layers of settings: flags, variables, job file, user's file, site's file, defaults; the first that speaks wins.

Each value keeps its origin, for messages and for ``tony config show --origin``. Nothing here decides what a job is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from tony.config import keys, rolekeys, values
from tony.config.key import Key, Kind
from tony.config.nodes import Node, Scalar, Table, table_of, written
from tony.errors import Problem
from tony.paths import config_file

SITE_FILE = Path("/etc/tony/tony-site.yaml")
COMMAND_LINE = "on the command line"


class Layer(IntEnum):
    """Where a value came from; the smaller one wins."""

    FLAG = 0
    SET = 1
    VARIABLE = 2
    JOB = 3
    USER = 4
    SITE = 5
    DEFAULT = 6


@dataclass(frozen=True)
class Given:
    """A value, how it was written, where; relative paths in it start at `folder`."""

    value: Any
    text: str
    origin: str
    layer: Layer
    folder: Path


@dataclass(frozen=True)
class Request:
    """What a command was called with. `flags` are texts by key name; `sets` the ``-c key=value`` words.

    `arguments` follow the `script`; without one they are added to the command of the job file. `job_document` is
    what stands in the job file where it was not read from there: its text, or plain values. Relative paths in it
    start at the file's folder all the same. `caller` is what messages say of flags and `sets`.
    """

    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sets: Sequence[str] = ()
    job_file: Path | None = None
    job_document: str | Mapping[str, Any] | None = None
    script: str | None = None
    arguments: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    folder: Path = field(default_factory=Path.cwd)
    user_file: Path | None = None
    caller: str = COMMAND_LINE


class Settings:
    """All layers together. `problems` collects what is wrong with single values."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._given: dict[str, list[Given]] = {}
        self.job_file: Path | None = None

    def add(self, name: str, given: Given) -> None:
        """Put a value into its layer; a later one of the same layer replaces an earlier."""
        held = self._given.setdefault(name, [])
        held[:] = sorted([old for old in held if old.layer != given.layer] + [given], key=lambda one: one.layer)

    def get(self, name: str) -> Given | None:
        """The winning value, None when no layer has one (defaults are not stored)."""
        held = self._given.get(name)
        return held[0] if held else None

    def merged(self, name: str) -> dict[str, Given]:
        """A map's entries, each from the first layer that has it."""
        entries: dict[str, Given] = {}
        for given in reversed(self._given.get(name, [])):
            for entry, value in given.value.items():
                entries[entry] = Given(value, str(value), given.origin, given.layer, given.folder)
        return entries

    def names(self) -> list[str]:
        """Every key that some layer sets, in the order in which they were met."""
        return list(self._given)

    def layers(self, name: str) -> list[Given]:
        """All values of a key, the winner first."""
        return list(self._given.get(name, []))

    def value(self, name: str) -> Any:
        """The winning value, else the parsed default, else None."""
        given = self.get(name)
        if given is not None:
            return given.value
        key = keys.find(name)
        assert key is not None, name
        return default_of(key)

    def problem(self, name: str, message: str, hint: str | None = None, given: Given | None = None) -> None:
        """Remember that this key's value is wrong."""
        given = given or self.get(name)
        shown = given.text if given else None
        self.problems.append(Problem(name, message, shown, given.origin if given else None, hint))


def clusters_of(settings: Settings) -> dict[str, dict[str, str]]:
    """The clusters by name; each with the job's own `storage` and `node_python` where its entry has none."""
    shared = {key: settings.value(key) for key in ("storage", "node_python") if settings.value(key)}
    return {name: shared | dict(given.value) for name, given in reversed(settings.merged("clusters").items())}


def default_of(key: Key) -> Any:
    """The default as a typed value; None when the key has none."""
    if key.default is None:
        return None
    if isinstance(key.default, str):
        return values.parse(key, Scalar(key.default)) if key.kind is not Kind.TEXT else key.default
    return dict(key.default) if isinstance(key.default, dict) else key.default


def gather(request: Request) -> Settings:
    """Read every layer of the request. What is wrong with single values lands in `Settings.problems`.

    Raises UsageError when a file cannot be read as YAML at all.
    """
    settings = Settings()
    _flags(settings, request)
    _sets(settings, request)
    _variables(settings, request)
    if request.job_file is not None:
        settings.job_file = request.folder / request.job_file
        _file(settings, settings.job_file, request.job_file.name, Layer.JOB, request.job_document)
    user_file = request.user_file or config_file()
    if request.user_file is not None or user_file.is_file():
        _file(settings, user_file, str(user_file), Layer.USER)
    site = Path(request.environ.get("TONY_SITE") or SITE_FILE)
    if request.environ.get("TONY_SITE") or site.is_file():
        _file(settings, site, str(site), Layer.SITE)
    if request.script is None and request.arguments:
        _more_arguments(settings, request)
    return settings


def _more_arguments(settings: Settings, request: Request) -> None:
    command = settings.get("command")
    if command is None:
        shown = _short(" ".join(request.arguments))
        message = "arguments were given, but the job file has no command for all roles to add them to."
        settings.problems.append(Problem("command", message, shown, request.caller))
        return
    words = (*command.value, *request.arguments)
    settings.add("command", Given(words, " ".join(words), command.origin, command.layer, command.folder))


def _flags(settings: Settings, request: Request) -> None:
    by_name = {key.name: key for key in (*keys.KEYS, *rolekeys.ROLE_FLAGS)}
    for name, texts in request.flags.items():
        key = by_name[name]
        _texts(settings, key, tuple(texts), f"{key.flag} {request.caller}", Layer.FLAG, request.folder)
    if request.script is not None:
        words = (request.script, *request.arguments)
        shown = " ".join(words)
        settings.add("command", Given(words, shown, request.caller, Layer.FLAG, request.folder))


def _sets(settings: Settings, request: Request) -> None:
    origin = f"-c {request.caller}"
    for word in request.sets:
        name, separator, text = word.partition("=")
        key = keys.find(name)
        if not separator:
            settings.problems.append(Problem(word, "must be written key=value.", None, origin))
        elif key is None:
            settings.problems.append(_unknown(name, text, origin))
        else:
            _texts(settings, key, (text,), origin, Layer.SET, request.folder)


def _variables(settings: Settings, request: Request) -> None:
    if "TONY_APPLICATION_ID" in request.environ:
        return  # inside a job these names describe that job, not the one being made
    for key in (*keys.KEYS, *rolekeys.ROLE_FLAGS):
        text = request.environ.get(key.variable)
        if text and not key.name.startswith("clusters"):
            _texts(settings, key, (text,), key.variable, Layer.VARIABLE, request.folder)


def _texts(settings: Settings, key: Key, texts: tuple[str, ...], origin: str, layer: Layer, folder: Path) -> None:
    shown = " ".join(texts)
    try:
        value = values.parse(key, values.node_of(key, texts, origin))
    except ValueError as error:
        settings.problems.append(Problem(key.name, str(error), _short(shown), origin))
        return
    settings.add(key.name, Given(value, shown, origin, layer, folder))


def _file(
    settings: Settings, path: Path, called: str, layer: Layer, document: str | Mapping[str, Any] | None = None
) -> None:
    # PyYAML is loaded only by those who have a file.
    from tony.config.load import read_file, read_table

    if document is None:
        table = read_file(path)
    else:
        table = read_table(document, called) if isinstance(document, str) else table_of(document)
    _walk(settings, table, "", called, layer, path.parent.absolute())


def _walk(settings: Settings, table: Table, prefix: str, called: str, layer: Layer, folder: Path) -> None:
    for entry, node in table.entries.items():
        name = prefix + entry
        origin = _origin(called, node)
        key = keys.find(name)
        if key is not None:
            _node(settings, key, node, origin, layer, folder)
        elif keys.is_section(name) and "." not in entry:
            _section(settings, name, node, called, layer, folder)
        else:
            settings.problems.append(_unknown(name, written(node), origin))


def _section(settings: Settings, name: str, node: Node, called: str, layer: Layer, folder: Path) -> None:
    if isinstance(node, Scalar) and node.null and name.startswith("roles."):
        node = Table({}, node.line)
    if not isinstance(node, Table):
        problem = Problem(name, "must be a map of keys and values.", written(node), _origin(called, node))
        settings.problems.append(problem)
        return
    if name.startswith("roles."):
        origin = _origin(called, node)
        settings.add(name, Given(name.partition(".")[2], written(node), origin, layer, folder))
    _walk(settings, node, name + ".", called, layer, folder)


def _node(settings: Settings, key: Key, node: Node, origin: str, layer: Layer, folder: Path) -> None:
    try:
        value = values.parse(key, node)
    except ValueError as error:
        settings.problems.append(Problem(key.name, str(error), written(node), origin))
        return
    settings.add(key.name, Given(value, written(node), origin, layer, folder))


def _origin(called: str, node: Node) -> str:
    return f"{called}:{node.line}" if node.line else called


def _unknown(name: str, text: str, origin: str) -> Problem:
    near = keys.nearest(name)
    hint = f"Did you mean {near!r}?" if near else "tony config show lists every key."
    return Problem(name, "no such key.", _short(text), origin, hint)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def files_used(request: Request) -> list[tuple[str, Path, bool]]:
    """The files of settings that would be read: what they are called, where, and whether they exist."""
    user_file = request.user_file or config_file()
    site = Path(request.environ.get("TONY_SITE") or SITE_FILE)
    return [("user", user_file, user_file.is_file()), ("site", site, site.is_file())]
