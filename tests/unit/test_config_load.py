"""Job files are read safely, and every refusal names the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tony.config.load import read_file, read_node, read_table
from tony.config.nodes import Items, Scalar, Table
from tony.errors import UsageError


def refusal(text: str) -> tuple[str, str | None]:
    with pytest.raises(UsageError) as caught:
        read_table(text, "job.yaml")
    (problem,) = caught.value.problems
    return problem.message, problem.origin


def test_scalars_keep_the_text_that_was_written() -> None:
    table = read_table("command: [train.py, --epochs, 3, yes, 1e3, 0x10, ~]\n", "job.yaml")
    command = table.entries["command"]
    assert isinstance(command, Items)
    words = [node.text for node in command.nodes if isinstance(node, Scalar)]
    assert words == ["train.py", "--epochs", "3", "yes", "1e3", "0x10", "~"]


def test_values_know_the_line_of_their_key() -> None:
    table = read_table("a: 1\n\nroles:\n  worker:\n    memory: 4g\n", "job.yaml")
    worker = table.entries["roles"]
    assert isinstance(worker, Table) and worker.line == 3
    inner = worker.entries["worker"]
    assert isinstance(inner, Table) and inner.entries["memory"].line == 5


def test_json_is_yaml_even_when_tabs_indent_it() -> None:
    table = read_table('{\n\t"name": "x",\n\t"roles": {"worker": {"instances": 2}}\n}\n', "job.json")
    assert table.entries["name"] == Scalar("x", 2)


@pytest.mark.parametrize(
    ("text", "part", "origin"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [x]\n", "the tag !!python/object/apply:os.system", "job.yaml:2"),
        ("a: !custom x\n", "the tag !custom", "job.yaml:1"),
        ("a: !!binary aGk=\n", "the tag !!binary", "job.yaml:1"),
        ("a: 1\nb: 2\na: 3\n", "'a' appears twice", "job.yaml:3"),
        ("roles:\n\tworker: 1\n", "a tab indents this line", "job.yaml:2"),
        ("a: [1\nb: 2\n", "not YAML", "job.yaml:2"),
        ("a: 1\n---\nb: 2\n", "not YAML", "job.yaml:2"),
        ("- a\n- b\n", "must be a map", "job.yaml:1"),
        ("a: &x [1, *x]\n", "expand to far too much", "job.yaml:1"),
        ("? [a, b]\n: 1\n", "a key must be a word", "job.yaml:1"),
    ],
)
def test_dangerous_and_broken_files_are_refused_with_their_line(text: str, part: str, origin: str) -> None:
    message, where = refusal(text)
    assert part in message
    assert where == origin


def test_an_anchor_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    message, _ = refusal("\n".join(lines))
    assert "expand to far too much" in message


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    message, _ = refusal("a: " + "[" * 50_000)
    assert "too" in message


def test_anchors_and_merges_that_stay_small_work() -> None:
    table = read_table("base: &b {memory: 4g, vcores: 2}\nworker: {<<: *b, vcores: 4}\n", "job.yaml")
    worker = table.entries["worker"]
    assert isinstance(worker, Table)
    assert {name: node.text for name, node in worker.entries.items() if isinstance(node, Scalar)} == {
        "memory": "4g",
        "vcores": "4",
    }


def test_files_that_are_no_text_or_far_too_long_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nname: M\xfcller\n")
    with pytest.raises(UsageError) as caught:
        read_file(latin)
    assert caught.value.problems[0].origin == "latin.yaml:2"
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * 1_000_001)
    with pytest.raises(UsageError, match="longer than 1 MB"):
        read_file(long)
    with pytest.raises(UsageError, match="No such file"):
        read_file(tmp_path / "none.yaml")


def test_an_empty_file_is_an_empty_map_and_control_characters_are_not_yaml() -> None:
    assert read_table("", "x") == Table({})
    assert read_table("# nothing\n", "x") == Table({})
    with pytest.raises(UsageError, match="not YAML"):
        read_node("a: \x00", "x")
