"""The last lines of a stream, whatever it holds."""

from __future__ import annotations

import pytest

from executor.tail import TailBuffer


def tail_of(*pieces: bytes) -> TailBuffer:
    tail = TailBuffer()
    for piece in pieces:
        tail.feed(piece)
    return tail


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((), []),
        ((b"",), []),
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"one\ntw", b"o"), ["one", "two"]),
        ((b"o", b"n", b"e", b"\n", b"\n"), ["one", ""]),
        ((b"a\0b\n",), ["ab"]),
        ((b"\xff\xfe\n",), ["\ufffd\ufffd"]),
        ((b"10%\r50%\r100%\n",), ["100%"]),
        ((b"dos\r\n",), ["dos"]),
        (("ü".encode()[:1], "ü".encode()[1:], b"\n"), ["ü"]),
    ],
)
def test_lines_are_kept_however_they_are_cut(pieces: tuple[bytes, ...], lines: list[str]) -> None:
    assert tail_of(*pieces).lines() == lines


def test_only_the_last_lines_are_kept() -> None:
    tail = tail_of(b"".join(b"%d\n" % number for number in range(10_000)))
    assert tail.lines() == [str(number) for number in range(9_960, 10_000)]
    assert len(tail.lines(100_000)) == 400


def test_a_line_without_an_end_takes_no_more_memory_than_others() -> None:
    tail = tail_of(*[b"x" * 65_536] * 100, b"\nlast\n")
    assert tail.lines() == ["x" * 2048, "last"]
    assert len(tail_of(*[b"x" * 65_536] * 100)._partial) == 2048
