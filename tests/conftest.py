"""What holds for every test: nothing that it started is left when it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tony.localcluster.cluster import ClusterSettings, LocalCluster

pytest_plugins = ["command_line"]

_GRACE_S = 5.0
"""Threads and children that are on their way out get this long."""


def pytest_configure() -> None:
    """A shell lets its background jobs ignore Ctrl-C, and so would everything that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _children() -> set[psutil.Process]:
    return {
        child
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    }


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test no thread and no process is there that was not there before."""
    threads, children = set(threading.enumerate()), _children()
    yield
    deadline = time.monotonic() + _GRACE_S
    while True:
        try:
            left: list[object] = [*(_children() - children)]
        except psutil.NoSuchProcess:
            continue
        left += [t for t in threading.enumerate() if t not in threads and t.is_alive() and not t.daemon]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.02)


YARN_SETTINGS = ClusterSettings(nodes=2, memory_mb=8192, vcores=64, gpus=8, queues=("default", "batch"))


@pytest.fixture(scope="session")
def yarn_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A healthy cluster: 2 nodes of 4 GiB, 32 vcores and 4 counted GPUs each, queues default and batch.

    Tests share it: give each its own application, and leave daemons and queues as they were.
    """
    cluster = LocalCluster(tmp_path_factory.mktemp("yarn"))
    try:
        cluster.start(YARN_SETTINGS)
        yield cluster
    finally:
        cluster.stop()
