"""The storage against a real name node and data node."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tony.errors import NotPermitted, PackagingError
from tony.localcluster.cluster import LocalCluster
from tony.packaging.archive import Member, write_archive
from tony.packaging.cache import ArchiveCache
from tony.storage import Storage


class Hdfs:
    """Where the cluster's HDFS is, and a folder of this test's own."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.http = cluster.webhdfs_url.rstrip("/")
        self.fs = cluster.hdfs_url.rstrip("/")
        self.folder = f"/test-{secrets.token_hex(4)}"

    def storage(self, user: str | None = None) -> Storage:
        return Storage(f"webhdfs://{urlsplit(self.http).netloc}{self.folder}/deep/.tony?fs={self.fs}", user)


@pytest.fixture
def hdfs(yarn_cluster: LocalCluster) -> Iterator[Hdfs]:
    place = Hdfs(yarn_cluster)
    yield place
    store = place.storage()
    store.remove(place.folder)
    store.close()


@pytest.fixture
def storage(hdfs: Hdfs) -> Iterator[Storage]:
    store = hdfs.storage()
    yield store
    store.close()


def test_small_files_with_any_name_are_kept_whole_and_owner_only(storage: Storage, hdfs: Hdfs) -> None:
    for name, data in (("jobs/a/spec.json", b"{}"), ("jobs/a/größe #1?%.txt", b"x"), ("jobs/a/empty", b"")):
        storage.write(name, data)
        assert storage.read(name) == data and storage.size(name) == len(data)
    assert storage.list("jobs/a") == ["empty", "größe #1?%.txt", "spec.json"]
    assert storage.url("jobs/a/empty") == f"{hdfs.fs}{hdfs.folder}/deep/.tony/jobs/a/empty"
    status = requests.get(
        f"{hdfs.http}/webhdfs/v1{hdfs.folder}/deep?op=LISTSTATUS&user.name={storage.user}", timeout=10
    ).json()
    assert status["FileStatuses"]["FileStatus"][0]["permission"] == "700"


def test_existing_files_are_replaced_only_on_request(storage: Storage) -> None:
    storage.write("x", b"1")
    with pytest.raises(FileExistsError):
        storage.write("x", b"2")
    storage.write("x", b"3", overwrite=True)
    storage.write("y", b"4")
    with pytest.raises(FileExistsError):
        storage.move("y", "x")
    storage.move("y", "x", overwrite=True)
    assert storage.read("x") == b"4" and [entry.name for entry in storage.entries()] == ["x"]


def test_missing_things_are_said_to_be_missing(storage: Storage) -> None:
    assert storage.list("nowhere") == [] and not storage.exists("nowhere")
    with pytest.raises(FileNotFoundError):
        storage.read("nowhere")
    with pytest.raises(FileNotFoundError):
        storage.move("nowhere", "x")
    storage.remove("nowhere")


def test_big_files_stream_in_both_directions(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(1_000_003) * 20
    (tmp_path / "big").write_bytes(data)
    seen: list[int] = []
    storage.upload(tmp_path / "big", "cache/big", lambda done, total: seen.append(done))
    assert seen == sorted(seen) and seen[-1] == len(data) and len(seen) > 10
    storage.download("cache/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_another_users_files_are_refused_by_name(storage: Storage, hdfs: Hdfs) -> None:
    storage.write("secret", b"1")
    other = hdfs.storage(user="mallory")
    for call in (lambda: other.read("secret"), lambda: other.write("mine", b""), lambda: other.size("secret")):
        with pytest.raises(NotPermitted, match=rf"mallory may not use {hdfs.folder}"):
            call()
    other.close()


def test_a_quota_that_is_too_small_names_path_and_need_and_leaves_nothing(storage: Storage, hdfs: Hdfs) -> None:
    storage.make_folder("full")
    folder = f"{hdfs.http}/webhdfs/v1{hdfs.folder}/deep/.tony/full"
    requests.put(
        f"{folder}?op=SETQUOTA&storagespacequota=1000000&user.name={storage.user}", timeout=10
    ).raise_for_status()
    with pytest.raises(PackagingError, match=rf"{hdfs.folder}/deep/.tony/full/x .*needs 2\.0 kB.*quota"):
        storage.write("full/x", bytes(2000))
    assert storage.entries("full") == []


def test_an_archive_is_uploaded_once_and_keeps_the_time_that_yarn_compares(storage: Storage, tmp_path: Path) -> None:
    archive = write_archive([Member("a", data=os.urandom(1000))], tmp_path)
    cache = ArchiveCache(storage)
    upload, sent = cache.put(archive)
    assert sent == archive.size and upload.url.startswith("hdfs://")
    before = storage.status(f"cache/{archive.name}")
    assert cache.put(archive) == (upload, 0)
    after = storage.status(f"cache/{archive.name}")
    assert before is not None and after is not None
    assert before.modified_at == after.modified_at and after.used_at >= before.used_at
    assert cache.collect(0.0).archives == 1 and storage.list("cache") == []
