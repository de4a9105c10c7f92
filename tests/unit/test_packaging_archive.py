"""Deterministic archives: what they hold, and that nothing but their contents shapes their bytes."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import tarfile
from pathlib import Path

import pytest

from tony.errors import PackagingError
from tony.packaging.archive import FIXED_TIME_S, Kind, Member, archive_suffix, existing_archive, write_archive


def members_of(folder: Path) -> list[Member]:
    return [
        Member(path.relative_to(folder).as_posix(), source=path, executable=os.access(path, os.X_OK))
        for path in folder.rglob("*")
        if path.is_file()
    ]


def fill(folder: Path, order: list[str]) -> None:
    for name in order:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"contents of {name}")
    (folder / "run.sh").chmod(0o755)


NAMES = ["run.sh", "a/b.py", "a/c.py", "z.txt"]


def test_same_contents_give_same_bytes_whatever_order_times_and_umask(tmp_path: Path) -> None:
    fill(tmp_path / "one", NAMES)
    before = os.umask(0o077)
    try:
        fill(tmp_path / "two", NAMES[::-1])
    finally:
        os.umask(before)
    for path in (tmp_path / "two").rglob("*"):
        os.utime(path, (1e9, 1e9))
    first = write_archive(members_of(tmp_path / "one"), tmp_path / "out1")
    second = write_archive(members_of(tmp_path / "two")[::-1], tmp_path / "out2")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.name == second.name == first.path.name


def test_one_changed_byte_changes_the_name(tmp_path: Path) -> None:
    first = write_archive([Member("a", data=b"1")], tmp_path)
    assert write_archive([Member("a", data=b"2")], tmp_path).sha256 != first.sha256


def test_execute_bit_is_part_of_the_contents(tmp_path: Path) -> None:
    plain = write_archive([Member("a", data=b"1")], tmp_path)
    assert write_archive([Member("a", data=b"1", executable=True)], tmp_path).sha256 != plain.sha256


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_number_of_threads_changes_nothing(tmp_path: Path, threads: int) -> None:
    noise = random.Random(7).randbytes(1_600_000) + b"x" * 1_700_000
    archive = write_archive([Member("big", data=noise), Member("small", data=b"s")], tmp_path, threads=threads)
    reference = write_archive([Member("big", data=noise), Member("small", data=b"s")], tmp_path / "other", threads=3)
    assert archive.sha256 == reference.sha256
    with tarfile.open(archive.path) as tar:
        big = tar.extractfile("big")
        assert big is not None and big.read() == noise


def test_hash_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    archive = write_archive([Member("a", data=b"1" * 5000)], tmp_path)
    raw = archive.path.read_bytes()
    assert (archive.sha256, archive.size) == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert existing_archive(archive.path).sha256 == archive.sha256
    assert archive.path.stat().st_mode & 0o777 == 0o600


def test_gzip_header_names_no_time_and_no_file(tmp_path: Path) -> None:
    header = write_archive([], tmp_path).path.read_bytes()[:10]
    assert header == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def test_members_arrive_with_fixed_times_owners_and_modes(tmp_path: Path) -> None:
    archive = write_archive(
        [
            Member("bin/python", Kind.LINK, target="python3"),
            Member("empty", Kind.FOLDER),
            Member("bin/tool", data=b"#!", executable=True),
            Member("x.py", data=b"pass"),
        ],
        tmp_path,
    )
    with tarfile.open(archive.path) as tar:
        found = {info.name: info for info in tar}
    assert {info.mtime for info in found.values()} == {FIXED_TIME_S}
    assert {(info.uid, info.gid, info.uname) for info in found.values()} == {(0, 0, "")}
    assert found["bin/python"].issym() and found["bin/python"].linkname == "python3"
    assert found["empty"].isdir()
    assert (found["bin/tool"].mode, found["x.py"].mode) == (0o755, 0o644)


def test_long_and_foreign_names_survive(tmp_path: Path) -> None:
    names = ["d" * 90 + "/" + "f" * 200, "größe/データ.py", "a" * 100, "b" * 101]
    archive = write_archive([Member(name, data=name.encode()) for name in names], tmp_path)
    with tarfile.open(archive.path) as tar:
        assert sorted(tar.getnames()) == sorted(names)


def test_start_replaces_the_first_bytes_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    archive = write_archive([Member("x", source=tmp_path / "x", start=b"ab")], tmp_path / "out")
    assert b"ab23456789" in gzip.decompress(archive.path.read_bytes())


def test_unreadable_member_leaves_no_half_archive(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(PackagingError, match="gone"):
        write_archive([Member("a", data=b"1"), Member("b", source=tmp_path / "gone")], out)
    assert list(out.iterdir()) == []


def test_a_link_put_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/etc/hostname")
    with pytest.raises(PackagingError):
        write_archive([Member("x", source=tmp_path / "x")], tmp_path / "out")


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    members = [Member("a", data=b"1" * 10, size=10), Member("b", data=b"2" * 20, size=20)]
    write_archive(members, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 30), (30, 30)]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("env.tar.gz", ".tar.gz"), ("env.TGZ", ".tar.gz"), ("v1.2.zip", ".zip"), ("words.txt", ".txt"), ("plain", "")],
)
def test_suffix_of_a_name(name: str, suffix: str) -> None:
    assert archive_suffix(name) == suffix
