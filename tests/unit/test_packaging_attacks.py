"""Archives that mean harm, one line each, and that none of them passes; and harmless ones that look like it."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tony.errors import PackagingError
from tony.packaging.inspection import Limits
from tony.packaging.safety import inspect_archive

SMALL = Limits(entries=1000, bytes=50_000_000, ratio=100, free_bytes=1_000_000)

Tar = tarfile.TarFile
Zip = zipfile.ZipFile


def add(
    tar: Tar, name: str, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b"", mode: int = 0o644
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, len(data)
    tar.addfile(info, io.BytesIO(data))


def link(tar: Tar, name: str, target: str) -> None:
    add(tar, name, tarfile.SYMTYPE, target)


def tar_file(path: Path, *steps: Callable[[Tar], None]) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for step in steps:
            step(tar)
    return path


def zip_file(path: Path, *steps: Callable[[Zip], None]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for step in steps:
            step(archive)
    return path


def zip_link(archive: Zip, name: str, target: str) -> None:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, target)


def zip_special(archive: Zip, name: str) -> None:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFIFO | 0o644) << 16
    archive.writestr(info, "")


def add_many(tar: Tar) -> None:
    for number in range(1001):
        add(tar, f"f{number}")


def zip_many(archive: Zip) -> None:
    for number in range(1001):
        archive.writestr(f"f{number}", "")


TAR_ATTACKS: list[tuple[str, list[Callable[[Tar], None]], str]] = [
    ("climbs out", [lambda t: add(t, "../../.ssh/authorized_keys")], r"climbs out"),
    ("climbs out inside", [lambda t: add(t, "a/../../x")], r"climbs out"),
    ("absolute name", [lambda t: add(t, "/etc/cron.d/x")], r"absolute name"),
    ("link to the root, then through it", [lambda t: link(t, "a", "/"), lambda t: add(t, "a/etc/x")], r"lies behind"),
    ("link out", [lambda t: link(t, "a/b", "../../x")], r"leads out"),
    ("absolute link", [lambda t: link(t, "a", "/etc/passwd")], r"leads out"),
    (
        "link that only leads out through another one",
        [lambda t: link(t, "here", "."), lambda t: link(t, "a/b", "../here/../x")],
        r"leads out",
    ),
    ("hard link out", [lambda t: add(t, "a", tarfile.LNKTYPE, "../../etc/shadow")], r"hard link that leads out"),
    ("hard link to nothing before", [lambda t: add(t, "a", tarfile.LNKTYPE, "b")], r"no file before it"),
    ("hard link to a link", [lambda t: link(t, "b", "c"), lambda t: add(t, "a", tarfile.LNKTYPE, "b")], r"no file"),
    ("device", [lambda t: add(t, "sda", tarfile.BLKTYPE)], r"device"),
    ("character device", [lambda t: add(t, "null", tarfile.CHRTYPE)], r"device"),
    ("fifo", [lambda t: add(t, "pipe", tarfile.FIFOTYPE)], r"FIFO"),
    ("newline in a name", [lambda t: add(t, "a\nb")], r"control characters"),
    ("escape sequence in a name", [lambda t: add(t, "\x1b]52;c;aGk=\x07")], r"control characters"),
    ("300 bytes of name", [lambda t: add(t, "x" * 300)], r"longer than 255"),
    ("two files of one name", [lambda t: add(t, "a", data=b"1"), lambda t: add(t, "a", data=b"2")], r"there twice"),
    ("file, then link in its place", [lambda t: add(t, "a"), lambda t: link(t, "a", "b")], r"there twice"),
    ("file used as a folder", [lambda t: add(t, "a"), lambda t: add(t, "a/b")], r"lies behind"),
    ("too many entries", [add_many], r"more than 1000 entries"),
    ("a bomb by ratio", [lambda t: add(t, "zeros", data=bytes(2_000_000))], r"100 times its size"),
]


@pytest.mark.parametrize(("steps", "said"), [row[1:] for row in TAR_ATTACKS], ids=[row[0] for row in TAR_ATTACKS])
def test_hostile_tar_is_refused(tmp_path: Path, steps: list[Callable[[Tar], None]], said: str) -> None:
    found = inspect_archive(tar_file(tmp_path / "x.tar.gz", *steps), limits=SMALL)
    text = " ".join(problem.message for problem in found.problems)
    assert found.problems and re.search(said, text), text
    assert text.isprintable()


ZIP_ATTACKS: list[tuple[str, list[Callable[[Zip], None]], str]] = [
    ("climbs out", [lambda z: z.writestr("../../.ssh/authorized_keys", "x")], r"climbs out"),
    ("climbs out the other way", [lambda z: z.writestr("..\\..\\x", "x")], r"climbs out"),
    ("absolute name", [lambda z: z.writestr("/etc/x", "x")], r"absolute name"),
    ("link out", [lambda z: zip_link(z, "a", "../../x")], r"leads out"),
    ("write through a link", [lambda z: zip_link(z, "a", "b"), lambda z: z.writestr("a/x", "")], r"lies behind"),
    ("fifo", [lambda z: zip_special(z, "pipe")], r"FIFO"),
    ("control characters", [lambda z: z.writestr("a\x1b[2Jb", "x")], r"control characters"),
    ("bomb by ratio", [lambda z: z.writestr("zeros", bytes(5_000_000))], r"100 times its size"),
    ("too many entries", [zip_many], r"more than 1000"),
]


@pytest.mark.parametrize(("steps", "said"), [row[1:] for row in ZIP_ATTACKS], ids=[row[0] for row in ZIP_ATTACKS])
def test_hostile_zip_is_refused(tmp_path: Path, steps: list[Callable[[Zip], None]], said: str) -> None:
    found = inspect_archive(zip_file(tmp_path / "x.zip", *steps), limits=SMALL)
    text = " ".join(problem.message for problem in found.problems)
    assert found.problems and re.search(said, text), text
    assert text.isprintable()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_two_files_of_one_name_is_refused_and_a_repeated_one_only_told(tmp_path: Path) -> None:
    other = zip_file(tmp_path / "a.zip", lambda z: z.writestr("a", "1"), lambda z: z.writestr("a", "2"))
    assert "twice" in inspect_archive(other).problems[0].message
    same = inspect_archive(
        zip_file(tmp_path / "b.zip", lambda z: z.writestr("a", "1"), lambda z: z.writestr("a", "1"))
    )
    assert same.problems == () and "twice" in same.warnings[0]


def test_zip_whose_entries_share_their_bytes_is_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "x.zip", lambda z: z.writestr("a", os.urandom(500)), lambda z: z.writestr("b", "b"))
    raw = bytearray(path.read_bytes())
    second = raw.rfind(b"PK\x01\x02")
    # The directory's second entry is made to start inside the first one.
    struct.pack_into("<L", raw, second + 42, 10)
    path.write_bytes(raw)
    assert "overlap" in inspect_archive(path).problems[0].message


def test_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 8 * 1024**3
    with gzip.open(tmp_path / "x.tar.gz", "wb") as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))
    assert "header of more than" in inspect_archive(tmp_path / "x.tar.gz").problems[0].message


def test_what_hides_behind_the_end_is_found(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "x.tar.gz", lambda t: add(t, "a"))
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        add(tar, "../hidden")
    with path.open("ab") as out:
        out.write(gzip.compress(inner.getvalue()))
    assert "behind its end" in inspect_archive(path).problems[0].message


@pytest.mark.parametrize("keep", [20, 200, -9])
def test_cut_archive_is_called_damaged(tmp_path: Path, keep: int) -> None:
    path = tar_file(tmp_path / "x.tar.gz", lambda t: add(t, "a", data=os.urandom(3000)))
    path.write_bytes(path.read_bytes()[:keep])
    assert "damaged" in inspect_archive(path).problems[0].message


def test_something_else_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(PackagingError, match="no archive"):
        inspect_archive(tmp_path / "x.zip")
    with pytest.raises(PackagingError, match="cannot be read"):
        inspect_archive(tmp_path / "absent.zip")


def test_all_problems_are_told_at_once_and_their_number_is_bounded(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "x.tar.gz", *[lambda t, n=n: add(t, f"../{n}") for n in range(30)])
    problems = inspect_archive(path, key="venv").problems
    assert len(problems) == 21 and problems[-1].message.endswith("10 more problems")
    assert problems[0].key == "venv"


def test_ordinary_archives_pass(tmp_path: Path) -> None:
    steps: list[Callable[[Tar], None]] = [
        lambda t: add(t, "./", tarfile.DIRTYPE),
        lambda t: add(t, "./lib", tarfile.DIRTYPE),
        lambda t: add(t, "./lib/größe.py", data=b"x"),
        lambda t: link(t, "./lib64", "lib"),
        lambda t: link(t, "./lib/up", "../lib/größe.py"),
        lambda t: link(t, "./loop", "loop"),
        lambda t: add(t, "./lib/again", tarfile.LNKTYPE, "./lib/größe.py"),
        lambda t: add(t, "./" + "d/" * 30 + "deep", data=b"1"),
    ]
    found = inspect_archive(tar_file(tmp_path / "x.tar.gz", *steps))
    assert found.problems == () and found.warnings == ()
    assert len(found.contents.entries) == 8


def test_set_user_id_and_case_clashes_are_told(tmp_path: Path) -> None:
    path = tar_file(
        tmp_path / "x.tgz", lambda t: add(t, "su", mode=0o4755), lambda t: add(t, "A"), lambda t: add(t, "a")
    )
    found = inspect_archive(path)
    assert found.problems == ()
    assert any("set-user-id" in text for text in found.warnings) and any("case" in text for text in found.warnings)


def test_only_an_environment_may_link_to_its_interpreter(tmp_path: Path) -> None:
    path = tar_file(
        tmp_path / "x.tar.gz",
        lambda t: link(t, "bin/python3", "/usr/bin/python3.11"),
        lambda t: link(t, "bin/python", "python3"),
    )
    assert inspect_archive(path, environment=True).problems == ()
    assert len(inspect_archive(path).problems) == 2
    sly = tar_file(tmp_path / "y.tar.gz", lambda t: link(t, "bin/pip", "/usr/bin/pip"))
    assert len(inspect_archive(sly, environment=True).problems) == 1
