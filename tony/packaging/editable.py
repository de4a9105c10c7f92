"""Packages installed with ``pip install -e``: their code lies outside of the environment and must come along.

Two styles exist. A path style ``.pth`` names a folder that is put on the path; a finder style one imports a
module whose MAPPING says which package is where. Both end here as importable names with the place of their code.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tony.errors import Problem

_FINDER = re.compile(r"^import\s+(__editable___\w+_finder)\s*[;]", re.MULTILINE)
_DISTRIBUTION = re.compile(r"[-_.]+")
_MOST_PTH_BYTES = 1024 * 1024
# A task gets the package `tony` from the runtime bundle, of the version that its application master has.
_OURSELVES = "tony-yarn"
# What a project's own folder holds beside its packages.
_NOT_PACKAGES = frozenset(
    {
        "test",
        "tests",
        "doc",
        "docs",
        "example",
        "examples",
        "build",
        "dist",
        "benchmark",
        "benchmarks",
        "node_modules",
    }
)
_NOT_MODULES = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py", "fabfile.py", "manage.py"})


@dataclass
class Editables:
    """`sources`: importable name → its folder or ``.py`` file. `dropped`: names in site-packages that only led
    there. `rewritten`: ``.pth`` files with the lines that stay. `problems`: packages that cannot come along."""

    sources: dict[str, Path] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    rewritten: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def find_editables(site: Path, environment: Path) -> Editables:
    """What the editable installations of a site-packages folder need. Reads small files only."""
    found = Editables()
    projects = dict(_projects(site))
    explained: set[str] = set()
    for pth in sorted(site.glob("*.pth")):
        text = _text(pth)
        finder = _FINDER.search(text)
        if finder is not None:
            name = _finder_project(pth.name)
            explained.add(name)
            _from_finder(site, pth, finder[1], name, found)
        else:
            _from_paths(site, pth, text, environment, projects, explained, found)
    for name, folder in sorted(projects.items()):
        if name not in explained:
            found.problems.append(_impossible(name, f"is installed editable from {folder} in a way of its own"))
    return found


def _projects(site: Path) -> Iterator[tuple[str, Path]]:
    """Editable distributions and the folders of their projects, as pip recorded them."""
    for record in sorted(site.glob("*.dist-info/direct_url.json")):
        try:
            known = json.loads(_text(record))
            editable = bool(known["dir_info"].get("editable"))
            folder = Path(unquote(urlsplit(known["url"]).path))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if editable:
            yield _normal(record.parent.name.split("-")[0]), folder


def _from_finder(site: Path, pth: Path, module: str, name: str, found: Editables) -> None:
    try:
        mapping = _mapping(_text(site / f"{module}.py"))
    except (ValueError, SyntaxError):
        found.problems.append(_impossible(name, f"has a {module}.py that cannot be read"))
        return
    found.dropped |= {pth.name, f"{module}.py"}
    if name == _OURSELVES:
        return
    for package, place in mapping.items():
        path = Path(place)
        if not path.exists():
            path = path.with_name(path.name + ".py")
        if "." in package or not path.exists():
            found.problems.append(_impossible(name, f"maps {package} to {place}, which is no plain package"))
        else:
            _add(package, path, site, name, found)


def _mapping(source: str) -> dict[str, str]:
    """The MAPPING of setuptools' finder. Nothing is executed."""
    for statement in ast.parse(source).body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and target.id == "MAPPING" and isinstance(value, ast.expr):
            mapping = ast.literal_eval(value)
            return {str(package): str(place) for package, place in mapping.items()}
    raise ValueError("no MAPPING")


def _from_paths(
    site: Path,
    pth: Path,
    text: str,
    environment: Path,
    projects: dict[str, Path],
    explained: set[str],
    found: Editables,
) -> None:
    kept = []
    outside = False
    for line in text.splitlines():
        entry = line.strip()
        if not entry or entry.startswith(("#", "import ", "import\t")):
            kept.append(line)
            continue
        folder = Path(os.path.normpath(site / entry))
        if folder.is_relative_to(environment) or not folder.is_dir():
            kept.append(line)
            continue
        outside = True
        owners = [name for name, project in projects.items() if folder.is_relative_to(project)]
        explained |= set(owners)
        owner = owners[0] if owners else pth.stem
        packages = list(_packages(folder, site, owner))
        if not packages:
            found.problems.append(_impossible(owner, f"names the folder {folder}, which holds no importable package"))
        for package, path in packages:
            _add(package, path, site, owner, found)
    if outside:
        found.rewritten[pth.name] = "".join(f"{line}\n" for line in kept if line.strip())


def _packages(folder: Path, site: Path, owner: str) -> Iterator[tuple[str, Path]]:
    """The importable names of a folder that stands on the path: those its metadata names, else all that look so."""
    for record in (*site.glob("*.dist-info/top_level.txt"), *folder.glob("*.egg-info/top_level.txt")):
        if _normal(record.parent.name.rsplit(".", 1)[0].split("-")[0]) == owner:
            named = [name for name in _text(record).split() if name.isidentifier()]
            for name in named:
                for path in (folder / name, folder / f"{name}.py"):
                    if path.exists():
                        yield name, path
                        break
            if named:
                return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.isidentifier() and path.name not in _NOT_PACKAGES:
            if (path / "__init__.py").is_file() or any(path.glob("*.py")):
                yield path.name, path
        elif path.suffix == ".py" and path.stem.isidentifier() and path.name not in _NOT_MODULES:
            yield path.stem, path


def _add(package: str, path: Path, site: Path, owner: str, found: Editables) -> None:
    taken = found.sources.get(package)
    if (taken is not None and taken != path) or (site / package).exists() or (site / f"{package}.py").exists():
        found.problems.append(_impossible(owner, f"brings {package}, which is there already"))
    else:
        found.sources[package] = path


def _impossible(name: str, why: str) -> Problem:
    return Problem(
        "venv",
        f"the package {name} {why}; it cannot be packed.",
        value=name,
        hint="Install it without -e, then submit again: pip install --no-deps FOLDER",
    )


def _finder_project(pth: str) -> str:
    """``__editable__.my_project-1.0.pth`` → ``my-project``."""
    return _normal(pth.removeprefix("__editable__.").removesuffix(".pth").split("-")[0])


def _normal(name: str) -> str:
    return _DISTRIBUTION.sub("-", name).lower()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as source:
            return source.read(_MOST_PTH_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
