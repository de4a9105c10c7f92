"""Whether an environment, packed or not, will run on the nodes: what it needs there, and what is wrong with it.

A folder is looked at in a few places only; an archive is read through, once for each version of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tony.errors import PackagingError, Problem
from tony.packaging.editable import find_editables
from tony.packaging.inspection import Entry, EntryKind
from tony.packaging.safety import inspect_archive
from tony.packaging.tree import quoted, site_packages
from tony.paths import cache_dir

_FORMAT = 1
_HEAD_BYTES = 4096
_ELF = b"\x7fELF"
_MACHINES = {3: "i686", 62: "x86_64", 183: "aarch64", 21: "ppc64le", 22: "s390x", 243: "riscv64"}
_FOREIGN_STARTS = {
    b"\xcf\xfa\xed\xfe": "macOS",
    b"\xca\xfe\xba\xbe": "macOS",
    b"\xce\xfa\xed\xfe": "macOS",
    b"MZ\x90\x00": "Windows",
}
_LIBRARY = re.compile(r"\.(?:so(?:\.\d+)*|pyd|dylib|dll)$")
_TAG = re.compile(r"\.cpython-3(\d+)[a-z]*-")
_PYTHON = re.compile(r"python3\.(\d{1,2})")
_VERSION = re.compile(r"3\.(\d{1,2})")
_READ = re.compile(
    r"(?:[^/]+/)?(?:pyvenv\.cfg|bin/[^/]+|lib/python3\.\d+/site-packages/[^/]+(?:\.pth|/direct_url\.json))"
)
_MOST_TOLD = 5
_MOST_HOPS = 10
_MANY_PACKAGES = 10


@dataclass(frozen=True)
class EnvironmentReport:
    """What an environment is. Without problems it can be sent to the nodes.

    `python` is its minor version, like ``3.11``; `interpreter` the path of its Python below the root; `base` the
    interpreter that every node must have, None when it is inside; `home` that interpreter's folder as recorded.
    `machine` is the processor its libraries were built for. `notes` explain; `warnings` deserve a look at submit.
    """

    path: str
    kind: str
    python: str | None = None
    home: str | None = None
    interpreter: str | None = None
    base: str | None = None
    machine: str | None = None
    entries: int = 0
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def inspect_environment(path: Path) -> EnvironmentReport:
    """Look at a virtual environment's folder or at an archive of one. Raises PackagingError when it cannot be read,
    or is neither. Blocks while an archive that it has not seen before is read through."""
    if path.is_dir():
        return _of_folder(path)
    try:
        found = path.stat()
    except OSError as error:
        raise PackagingError(f"{path} cannot be read: {error.strerror or error}") from error
    text = f"{_FORMAT}\0{path.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}"
    key = hashlib.sha256(os.fsencode(text)).hexdigest()
    remembered = cache_dir() / "inspected" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(remembered.read_text("utf-8"))
        problems = tuple(Problem(**problem) for problem in known.pop("problems"))
        warnings, notes = tuple(known.pop("warnings")), tuple(known.pop("notes"))
        return EnvironmentReport(**known, problems=problems, warnings=warnings, notes=notes)
    report = _of_archive(path)
    with suppress(OSError):
        remembered.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = remembered.with_name(f".{key}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(report)), "utf-8")
        partial.replace(remembered)
    return report


def _of_folder(path: Path) -> EnvironmentReport:
    findings = _Findings(str(path))
    settings = _settings(_head(path / "pyvenv.cfg"))
    if not settings:
        findings.problem(
            "is no virtual environment: it has no pyvenv.cfg",
            "Make one: python -m venv FOLDER. A conda environment is given as an archive made by conda-pack.",
        )
        return findings.report("folder")
    sites = site_packages(str(path))
    python = settings.get("version") or settings.get("version_info") or (sites[0] if sites else "")
    interpreter = path / "bin" / "python"
    base = os.path.realpath(interpreter)
    if not interpreter.exists():
        findings.problem(
            f"has a bin/python that leads to {quoted(base)}, which does not exist",
            "The Python it was made with is gone. Make the environment again.",
        )
    elif not os.access(interpreter, os.X_OK):
        findings.problem("has a bin/python that cannot be run", "Make the environment again.")
    if sites:
        editables = find_editables(path / sites[0], path)
        findings.problems += editables.problems
        for name, source in sorted(editables.sources.items()):
            findings.notes.append(f"{name} is installed editable; its code is packed from {source}")
        _uncompiled(path, path / sites[0], findings)
    else:
        findings.warnings.append(f"{path.name} has no site-packages: no package is installed in it")
    _shared_packages(settings, findings)
    return findings.report(
        "folder", python=_minor(_VERSION, python), home=settings.get("home"), interpreter="bin/python", base=base
    )


def _of_archive(path: Path) -> EnvironmentReport:
    inspection = inspect_archive(path, key="venv", environment=True, wanted=_wanted)
    findings = _Findings(path.name)
    findings.problems += inspection.problems
    findings.warnings += inspection.warnings
    contents = inspection.contents
    if contents.broken is not None:
        return findings.report(contents.suffix, entries=len(contents.entries))
    files = {entry.name.removeprefix("./").rstrip("/"): entry for entry in contents.entries}
    top = _top(files)
    if top is None:
        findings.problem(
            "holds no Python environment: there is no bin/python in it, nor below one folder",
            "Pack the environment's folder with: tony pack FOLDER",
        )
        return findings.report(contents.suffix, entries=len(files))
    settings = _settings(files[top + "pyvenv.cfg"].head) if top + "pyvenv.cfg" in files else {}
    interpreter = next(name for name in ("bin/python", "bin/python3") if top + name in files)
    base = _base(files, top, interpreter, settings, findings)
    python = _python(files, top, settings)
    if python is None:
        findings.warnings.append(f"{path.name} does not say which Python it is for")
    if contents.suffix == ".zip" and any(entry.kind is EntryKind.LINK for entry in contents.entries):
        findings.notes.append("tony restores its links on the nodes; YARN itself would make text files of them")
    machine = _libraries(files, python, findings)
    _scripts(files, top, findings)
    _editables(files, findings)
    _shared_packages(settings, findings)
    if top:
        findings.notes.append(f"everything lies in the folder {top}")
    return findings.report(
        contents.suffix,
        python=python,
        home=settings.get("home"),
        interpreter=top + interpreter,
        base=base,
        machine=machine,
        entries=len(files),
    )


class _Findings:
    """Collects what is told about one environment."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def problem(self, what: str, hint: str) -> None:
        self.problems.append(Problem("venv", f"{Path(self._path).name} {what}", value=self._path, hint=hint))

    def report(
        self,
        kind: str,
        python: str | None = None,
        home: str | None = None,
        interpreter: str | None = None,
        base: str | None = None,
        machine: str | None = None,
        entries: int = 0,
    ) -> EnvironmentReport:
        told = tuple(self.problems), tuple(self.warnings), tuple(self.notes)
        return EnvironmentReport(self._path, kind, python, home, interpreter, base, machine, entries, *told)


def _wanted(name: str) -> int:
    plain = name.removeprefix("./")
    if _READ.fullmatch(plain):
        return _HEAD_BYTES
    return 20 if _LIBRARY.search(plain) else 0


def _top(files: Mapping[str, Entry]) -> str | None:
    """``""``, or ``folder/`` when the environment lies one folder down; None when there is no Python."""
    tops = {name.partition("/")[0] + "/" for name in files if "/" in name}
    for top in ("", *sorted(tops)):
        if f"{top}bin/python" in files or f"{top}bin/python3" in files:
            return top
    return None


def _base(
    files: Mapping[str, Entry], top: str, interpreter: str, settings: Mapping[str, str], findings: _Findings
) -> str | None:
    """The interpreter that the nodes need, None when the archive brings it."""
    name = top + interpreter
    entry: Entry | None = None
    for _ in range(_MOST_HOPS):
        entry = files.get(name)
        if entry is None:
            findings.problem(
                f"has a {interpreter} that leads to {quoted(name)}, which is not in it",
                "Pack it again: tony pack FOLDER",
            )
            return None
        if entry.kind is not EntryKind.LINK:
            break
        if entry.target.startswith("/"):
            return entry.target
        name = os.path.normpath(os.path.join(os.path.dirname(name), entry.target))
    assert entry is not None
    if entry.kind is EntryKind.HARD_LINK:
        return None
    if entry.head[:4] == _ELF:
        # A copied launcher of a virtual environment still needs the standard library of its home.
        return f"{settings['home']}/python3" if "home" in settings else None
    if entry.head[:2] == b"#!":
        findings.notes.append(f"{interpreter} is a script")
        return None
    findings.problem(
        f"has a {interpreter} that is {entry.size} bytes of text: the link was lost when it was packed",
        "Pack the folder with: tony pack FOLDER",
    )
    return None


def _python(files: Mapping[str, Entry], top: str, settings: Mapping[str, str]) -> str | None:
    said = _minor(_VERSION, settings.get("version") or settings.get("version_info") or "")
    if said is not None:
        return said
    for name in files:
        if name.startswith(f"{top}lib/python3."):
            return _minor(_PYTHON, name)
    return None


def _libraries(files: Mapping[str, Entry], python: str | None, findings: _Findings) -> str | None:
    """The processor that the compiled libraries are for. One that this machine has not is a problem."""
    foreign: list[str] = []
    other_python: list[str] = []
    machines: set[str] = set()
    here = platform.machine()
    for name, entry in files.items():
        if entry.kind is not EntryKind.FILE or not _LIBRARY.search(name):
            continue
        tag = _TAG.search(name.rpartition("/")[2])
        if tag is not None and python is not None and f"3.{tag[1]}" != python:
            other_python.append(name)
        system = _FOREIGN_STARTS.get(entry.head[:4])
        if system is not None:
            foreign.append(f"{quoted(name)} ({system})")
        elif entry.head[:4] == _ELF and len(entry.head) >= 20:
            machine = _MACHINES.get(int.from_bytes(entry.head[18:20], "little"), "another processor")
            machines.add(machine)
            if machine != here:
                foreign.append(f"{quoted(name)} ({machine})")
    # Some packages carry helpers for every system; a wrong environment has nothing for this one.
    if foreign and here not in machines:
        findings.problem(
            f"was built for another kind of machine: {_some(foreign)}; the nodes should be {here} Linux",
            "Build the environment on a machine like the nodes.",
        )
    elif foreign:
        findings.notes.append(f"some libraries are for other machines: {_some(foreign)}")
    if other_python:
        findings.warnings.append(f"some libraries are not for its Python {python}: {_some(sorted(other_python))}")
    return here if here in machines else next(iter(sorted(machines)), None)


def _scripts(files: Mapping[str, Entry], top: str, findings: _Findings) -> None:
    count = sum(
        entry.head.startswith(b"#!/") and b"/bin/python" in entry.head.partition(b"\n")[0]
        for name, entry in files.items()
        if name.startswith(f"{top}bin/")
    )
    if count:
        findings.notes.append(
            f"{count} scripts in bin start with the path of a Python elsewhere; on nodes use python -m instead"
        )


def _editables(files: Mapping[str, Entry], findings: _Findings) -> None:
    for name, entry in files.items():
        if name.endswith("/direct_url.json"):
            with suppress(ValueError, AttributeError, KeyError):
                known = json.loads(entry.head)
                if known.get("dir_info", {}).get("editable"):
                    package = name.split("/")[-2].split("-")[0]
                    findings.problem(
                        f"has {package} installed editable: its code is not in the archive, but in {known['url']!r}",
                        "Install it without -e and pack again, or give the folder: --venv FOLDER",
                    )
        elif name.endswith(".pth"):
            lines = entry.head.decode("utf-8", "replace").splitlines()
            outside = [line for line in lines if line.startswith("/")]
            if outside:
                findings.warnings.append(
                    f"{name.rpartition('/')[2]} puts {_some([quoted(line) for line in outside])} on the path, "
                    "which nodes may not have"
                )


def _shared_packages(settings: Mapping[str, str], findings: _Findings) -> None:
    if settings.get("include-system-site-packages", "").lower() == "true":
        findings.warnings.append("it uses its base Python's packages too, which are not packed: nodes need them")


def _uncompiled(path: Path, site: Path, findings: _Findings) -> None:
    """Warn when the packages were never compiled, as some installers leave them: nodes may not write their own
    compiled files, so each task would compile anew. Looks at the first file of each package only."""
    packages = [init.parent for init in site.glob("*/__init__.py")]
    without = [package for package in packages if not any((package / "__pycache__").glob("__init__.*.pyc"))]
    if len(packages) >= _MANY_PACKAGES and len(without) > len(packages) / 2:
        findings.warnings.append(
            f"{len(without)} of {len(packages)} packages in {path} have no compiled files: every task will compile "
            f"what it imports (once and for all: {path}/bin/python -m compileall -q {path}/lib)"
        )


def _settings(text: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.decode("utf-8", "replace").splitlines())
    return {key.strip().lower(): value.strip() for key, separator, value in pairs if separator}


def _minor(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return f"3.{match[1]}" if match else None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            return source.read(_HEAD_BYTES)
    except OSError:
        return b""


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_TOLD])
    return shown if len(names) <= _MOST_TOLD else f"{shown} and {len(names) - _MOST_TOLD} more"
