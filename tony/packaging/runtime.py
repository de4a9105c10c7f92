"""The runtime bundle: what our application master and executors run from on a node, apart from the user's Python.

``lib/`` holds appmaster, executor and the distributions they need, taken from this installation as they are;
``user/`` holds the `tony` package alone, the only thing of ours that a user's process may import. ``BUNDLE`` says
for which Python it is. Sources come with compiled files, so that no container spends its first second compiling.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

import tony
from tony.errors import PackagingError, UsageError
from tony.packaging.archive import Archive, Kind, Member, write_archive
from tony.packaging.built import BuiltArchives
from tony.packaging.tree import NodeKind, walk
from tony.paths import cache_dir

_FORMAT = 1
_LEVEL = 6
_BUNDLED = (
    *("grpcio>=1.62", "protobuf>=4.25,<8", "msgspec>=0.18.6", "psutil>=5.9", "requests>=2.31"),
    *("skein==0.8.2", "cryptography>=42", "PyYAML>=6"),
)
# skein needs distutils, which setuptools brings back for the Pythons that have lost it.
_BUNDLED_FROM_3_12 = ("setuptools>=68",)
_OURS = ("appmaster", "executor")
# The client's own rooms; and skein's Java part, which the submit driver takes from the client's installation.
_LEFT_OUT_OF_TONY = ("_runtime", "cli", "localcluster", "packaging")
_LEFT_OUT_FILES = ("skein/java/skein.jar",)
_LEFT_OUT_FOLDERS = frozenset({"__pycache__", "tests", "test", "_test", "share", "man"})
_LEFT_OUT_SUFFIXES = (".pyc", ".pyo", ".pyi", ".pyx", ".pxd", ".c", ".h", ".cpp", ".pth", ".exe")
_KEPT_OF_METADATA = ("METADATA", "entry_points.txt")
_COMPILE_S = 300.0
_INSTALL_S = 1800.0
_MINOR = re.compile(r"3\.\d{1,2}")


def this_python() -> str:
    """The minor version of this interpreter, like ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def build_runtime(python: str | None, into: Path) -> Archive:
    """The bundle for nodes whose Python is `python` (None: as this one), built below `into` or found there.

    Takes some seconds the first time for each version of ours, then milliseconds. Raises UsageError when the
    bundle for another Python has not been built by `build_foreign_runtime`, and PackagingError when this
    installation is incomplete.
    """
    built = BuiltArchives(into)
    wanted = python or this_python()
    if wanted != this_python():
        known = built.find(_foreign_key(wanted))
        if known is None:
            raise UsageError(
                f"there is no runtime bundle for Python {wanted}; this installation runs on {this_python()}.",
                hint=f"Build it once: tony runtime build --python {wanted}",
            )
        return known.archive
    distributions = _closure(_requirements(wanted))
    key = _own_key(distributions)
    known = built.find(key)
    if known is None:
        members = [*_distribution_members(distributions), *_own_members(), _label(wanted)]
        with tempfile.TemporaryDirectory(prefix="tony-runtime-") as scratch:
            archive = write_archive([*members, *_compiled(members, Path(scratch))], into, _LEVEL)
        built.remember(key, archive)
        return archive
    return known.archive


def build_foreign_runtime(python: str, into: Path) -> Archive:
    """Build the bundle for another minor version of Python, with distributions from the package index.

    Runs pip, or uv where there is no pip, and takes as long as the download. Raises UsageError for something that
    is no version, PackagingError with the installer's last lines when it fails.
    """
    if _MINOR.fullmatch(python) is None or int(python.partition(".")[2]) < 10:
        raise UsageError(f"{python!r} is not a Python that tony runs on. Write a minor version from 3.10 on.")
    if python == this_python():
        return build_runtime(None, into)
    with tempfile.TemporaryDirectory(prefix="tony-runtime-") as scratch:
        target = Path(scratch) / "lib"
        _install(python, target)
        members = [
            Member(f"lib/{node.name}", Kind.FILE, node.path, executable=node.executable, size=node.size)
            for node in walk(str(target))
            if node.kind is NodeKind.FILE and _kept(PurePosixPath(node.name))
        ]
        archive = write_archive([*members, *_own_members(), _label(python)], into, _LEVEL)
    BuiltArchives(into).remember(_foreign_key(python), archive)
    return archive


def launch_file() -> Path:
    """The one file that starts everything of ours on a node."""
    return _own_root() / "executor" / "launch.py"


def runtime_path() -> list[str]:
    """Folders that stand for the bundle on this machine: those of ``lib``, and last the one of ``user``.

    The last one holds a link to the `tony` package and nothing else.
    """
    package = Path(tony.__file__).parent
    mark = hashlib.sha256(os.fsencode(package)).hexdigest()[:16]
    user = cache_dir() / "user" / mark
    link = user / "tony"
    if not link.exists():
        user.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = user / f".tony.{os.getpid()}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(package)
        partial.replace(link)
    installed = [str(distribution.locate_file("")) for distribution in _closure(_requirements(this_python()))]
    return list(dict.fromkeys([str(_own_root()), str(package.parent), *installed, str(user)]))


def _own_root() -> Path:
    """The folder of the packages appmaster and executor: inside `tony` when installed, beside it in a checkout."""
    package = Path(tony.__file__).absolute().parent
    for root in (package / "_runtime", package.parent):
        if (root / "executor" / "launch.py").is_file():
            return root
    raise PackagingError(
        f"the installation of tony in {package} lacks its executor", hint="Install it again: pip install tony-yarn"
    )


def _requirements(python: str) -> tuple[str, ...]:
    minor = int(python.partition(".")[2])
    return _BUNDLED + (_BUNDLED_FROM_3_12 if minor >= 12 else ())


def _closure(requirements: tuple[str, ...]) -> list[Distribution]:
    """The installed distributions that satisfy the requirements, with all that they require, by name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(requirement.name)
        except PackageNotFoundError as error:
            raise PackagingError(
                f"the distribution {requirement.name} is not installed beside tony",
                hint="Install tony again: pip install --force-reinstall tony-yarn",
            ) from error
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed)
    return [found[name] for name in sorted(found)]


def _distribution_members(distributions: list[Distribution]) -> Iterator[Member]:
    for distribution in distributions:
        files = distribution.files
        if not files:
            raise PackagingError(
                f"the installation of {distribution.metadata['Name']} does not list its files",
                hint="It was not installed by pip; use tony from a virtual environment of its own.",
            )
        for file in files:
            if _kept(file):
                source = Path(os.fspath(file.locate()))
                yield Member(f"lib/{file.as_posix()}", Kind.FILE, source, size=file.size or 0)


def _kept(file: PurePosixPath) -> bool:
    if file.parts[0] in ("..", "bin") or file.is_absolute() or file.as_posix() in _LEFT_OUT_FILES:
        return False
    if file.parts[0].endswith(".dist-info"):
        return file.name in _KEPT_OF_METADATA
    return not (_LEFT_OUT_FOLDERS & set(file.parts[:-1]) or file.name.endswith(_LEFT_OUT_SUFFIXES))


def _label(python: str) -> Member:
    text = json.dumps({"python": python, "version": tony.__version__})
    return Member("BUNDLE", Kind.FILE, data=text.encode(), size=len(text))


def _own_members() -> Iterator[Member]:
    root = _own_root()
    for name in _OURS:
        yield from _package_members(root / name, f"lib/{name}")
    yield from _package_members(Path(tony.__file__).parent, "user/tony", _LEFT_OUT_OF_TONY)


def _package_members(folder: Path, prefix: str, left_out: tuple[str, ...] = ()) -> Iterator[Member]:
    def skip(name: str, is_folder: bool) -> bool:
        return name in left_out or (is_folder and os.path.basename(name) == "__pycache__")

    for node in walk(str(folder), skip):
        if node.kind is NodeKind.FILE and not node.name.endswith((".pyc", ".pyi")):
            yield Member(f"{prefix}/{node.name}", Kind.FILE, node.path, size=node.size)


def _compiled(members: list[Member], scratch: Path) -> list[Member]:
    """The members' compiled files, which name no time of the source: they stay valid wherever they are unpacked."""
    for member in members:
        if member.name.endswith(".py") and member.source is not None:
            copy = scratch / member.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(member.source, copy)
    # A process of its own, with fixed hashes: the compiler's output depends on what else was loaded before.
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", ".", "."]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": "", "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(command, cwd=scratch, env=environment, capture_output=True, timeout=_COMPILE_S, check=False)
    return [
        Member(node.name, Kind.FILE, data=Path(node.path).read_bytes(), size=node.size)
        for node in walk(str(scratch))
        if node.name.endswith(".pyc")
    ]


def _install(python: str, target: Path) -> None:
    options = ["--target", str(target), "--python-version", python, "--only-binary", ":all:", *_requirements(python)]
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if importlib.util.find_spec("pip") is not None:
        installer = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    elif uv is not None:
        installer = [uv, "pip", "install", "--quiet"]
    else:
        raise PackagingError(
            f"building a bundle for Python {python} needs pip or uv", hint="python -m ensurepip, or pip install uv"
        )
    try:
        done = subprocess.run([*installer, *options], capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PackagingError(f"installing for Python {python} took longer than {_INSTALL_S / 60:.0f} min") from error
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise PackagingError(f"the distributions for Python {python} could not be installed:\n{tail}")


def _own_key(distributions: list[Distribution]) -> str:
    known = [
        (distribution.metadata["Name"], distribution.version, distribution.read_text("RECORD") or "")
        for distribution in distributions
    ]
    return _key("own", this_python(), importlib.util.MAGIC_NUMBER.hex(), known)


def _foreign_key(python: str) -> str:
    return _key("foreign", python, _requirements(python))


def _key(*parts: object) -> str:
    own = [(member.name, member.size, os.stat(member.source or "").st_mtime_ns) for member in _own_members()]
    text = json.dumps([_FORMAT, tony.__version__, sysconfig.get_platform(), platform.libc_ver(), own, *parts])
    return "runtime-" + hashlib.sha256(text.encode()).hexdigest()
