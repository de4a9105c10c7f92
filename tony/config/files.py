"""``SRC[::NAME][#archive]``: files for the working directory of the user process."""

from __future__ import annotations

import stat
from pathlib import PurePosixPath

from tony.config import names
from tony.config.layers import Given, Settings
from tony.spec import FileSpec

SCHEMES = ("hdfs", "webhdfs")
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".zip")
_ARCHIVE = "#archive"


def scheme_of(text: str) -> str | None:
    """The scheme of a URL, None for a local path."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else None


def scheme_problem(text: str) -> str | None:
    """Why this URL cannot be read by containers; None for allowed URLs and local paths."""
    scheme = scheme_of(text)
    if scheme is None or scheme in SCHEMES:
        return None
    return f"the scheme {scheme}:// is not allowed. Give a local path or {' or '.join(s + '://' for s in SCHEMES)}."


def without_suffix(name: str) -> str:
    """``data.tar.gz`` → ``data``."""
    for suffix in ARCHIVE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def parse_files(settings: Settings, key: str) -> tuple[FileSpec, ...]:
    """The files of that key, checked; problems go to the settings. Local sources become absolute paths."""
    given = settings.get(key)
    if given is None:
        return ()
    found: dict[str, FileSpec] = {}
    for word in given.value:
        one = Given(word, word, given.origin, given.layer, given.folder)
        spec, problem = _parse(word, one)
        if problem is None and spec is not None and spec.name in found:
            problem = f"two files would be called {spec.name!r} in the working directory."
        if problem is not None:
            settings.problem(key, problem, given=one)
        elif spec is not None:
            found[spec.name] = spec
    return tuple(found.values())


def _parse(word: str, given: Given) -> tuple[FileSpec | None, str | None]:
    archive = word.endswith(_ARCHIVE)
    text = word[: -len(_ARCHIVE)] if archive else word
    source, separator, name = text.partition("::")
    if not source or (separator and not name):
        return None, "must be written SRC[::NAME][#archive]."
    problem = scheme_problem(source)
    if problem:
        return None, problem
    if not name:
        name = PurePosixPath(source).name
        name = without_suffix(name) if archive else name
    problem = target_problem(name)
    if problem:
        return None, problem
    if scheme_of(source) is None:
        path = given.folder / source
        try:
            mode = path.stat().st_mode
        except OSError as error:
            return None, f"cannot be read: {error.strerror}."
        if archive and not stat.S_ISREG(mode):
            return None, "an archive must be a file."
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return None, "is neither a file nor a folder."
        source = str(path)
    if archive and not PurePosixPath(source).name.lower().endswith(ARCHIVE_SUFFIXES):
        return None, f"an archive must end in {', '.join(ARCHIVE_SUFFIXES)}."
    return FileSpec(source, name, archive), None


def target_problem(name: str) -> str | None:
    """Why this cannot be a path below the working directory."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts == (".",):
        return f"{name!r} does not lie below the working directory."
    if names.unprintable(name) or any(len(part.encode()) > 255 for part in path.parts):
        return "the name holds an invisible character or a part of more than 255 bytes."
    return None
