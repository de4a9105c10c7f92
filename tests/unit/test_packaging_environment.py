"""The environment archive, made of a virtual environment that exists only as files."""

from __future__ import annotations

import io
import json
import os
import platform
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from tony.errors import UsageError
from tony.packaging.archive import FIXED_TIME_S, Archive
from tony.packaging.environment import inspect_environment, pack_environment

SITE = "lib/python3.11/site-packages"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONY_CACHE_DIR", str(tmp_path / "cache"))


def make_environment(folder: Path, base: Path) -> Path:
    """A virtual environment as `python -m venv` lays it out, with one package `pkg`."""
    base.mkdir(parents=True, exist_ok=True)
    interpreter = base / "python3.11"
    interpreter.write_text("#!/bin/true")
    interpreter.chmod(0o755)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python3").symlink_to(interpreter)
    (folder / "bin/python").symlink_to("python3")
    (folder / "bin/activate").write_text(f"VIRTUAL_ENV={folder}")
    tool = folder / "bin/tool"
    tool.write_text(f"#!{folder}/bin/python\nprint('tool')\n")
    tool.chmod(0o755)
    (folder / SITE / "pkg").mkdir(parents=True)
    (folder / SITE / "pkg/__init__.py").write_text("x = 1\n")
    (folder / "lib64").symlink_to("lib")
    (folder / "pyvenv.cfg").write_text(
        f"home = {base}\ninclude-system-site-packages = false\nversion = 3.11.2\ncommand = venv {folder}\n"
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "venv", tmp_path / "base")


def contents(archive: Archive) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive.path) as tar:
        return {info.name: info for info in tar}


def text_of(archive: Archive, name: str) -> str:
    with tarfile.open(archive.path) as tar:
        inside = tar.extractfile(name)
        assert inside is not None
        return inside.read().decode()


def compiled(source: Path, tag: str = "cpython-311", flags: int = 0, stale: bool = False) -> Path:
    found = source.stat()
    path = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"MAGI" + struct.pack("<LLL", flags, int(found.st_mtime) - stale, found.st_size) + b"code")
    return path


def test_links_stay_links_and_the_interpreter_stays_outside(environment: Path, tmp_path: Path) -> None:
    packed = contents(pack_environment(environment, tmp_path / "out"))
    assert packed["lib64"].linkname == "lib"
    assert packed["bin/python"].linkname == "python3"
    assert packed["bin/python3"].linkname == str(tmp_path / "base/python3.11")


def test_scripts_find_the_python_beside_them_and_keep_their_execute_bit(environment: Path, tmp_path: Path) -> None:
    archive = pack_environment(environment, tmp_path / "out")
    script = text_of(archive, "bin/tool")
    assert script.startswith("#!/bin/sh\n'''exec' \"$(dirname ") and script.endswith("print('tool')\n")
    assert str(environment) not in script
    assert contents(archive)["bin/tool"].mode == 0o755


def test_nothing_in_the_archive_names_the_machine_it_was_packed_on(environment: Path, tmp_path: Path) -> None:
    archive = pack_environment(environment, tmp_path / "out")
    assert "bin/activate" not in contents(archive)
    assert "command" not in text_of(archive, "pyvenv.cfg") and "version = 3.11.2" in text_of(archive, "pyvenv.cfg")


def test_the_same_environment_elsewhere_gives_the_same_archive(environment: Path, tmp_path: Path) -> None:
    other = make_environment(tmp_path / "other/place", tmp_path / "base")
    os.utime(other / SITE / "pkg/__init__.py", (1, 1))
    assert pack_environment(environment, tmp_path / "a").name == pack_environment(other, tmp_path / "b").name


def test_valid_compiled_files_travel_with_the_archives_time_others_stay(environment: Path, tmp_path: Path) -> None:
    source = environment / SITE / "pkg/__init__.py"
    compiled(source)
    compiled(source, tag="cpython-39")
    other = environment / SITE / "pkg/other.py"
    other.write_text("y = 2")
    compiled(other, stale=True)
    hashed = environment / SITE / "pkg/hashed.py"
    hashed.write_text("z = 3")
    compiled(hashed, flags=1, stale=True)
    archive = pack_environment(environment, tmp_path / "out")
    packed = contents(archive)
    names = {name.rpartition("/")[2] for name in packed if name.endswith(".pyc")}
    assert names == {"__init__.cpython-311.pyc", "hashed.cpython-311.pyc"}
    with tarfile.open(archive.path) as tar:
        inside = tar.extractfile(f"{SITE}/pkg/__pycache__/__init__.cpython-311.pyc")
        assert inside is not None
        assert struct.unpack("<4sLLL4s", inside.read()) == (b"MAGI", 0, FIXED_TIME_S, source.stat().st_size, b"code")
    assert packed[f"{SITE}/pkg/__init__.py"].mtime == FIXED_TIME_S


def test_an_unchanged_environment_is_found_without_reading_it(environment: Path, tmp_path: Path) -> None:
    first = pack_environment(environment, tmp_path / "out")
    compiled(environment / SITE / "pkg/__init__.py")
    (environment / SITE / "pkg/__init__.py").chmod(0)
    assert pack_environment(environment, tmp_path / "out") == first


def test_a_changed_or_added_file_packs_it_again(environment: Path, tmp_path: Path) -> None:
    first = pack_environment(environment, tmp_path / "out")
    (environment / SITE / "pkg/more.py").write_text("m = 1")
    second = pack_environment(environment, tmp_path / "out")
    (environment / SITE / "pkg/more.py").write_text("m = 2")
    assert len({first.name, second.name, pack_environment(environment, tmp_path / "out").name}) == 3


def test_a_lost_archive_is_packed_again(environment: Path, tmp_path: Path) -> None:
    first = pack_environment(environment, tmp_path / "out")
    first.path.unlink()
    assert pack_environment(environment, tmp_path / "out").path.exists()


def test_files_linked_in_from_an_installers_cache_are_copied(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "wheel.py").write_text("w = 1")
    (environment / SITE / "wheel.py").symlink_to(tmp_path / "wheel.py")
    assert text_of(pack_environment(environment, tmp_path / "out"), f"{SITE}/wheel.py") == "w = 1"


def test_a_folder_linked_in_from_outside_is_refused(environment: Path, tmp_path: Path) -> None:
    (environment / SITE / "data").symlink_to(tmp_path / "base")
    with pytest.raises(UsageError, match="outside of the environment"):
        pack_environment(environment, tmp_path / "out")


def test_patterns_leave_parts_out(environment: Path, tmp_path: Path) -> None:
    (environment / SITE / "tensorflow/include").mkdir(parents=True)
    (environment / SITE / "tensorflow/include/a.h").write_text("")
    packed = contents(pack_environment(environment, tmp_path / "out", exclude=["**/tensorflow/include"]))
    assert not any("include" in name for name in packed)


def editable(environment: Path, name: str, project: Path) -> None:
    record = environment / SITE / f"{name}-1.0.dist-info/direct_url.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"url": f"file://{project}", "dir_info": {"editable": True}}))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    for name in ("src/mine/__init__.py", "src/mine/data.txt", "src/tests/test_x.py", "src/setup.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_path_style_editable_comes_along(environment: Path, project: Path, tmp_path: Path) -> None:
    editable(environment, "mine", project)
    (environment / SITE / "__editable__.mine-1.0.pth").write_text(f"{project}/src\n")
    archive = pack_environment(environment, tmp_path / "out")
    packed = contents(archive)
    assert f"{SITE}/mine/__init__.py" in packed and f"{SITE}/mine/data.txt" in packed
    assert f"{SITE}/tests/test_x.py" not in packed and f"{SITE}/setup.py" not in packed
    assert text_of(archive, f"{SITE}/__editable__.mine-1.0.pth") == ""
    (project / "src/mine/data.txt").write_text("changed")
    assert pack_environment(environment, tmp_path / "out").name != archive.name


def test_finder_style_editable_comes_along(environment: Path, project: Path, tmp_path: Path) -> None:
    editable(environment, "mine", project)
    finder = "__editable___mine_1_0_finder"
    (environment / SITE / f"{finder}.py").write_text(
        f"MAPPING: dict[str, str] = {{'mine': {str(project / 'src/mine')!r}}}\nNAMESPACES = {{}}\n"
    )
    (environment / SITE / "__editable__.mine-1.0.pth").write_text(f"import {finder}; {finder}.install()")
    packed = contents(pack_environment(environment, tmp_path / "out"))
    assert f"{SITE}/mine/__init__.py" in packed
    assert f"{SITE}/{finder}.py" not in packed and f"{SITE}/__editable__.mine-1.0.pth" not in packed
    notes = inspect_environment(environment).notes
    assert any("mine is installed editable" in note for note in notes)


def test_editable_of_an_unknown_style_is_refused_by_name(environment: Path, project: Path, tmp_path: Path) -> None:
    editable(environment, "compiled_thing", project)
    (environment / SITE / "_compiled_thing_loader.pth").write_text("import _compiled_thing_loader")
    with pytest.raises(UsageError, match="compiled-thing") as caught:
        pack_environment(environment, tmp_path / "out")
    assert "without -e" in (caught.value.problems[0].hint or "")
    assert inspect_environment(environment).problems == caught.value.problems


def test_a_folder_without_pyvenv_cfg_is_no_environment(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pyvenv\.cfg"):
        pack_environment(tmp_path, tmp_path / "out")
    assert "pyvenv.cfg" in inspect_environment(tmp_path).problems[0].message


def test_report_of_a_folder_names_what_nodes_must_have(environment: Path, tmp_path: Path) -> None:
    report = inspect_environment(environment)
    assert (report.python, report.interpreter, report.problems) == ("3.11", "bin/python", ())
    assert report.base == str(tmp_path / "base/python3.11")


def test_report_of_an_environment_whose_interpreter_is_gone(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "base/python3.11").unlink()
    assert "does not exist" in inspect_environment(environment).problems[0].message


def test_our_own_archive_is_without_problems(environment: Path, tmp_path: Path) -> None:
    report = inspect_environment(pack_environment(environment, tmp_path / "out").path)
    assert (report.kind, report.python, report.interpreter) == (".tar.gz", "3.11", "bin/python")
    assert report.base == str(tmp_path / "base/python3.11") and report.problems == ()


def foreign_tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(44)


def test_conda_style_archive_with_its_own_interpreter_needs_nothing_of_the_nodes(tmp_path: Path) -> None:
    files = {"bin/python3.11": elf(62), "lib/python3.11/os.py": b"", "conda-meta/history": b""}
    report = inspect_environment(foreign_tar(tmp_path / "e.tar.gz", files, {"bin/python": "python3.11"}))
    assert (report.base, report.python, report.problems) == (None, "3.11", ())


def test_environment_one_folder_down_is_found(tmp_path: Path) -> None:
    files = {"venv/pyvenv.cfg": b"home = /usr/bin\nversion = 3.9.1\n"}
    report = inspect_environment(foreign_tar(tmp_path / "e.tgz", files, {"venv/bin/python": "/usr/bin/python3.9"}))
    assert (report.interpreter, report.python, report.base) == ("venv/bin/python", "3.9", "/usr/bin/python3.9")
    assert report.problems == ()


@pytest.mark.parametrize(
    ("files", "links", "said"),
    [
        ({"lib/x.py": b""}, {}, "no bin/python"),
        ({"bin/python": b"python3.11"}, {}, "10 bytes of text"),
        ({}, {"bin/python": "python3"}, "is not in it"),
        ({"bin/python": elf(62), "lib/x.so": elf(183)}, {}, "another kind of machine"),
        ({"bin/python": elf(62), "lib/x.so": b"\xcf\xfa\xed\xfe"}, {}, "macOS"),
        (
            {
                "bin/python": elf(62),
                f"{SITE}/mine-1.dist-info/direct_url.json": b'{"url": "file:///x", "dir_info": {"editable": true}}',
            },
            {},
            "mine installed editable",
        ),
        ({"bin/python": elf(62), "../x": b""}, {}, "climbs out"),
    ],
)
def test_archives_that_would_not_run_are_refused_with_the_reason(
    tmp_path: Path, files: dict[str, bytes], links: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    report = inspect_environment(foreign_tar(tmp_path / "e.tar.gz", files, links))
    assert any(said in problem.message for problem in report.problems), report.problems
    assert all(problem.key == "venv" for problem in report.problems)


def test_zip_with_stored_links_is_fine_because_we_unpack_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        info = zipfile.ZipInfo("bin/python")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/usr/bin/python3.11")
        archive.writestr("pyvenv.cfg", "home = /usr/bin\nversion = 3.11.2\n")
    report = inspect_environment(tmp_path / "e.zip")
    assert report.problems == () and report.base == "/usr/bin/python3.11"
    assert any("restores its links" in note for note in report.notes)


def test_packages_of_the_base_are_warned_about(environment: Path) -> None:
    settings = environment / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("= false", "= true"))
    assert any("base Python" in warning for warning in inspect_environment(environment).warnings)


def test_an_archive_is_read_through_once_for_each_version_of_it(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack_environment(environment, tmp_path / "out")
    first = inspect_environment(archive.path)
    monkeypatch.setattr(
        "tony.packaging.environment_report.inspect_archive", lambda *_, **__: pytest.fail("read again")
    )
    assert inspect_environment(archive.path) == first


def test_packages_that_were_never_compiled_are_warned_about_with_the_command(environment: Path) -> None:
    for number in range(12):
        source = environment / SITE / f"p{number}/__init__.py"
        source.parent.mkdir()
        source.write_text("")
    warning = inspect_environment(environment).warnings[0]
    assert "13 of 13 packages" in warning and "compileall" in warning
    for number in range(12):
        compiled(environment / SITE / f"p{number}/__init__.py")
    assert inspect_environment(environment).warnings == ()
