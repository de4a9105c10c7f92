"""Nothing that others wrote makes a terminal do anything, and stdout is for programs."""

from __future__ import annotations

import io
import json

import pytest

from tony.cli.lines import LONGEST, Lines, prefixed
from tony.cli.output import Output
from tony.cli.table import table
from tony.text import safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 日本 \t tab", "plain äöü 日本 \t tab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\x00b", "a\\x00b"),
        ("a\x9bb", "a\\x9bb"),
        ("abc\u202edef", "abc\\u202edef"),
        ("a\u200bb", "a\\u200bb"),
        ("10%\r50%\r100%", "100%"),
        ("10%\r", "10%"),
        ("1/3 \x08\x08\x08\x08done", "1/3 done"),
        ("a\udc80b", "a\\udc80b"),
    ],
)
def test_text_from_elsewhere_is_harmless(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_lines_are_put_together_by_task_and_stream() -> None:
    lines = Lines()
    assert list(lines.feed("worker:0", "stdout", b"one\ntw")) == [("worker:0", "stdout", "one")]
    assert list(lines.feed("worker:1", "stdout", b"x\n")) == [("worker:1", "stdout", "x")]
    assert list(lines.feed("worker:0", "stderr", b"e\r\n")) == [("worker:0", "stderr", "e")]
    assert list(lines.feed("worker:0", "stdout", b"o\n\n")) == [
        ("worker:0", "stdout", "two"),
        ("worker:0", "stdout", ""),
    ]
    assert list(lines.end()) == []


def test_what_has_no_line_end_comes_at_the_end_and_what_was_dropped_is_said() -> None:
    lines = Lines()
    assert list(lines.feed("a:0", "stdout", b"x")) == []
    said = [text for _, _, text in lines.feed("a:0", "stdout", b"y", dropped=7)]
    assert said == ["x", "... 7 bytes of output were dropped here ..."]
    assert list(lines.end()) == [("a:0", "stdout", "y")]


def test_a_line_without_end_takes_bounded_memory() -> None:
    lines = Lines()
    found = []
    for _ in range(50):
        found += list(lines.feed("a:0", "stdout", b"x" * 10_000))
    assert sum(len(text) for _, _, text in found) >= 500_000 - LONGEST
    assert all(len(text) <= LONGEST for _, _, text in found)


def test_raw_lines_are_passed_on_as_they_are() -> None:
    assert list(Lines(raw=True).feed("a:0", "stdout", b"\x1b[1mx\n")) == [("a:0", "stdout", "\x1b[1mx")]


def test_every_line_has_its_task_in_front() -> None:
    assert prefixed("worker:3", "one\ntwo") == "[worker:3] one\n[worker:3] two"


def test_results_go_to_stdout_and_words_to_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)
    output.data("result")
    output.say("word")
    assert (out.getvalue(), err.getvalue()) == ("result\n", "word\n")


def test_with_json_stdout_holds_the_document_alone() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)
    output.json = True
    output.data("a line")
    output.say("a word")
    output.document({"schema": "x/1", "text": "ü\n"})
    assert json.loads(out.getvalue()) == {"schema": "x/1", "text": "ü\n"}
    assert err.getvalue() == "a line\na word\n"


def test_quiet_leaves_errors_and_results() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)
    output.quiet = True
    output.say("word")
    output.tell("error")
    output.data("result")
    assert (out.getvalue(), err.getvalue()) == ("result\n", "error\n")


def test_no_colours_where_there_is_no_terminal() -> None:
    output = Output(io.StringIO(), io.StringIO())
    assert output.style("x", "red") == "x"


class AsciiOnly(io.TextIOWrapper):
    """A stream of a machine without a sensible locale."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")


def test_a_terminal_that_knows_ascii_only_is_no_reason_to_fail() -> None:
    stream = AsciiOnly()
    Output(stream, stream).data("日本")
    stream.seek(0)
    assert stream.read() == "\\u65e5\\u672c\n"


def test_tables_fit_and_leave_empty_columns_out() -> None:
    lines = table(("JOB", "NOTE", "EMPTY"), [("application_1_0001", "x" * 100, ""), ("b", "y", "")], 60)
    assert "EMPTY" not in lines[0]
    assert all(len(line) <= 60 for line in lines)
    assert lines[2].split() == ["b", "y"]
    assert table(("A", "B"), [], 80) == ["A  B"]
