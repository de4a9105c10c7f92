"""Real environments and the real bundle, packed here, unpacked elsewhere, and run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from executor.launch import unpack_once
from tony.errors import UsageError
from tony.packaging.environment import inspect_environment, pack_environment
from tony.packaging.runtime import build_runtime, launch_file, runtime_path

RUN_S = 60


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=RUN_S, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a package, a script and an editable project, as pip would leave them."""
    folder = tmp_path_factory.mktemp("made") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / "greeting").mkdir()
    (site / "greeting/__init__.py").write_text("TEXT = 'hello from ' + __file__\n")
    project = folder.parent / "project"
    (project / "mine").mkdir(parents=True)
    (project / "mine/__init__.py").write_text("WHERE = __file__\n")
    (site / "mine.pth").write_text(f"{project}\n")
    script = folder / "bin/greet"
    script.write_text(f"#!{folder}/bin/python\nimport greeting; print(greeting.TEXT)\n")
    script.chmod(0o755)
    run(folder / "bin/python", "-m", "compileall", "-q", site / "greeting")
    return folder


def test_a_packed_environment_runs_where_it_is_unpacked(environment: Path, tmp_path: Path) -> None:
    archive = pack_environment(environment, tmp_path / "archives")
    assert inspect_environment(archive.path).problems == ()
    (tmp_path / "node").mkdir()
    there = unpack_once(archive.path, archive.sha256, tmp_path / "node", sha256=archive.sha256)
    hidden = environment.rename(environment.with_name("hidden"))
    try:
        said = run(there / "bin/python", "-c", "import greeting, mine; print(greeting.TEXT, mine.WHERE)")
        assert said.count(str(there)) == 2
        assert str(there) in run(there / "bin/greet", env={"PATH": "/usr/bin:/bin"})
        prefix = run(there / "bin/python", "-c", "import sys; print(sys.prefix)")
        assert prefix == str(there)
    finally:
        hidden.rename(environment)


def test_packed_compiled_files_are_used_on_the_node(environment: Path, tmp_path: Path) -> None:
    archive = pack_environment(environment, tmp_path / "archives")
    (tmp_path / "node").mkdir()
    there = unpack_once(archive.path, archive.sha256, tmp_path / "node")
    said = subprocess.run(
        [str(there / "bin/python"), "-v", "-c", "import greeting"], capture_output=True, text=True, timeout=RUN_S
    )
    assert any("greeting" in line and "matches" in line for line in said.stderr.splitlines()), said.stderr[-2000:]


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def test_the_bundle_is_small_found_again_and_holds_all_that_our_processes_import(
    bundle_folder: Path, tmp_path: Path
) -> None:
    archive = build_runtime(None, bundle_folder)
    started = time.monotonic()
    assert build_runtime(None, bundle_folder) == archive
    assert time.monotonic() - started < 1.0
    assert archive.size < 25_000_000 and archive.entries < 1200
    (tmp_path / "node").mkdir()
    there = unpack_once(archive.path, archive.sha256, tmp_path / "node", sha256=archive.sha256)
    assert sorted(path.name for path in there.iterdir()) == ["BUNDLE", "lib", "user"]
    assert [path.name for path in (there / "user").iterdir()] == ["tony"]
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import grpc, google.protobuf, msgspec, psutil, skein, cryptography.x509, yaml, requests\n"
        "import tony.storage.webhdfs, tony.protocol.appmaster_pb2, appmaster, executor\n"
        "print('\\n'.join(m.__file__ for m in (grpc, msgspec, psutil, skein, yaml, appmaster, executor, tony)))\n"
    )
    base = Path(sys.executable).resolve()
    places = run(base, "-I", "-c", program, there / "lib", there / "user").splitlines()
    assert all(place.startswith(str(there)) for place in places)


def test_the_bundle_of_another_folder_is_the_same(bundle_folder: Path, tmp_path: Path) -> None:
    assert build_runtime(None, tmp_path).name == build_runtime(None, bundle_folder).name


def test_another_python_needs_a_step_that_the_error_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no runtime bundle for Python 3\.99") as caught:
        build_runtime("3.99", tmp_path)
    assert "tony runtime build --python 3.99" in (caught.value.hint or "")


def test_runtime_path_stands_for_the_bundle_and_ends_with_tony_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONY_CACHE_DIR", str(tmp_path))
    path = runtime_path()
    assert [entry.name for entry in Path(path[-1]).iterdir()] == ["tony"]
    assert (Path(path[-1]) / "tony/errors.py").is_file()
    assert any((Path(folder) / "executor/launch.py") == launch_file() for folder in path)
    assert runtime_path() == path
