"""``--secret NAME[=FILE]``: values that never stand in a command line, a log or the history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tony.config import names
from tony.config.layers import Given, Settings

MAX_BYTES = 64 * 1024


def read_secrets(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets by name: from the named file (one trailing line end is dropped), else from this environment."""
    given = settings.get("secrets")
    found: dict[str, str] = {}
    for word in given.value if given else ():
        assert given is not None
        name, separator, file = word.partition("=")
        one = Given(word, name if not separator else f"{name}={file}", given.origin, given.layer, given.folder)
        problem = names.variable(name)
        value = ""
        if problem is None and separator:
            value, problem = _from_file(given.folder / Path(file).expanduser())
        elif problem is None and name not in environ:
            problem = f"the variable {name} is not set here. Export it, or write {name}=FILE."
        elif problem is None:
            value = environ[name]
        problem = problem or names.variable_value(name, value)
        if problem:
            settings.problem("secrets", problem, given=one)
        found[name] = value
    return found


def _from_file(path: Path) -> tuple[str, str | None]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror}."
    if len(raw) > MAX_BYTES:
        return "", f"the file has more than {MAX_BYTES} bytes."
    try:
        return raw.decode("utf-8").removesuffix("\n"), None
    except UnicodeDecodeError:
        return "", "the file is not UTF-8 text."
