"""The storage on this machine's disk, and which URLs are storage at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tony.errors import NotPermitted, PackagingError, UsageError
from tony.storage import Storage, storage_base

WEB = "webhdfs://n1:9870,n2:9870/user/ann/.tony?fs=hdfs://main"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/a b/base")


def test_what_is_written_is_read_back_owner_only(storage: Storage) -> None:
    storage.write("jobs/one/spec.json", b"{}")
    assert storage.read("jobs/one/spec.json") == b"{}"
    assert storage.size("jobs/one/spec.json") == 2
    path = Path(storage.locate("jobs/one/spec.json"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert {parent.stat().st_mode & 0o777 for parent in (path.parent, path.parents[1], path.parents[2])} == {0o700}


def test_a_file_is_not_overwritten_unless_asked(storage: Storage) -> None:
    storage.write("x", b"1")
    with pytest.raises(FileExistsError):
        storage.write("x", b"2")
    assert storage.read("x") == b"1"
    storage.write("x", b"3", overwrite=True)
    assert storage.read("x") == b"3"
    assert storage.entries("") == [storage.status("x")]


def test_missing_things_are_said_to_be_missing(storage: Storage) -> None:
    assert storage.list("nowhere") == [] and not storage.exists("x") and storage.status("x") is None
    for call in (storage.read, storage.size):
        with pytest.raises(FileNotFoundError):
            call("x")
    storage.remove("x")


def test_list_names_what_is_whole(storage: Storage) -> None:
    for name in ("b", "a", ".c.1234.partial"):
        storage.write(f"f/{name}", b"")
    assert storage.list("f") == ["a", "b"]


def test_upload_and_download_report_and_keep_contents(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / "big").write_bytes(data)
    seen: list[tuple[int, int]] = []
    storage.upload(tmp_path / "big", "cache/big", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2_500_000, 2_500_000) and len(seen) == 3
    storage.download("cache/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_failed_upload_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_000_000))

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.upload(tmp_path / "big", "cache/big", fail)
    assert storage.entries("cache") == []


def test_full_disk_names_path_and_need(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.make_folder("")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(PackagingError, match=r"base/x does not fit: it needs 2\.0 kB"):
        storage.write("x", bytes(2000))


def test_refused_access_names_user_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"file://{tmp_path}", user="ann")

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotPermitted, match=rf"ann may not use {tmp_path}/x:"):
        storage.write("x", b"")


def test_move_renames_and_refuses_to_replace(storage: Storage) -> None:
    storage.write("a", b"1")
    storage.write("b", b"2")
    with pytest.raises(FileExistsError):
        storage.move("a", "b")
    storage.move("a", "b", overwrite=True)
    assert storage.read("b") == b"1" and not storage.exists("a")
    storage.make_folder("d")
    storage.move("d", "e")
    assert storage.list() == ["b", "e"]


def test_remove_takes_folders_whole(storage: Storage) -> None:
    storage.write("d/e/f", b"")
    storage.remove("d")
    assert storage.list() == []


def test_urls_are_those_that_yarn_localises(storage: Storage) -> None:
    assert Storage(WEB).url("cache/x") == "hdfs://main/user/ann/.tony/cache/x"
    assert storage.url("x").startswith("file:///") and storage.url("x").endswith("/a b/base/x")


@pytest.mark.parametrize(
    "url",
    [
        "hdfs://main/data/env.zip",
        "hdfs:///data/env.zip",
        "webhdfs://n2:9870/data/env.zip",
        "/data/env.zip",
    ],
)
def test_urls_of_the_same_file_system_are_paths(url: str) -> None:
    assert Storage(WEB).locate(url) == "/data/env.zip"


@pytest.mark.parametrize(
    "path",
    ["http://host/env.zip", "file:///etc/passwd", "hdfs://other/x", "s3://bucket/x", "../x", "a/../../x", "a\nb"],
)
def test_other_places_are_refused(path: str) -> None:
    with pytest.raises(UsageError):
        Storage(WEB).locate(path)


@pytest.mark.parametrize(
    "base", ["", "/tmp/x", "http://host/x", "file://host/x", "webhdfs:///x", "hdfs://main/x", "file://"]
)
def test_other_bases_are_refused(base: str) -> None:
    with pytest.raises(UsageError, match="not a place"):
        Storage(base)


def test_base_of_an_hdfs_url_is_complete_in_itself() -> None:
    base = storage_base("hdfs://main/user/ann/.tony", ["n1:9870", "n2:9870"])
    assert base == WEB
    assert storage_base("file:///x", []) == "file:///x"
    assert storage_base("hdfs://main/x", ["n:1"], secure=True) == "swebhdfs://n:1/x?fs=hdfs://main"


def test_user_is_the_hadoop_one_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ann")
    assert Storage(WEB).user == "ann"


def test_a_local_storage_loads_no_http_library() -> None:
    from tony.storage import files, local

    loaded = {name for module in (files, local) for name in vars(module)}
    assert "requests" not in loaded


def test_close_may_be_called_twice(storage: Storage) -> None:
    storage.close()
    storage.close()
