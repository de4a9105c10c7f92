"""Archives on shared storage and in this user's own cache, by content."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tony.errors import PackagingError
from tony.packaging.archive import Archive, Member, write_archive
from tony.packaging.built import BuiltArchives
from tony.packaging.cache import ArchiveCache, Collected
from tony.storage import Storage

DAY_S = 86400.0


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/store")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return write_archive([Member("a", data=b"1")], tmp_path / "built")


def aged(storage: Storage, name: str, age_s: float) -> None:
    then = time.time() - age_s
    os.utime(storage.locate(f"cache/{name}"), (then, then))


def test_an_archive_is_sent_once(storage: Storage, archive: Archive) -> None:
    cache = ArchiveCache(storage)
    assert cache.find(archive) is None
    upload, sent = cache.put(archive, "env.tar.gz")
    assert sent == archive.size
    assert (upload.name, upload.sha256, upload.size) == ("env.tar.gz", archive.sha256, archive.size)
    assert upload.url == storage.url(f"cache/{archive.sha256}.tar.gz")
    assert cache.put(archive, "env.tar.gz") == (upload, 0)
    assert ArchiveCache(storage).find(archive, "env.tar.gz") == upload


def test_finding_an_archive_keeps_the_time_that_yarn_compares(storage: Storage, archive: Archive) -> None:
    cache = ArchiveCache(storage)
    cache.put(archive)
    aged(storage, archive.name, 50 * DAY_S)
    before = os.stat(storage.locate(f"cache/{archive.name}")).st_mtime_ns
    cache.find(archive)
    assert os.stat(storage.locate(f"cache/{archive.name}")).st_mtime_ns == before
    assert cache.collect(DAY_S) == Collected(0, 0)


def test_two_clients_at_once_both_succeed(
    storage: Storage, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ArchiveCache(storage)
    upload = storage.upload

    def quicker(*arguments: object) -> None:
        upload(archive.path, f"cache/{archive.name}")
        raise FileExistsError

    monkeypatch.setattr(storage, "upload", quicker)
    assert cache.put(archive)[0].sha256 == archive.sha256


def test_something_else_under_the_name_is_not_overwritten(storage: Storage, archive: Archive) -> None:
    storage.write(f"cache/{archive.name}", b"short")
    with pytest.raises(PackagingError, match="5 bytes"):
        ArchiveCache(storage).put(archive)
    assert storage.read(f"cache/{archive.name}") == b"short"


def test_collect_removes_what_is_old_and_unused_but_nothing_else(storage: Storage, archive: Archive) -> None:
    cache = ArchiveCache(storage)
    cache.put(archive)
    for name, age_s in (
        ("a" * 64, 40 * DAY_S),
        ("b" * 64, 40 * DAY_S),
        (".x.partial", 2 * DAY_S),
        (".y.partial", 60.0),
    ):
        storage.write(f"cache/{name}", b"123")
        aged(storage, name, age_s)
    assert cache.collect(30 * DAY_S, keep={"b" * 64}) == Collected(archives=1, bytes=6)
    left = {entry.name for entry in storage.entries("cache")}
    assert left == {archive.name, "b" * 64, ".y.partial"}


def test_built_archives_are_found_by_key_until_they_are_gone(tmp_path: Path, archive: Archive) -> None:
    built = BuiltArchives(tmp_path / "built")
    assert built.find("key") is None
    built.remember("key", archive, note=7)
    known = built.find("key")
    assert known is not None and (known.archive, known.note) == (archive, 7)
    archive.path.write_bytes(b"cut")
    assert built.find("key") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "../x", "size": 3, "entries": 1, "note": 0}'])
def test_a_damaged_index_entry_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "x").write_text("abc")
    (tmp_path / "index/key.json").write_text(text)
    assert BuiltArchives(tmp_path).find("key") is None


def test_old_built_archives_make_room(tmp_path: Path, archive: Archive) -> None:
    old = write_archive([Member("old", data=b"2")], tmp_path / "built")
    os.utime(old.path, (1, 1))
    BuiltArchives(tmp_path / "built").remember("key", archive)
    assert archive.path.exists() and not old.path.exists()


def test_what_was_put_in_vain_is_taken_back_unless_somebody_else_has_found_it(
    storage: Storage, archive: Archive
) -> None:
    cache = ArchiveCache(storage)
    upload, _ = cache.put(archive)
    cache.take_back(upload)
    assert cache.find(archive) is None
    upload, _ = cache.put(archive)
    assert ArchiveCache(storage).put(archive) == (upload, 0)
    cache.take_back(upload)
    assert storage.status(upload.url) is not None
