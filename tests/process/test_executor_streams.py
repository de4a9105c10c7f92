"""Output through real pipes and files: rotation, floods, followers, a full disk."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_bench import eventually

from executor.rotation import RotatedLog
from executor.streams import OutputEnded, Streams
from tony.events import Warned
from tony.protocol.messages import CHUNK_LIMIT_BYTES


class Writer:
    """The user process's side of both pipes."""

    def __init__(self, streams: Streams, generation: int = 1) -> None:
        self.ended: queue.Queue[OutputEnded] = queue.Queue()
        self.stdout, self.stderr = streams.attach(generation, self.ended.put)
        self._open = [self.stdout, self.stderr]

    def out(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdout, view) :]

    def end(self) -> OutputEnded | None:
        """Close the pipes and wait until they are read; again: nothing."""
        if not self._open:
            return None
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []
        return self.ended.get(timeout=20)


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Streams]:
    made = Streams(tmp_path)
    yield made
    made.finish(5.0)
    made.close()
    made.close()


def small_log(folder: Path) -> RotatedLog:
    return RotatedLog(folder / "stdout.log", threading.Condition(), segment_bytes=100, segments=3)


# Files --------------------------------------------------------------------------------------------------------


def test_a_log_is_rotated_by_size_and_old_parts_are_dropped(tmp_path: Path) -> None:
    log = small_log(tmp_path)
    for number in range(100):
        log.write(b"line %04d\n" % number)
    assert (log.start, log.end) == (700, 1000)
    names = ["stdout.log.2", "stdout.log.1", "stdout.log"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    kept = b"".join((tmp_path / name).read_bytes() for name in names)
    assert kept.startswith(b"line 0070\n")
    assert kept.endswith(b"line 0099\n")
    log.release()
    log.release()


def test_reading_by_position_crosses_rotations_and_skips_what_is_gone(tmp_path: Path) -> None:
    log = small_log(tmp_path)
    log.write(b"x" * 950)
    assert log.read(0, 10) == (700, b"x" * 10)
    assert log.read(795, 1000) == (795, b"x" * 5)
    assert log.read(950, 10) == (950, b"")
    log.release()
    assert log.read(900, 10)[1] == b""


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 0, b""),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"x" * 200 + b"\nlast\n", 1, b"last\n"),
    ],
)
def test_the_last_lines_are_found(tmp_path: Path, content: bytes, lines: int, expected: bytes) -> None:
    log = RotatedLog(tmp_path / "log", threading.Condition())
    log.write(content)
    assert log.read(log.tail_position(lines), 1 << 20)[1] == expected
    log.release()


# Following ----------------------------------------------------------------------------------------------------


def followed(streams: Streams, tail_lines: int = -1, stream: str = "stdout") -> bytes:
    """All that a follower gets once the streams are finished."""
    return b"".join(chunk.data for chunk in streams.follow("worker:0", 1, stream, tail_lines, lambda: False))


def test_both_streams_are_followed_to_their_end(streams: Streams) -> None:
    writer = Writer(streams)
    writer.out(b"one\ntwo\nunfinished")
    os.write(writer.stderr, b"warning\n")
    assert writer.end() == OutputEnded(1)
    streams.finish(5.0)
    chunks = list(streams.follow("worker:0", 7, "", -1, lambda: False))
    assert {(chunk.stream, chunk.data) for chunk in chunks} == {
        ("stdout", b"one\ntwo\nunfinished"),
        ("stderr", b"warning\n"),
    }
    assert {(chunk.task, chunk.incarnation, chunk.dropped) for chunk in chunks} == {("worker:0", 7, 0)}
    assert followed(streams, tail_lines=2) == b"two\nunfinished"


def test_a_new_line_reaches_a_follower_within_a_fifth_of_a_second(streams: Streams) -> None:
    writer = Writer(streams)
    seen: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def follow() -> None:
        for chunk in streams.follow("worker:0", 1, "", 0, lambda: False):
            seen.put((time.monotonic(), chunk.data))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    time.sleep(0.3)
    delays = []
    for number in range(5):
        sent_at = time.monotonic()
        writer.out(b"line %d\n" % number)
        at, data = seen.get(timeout=5)
        assert data == b"line %d\n" % number
        delays.append(at - sent_at)
    # The median: this machine may be busy with other tests.
    assert sorted(delays)[2] < 0.2
    writer.end()
    streams.finish(5.0)
    follower.join(5)
    assert not follower.is_alive()


def test_lines_stay_whole_and_endless_ones_are_cut_at_the_chunk_limit(streams: Streams) -> None:
    writer = Writer(streams)
    writer.out(b"short\n" * 30_000 + b"y" * 300_000 + b"\nend\n")
    writer.end()
    streams.finish(5.0)
    chunks = list(streams.follow("worker:0", 1, "stdout", -1, lambda: False))
    assert max(len(chunk.data) for chunk in chunks) <= CHUNK_LIMIT_BYTES
    assert b"".join(chunk.data for chunk in chunks) == b"short\n" * 30_000 + b"y" * 300_000 + b"\nend\n"
    assert chunks[0].data.endswith(b"short\n")


def test_half_a_line_waits_for_its_rest_but_a_progress_bar_does_not(streams: Streams) -> None:
    writer = Writer(streams)
    over = threading.Event()
    chunks = streams.follow("worker:0", 1, "stdout", -1, over.is_set)
    writer.out(b"10%\r20%")
    assert next(chunks).data == b"10%\r"
    writer.out(b"\rdone\nhalf")
    assert next(chunks).data == b"20%\rdone\n"
    over.set()
    assert list(chunks) == []
    writer.end()


def test_without_follow_it_ends_with_what_there_is(streams: Streams) -> None:
    log = streams.logs["stdout"]
    log.write(b"one\ntwo\nhalf")
    chunks = streams.follow("worker:0", 1, "", 2, lambda: False, follow=False)
    first = next(chunks)
    log.write(b" a line, later\n")
    assert [first.data, *(chunk.data for chunk in chunks)] == [b"two\nhalf"]


def test_a_slow_follower_is_told_how_much_it_missed(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    log = streams.logs["stdout"]
    log._segment_bytes, log._limit = 1000, 2
    chunks = streams.follow("worker:0", 1, "stdout", -1, lambda: False)
    log.write(b"first\n")
    assert next(chunks).data == b"first\n"
    log.write(b"x" * 4993 + b"\n")
    streams.finish(0.0)
    rest = list(chunks)
    assert rest[0].dropped == 2994
    assert sum(len(chunk.data) for chunk in rest) == 2000
    streams.close()


def test_the_next_generation_continues_the_log_with_a_tail_of_its_own(streams: Streams) -> None:
    first = Writer(streams, 1)
    os.write(first.stderr, b"old\n")
    assert first.end() == OutputEnded(1)
    second = Writer(streams, 2)
    os.write(second.stderr, b"new\n")
    assert second.end() == OutputEnded(2)
    assert streams.tail.lines() == ["new"]
    streams.finish(5.0)
    assert followed(streams, stream="stderr") == b"old\nnew\n"


# Floods -------------------------------------------------------------------------------------------------------


def test_a_flood_is_dropped_in_whole_lines_and_counted_to_the_byte(tmp_path: Path) -> None:
    warned: list[tuple[Warned, str]] = []
    streams = Streams(tmp_path, rate=200_000.0, warn=lambda reason, text: warned.append((reason, text)))
    writer = Writer(streams)
    line = b"z" * 99 + b"\n"
    for _ in range(20):
        writer.out(line * 1000)
    time.sleep(0.8)
    writer.out(line * 10)
    writer.end()
    streams.finish(5.0)
    lines = followed(streams).split(b"\n")
    streams.close()
    markers = [text for text in lines if text.startswith(b"[tony] ")]
    dropped = sum(int(text.split()[1]) for text in markers)
    assert markers
    assert all(text.endswith(b"bytes of output dropped: more than 0 MB/s") for text in markers)
    kept = [text for text in lines if text and text not in markers]
    whole = [text for text in kept if len(text) == 99]
    told = sum(len(text) for text in kept) + len(whole) + dropped
    assert told == 2_001_000
    assert [reason for reason, _ in warned] == [Warned.LOG_QUOTA]
    assert warned[0][1].startswith("stdout.log grows faster than 0 MB/s")
    # Only where dropping begins may a line be cut.
    assert len(kept) - len(whole) <= len(markers)


def test_nul_bytes_and_endless_lines_take_no_memory(streams: Streams) -> None:
    writer = Writer(streams)
    for _ in range(50):
        os.write(writer.stderr, b"\0" * 60_000)
    os.write(writer.stderr, b"\nthe end\n")
    writer.end()
    assert streams.tail.lines() == ["", "the end"]


class FullDisk(RotatedLog):
    """Takes nothing until there is room."""

    full = True

    def write(self, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(data)


def test_a_full_disk_does_not_stop_the_user_process_and_is_told_when_there_is_room(tmp_path: Path) -> None:
    warned: list[tuple[Warned, str]] = []
    streams = Streams(tmp_path, warn=lambda reason, text: warned.append((reason, text)))
    disk = FullDisk(tmp_path / "full.log", streams.changed)
    streams.logs = {**streams.logs, "stdout": disk}
    writer = Writer(streams)
    # More than the pipe holds: it would block if nobody read.
    for _ in range(20):
        writer.out(b"lost line\n" * 10_000)
    time.sleep(0.2)
    disk.full = False
    writer.out(b"kept line\n" * 3)
    assert eventually(lambda: disk.end > 0)
    writer.end()
    streams.finish(5.0)
    text = followed(streams)
    assert b"[tony] 200000" in text
    assert b"bytes of output dropped: the disk is full\n" in text
    assert b"kept line\n" in text
    [(reason, words)] = warned
    assert reason is Warned.DISK_FULL
    assert words.startswith(f"{tmp_path}/full.log cannot be written (No space left on device, ")
    streams.close()
