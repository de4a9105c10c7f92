"""The file that runs before anything of ours is there."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from executor import launch


@pytest.mark.parametrize("path", [launch.__file__, Path(launch.__file__).parents[1] / "tony" / "context.py"])
def test_what_an_old_interpreter_reads_is_written_for_python_3_8(path: str) -> None:
    ast.parse(Path(path).read_text(), feature_version=(3, 8))


def test_the_launcher_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(launch.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"__future__"}


def test_a_bundle_for_another_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "BUNDLE").write_text(json.dumps({"python": "3.4", "version": "1"}))
    with pytest.raises(launch.LaunchError, match=r"built for Python 3\.4, but .* tony runtime build --python"):
        launch.check_bundle(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1}'])
def test_a_bundle_that_does_not_say_what_it_is_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "BUNDLE").write_text(content)
    with pytest.raises(launch.LaunchError, match="no readable BUNDLE"):
        launch.check_bundle(tmp_path)


def test_a_bundle_for_this_python_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "BUNDLE").write_text(json.dumps({"python": "{}.{}".format(*sys.version_info[:2])}))
    launch.check_bundle(tmp_path)


@pytest.mark.parametrize("argv", [["x"], ["x", "client"], ["x", "executor", "more"]])
def test_other_words_are_answered_with_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(argv) == launch.EXIT_UNUSABLE
    assert capsys.readouterr().err == "tony: usage: tony-launch.py appmaster|executor\n"


def test_an_interpreter_that_is_too_old_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch.sys, "version_info", (3, 8, 19))
    assert launch.main(["x", "executor"]) == launch.EXIT_UNUSABLE
    said = capsys.readouterr().err
    assert "is Python 3.8.19; TonY needs 3.10 or newer" in said
    assert said.count("\n") == 1


def test_the_cache_is_the_first_folder_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocked = tmp_path / "file"
    blocked.touch()
    user, application = tmp_path / "user", tmp_path / "application"
    given = {"LOCAL_USER_DIRS": f"{blocked},{user}", "LOCAL_DIRS": str(application)}
    assert launch.node_cache(given) == user / "tony"
    assert launch.node_cache({"LOCAL_DIRS": str(application)}) == application / "tony"
    assert launch.node_cache({**given, "TONY_NODE_CACHE": str(tmp_path / "own")}) == tmp_path / "own"
    assert launch.node_cache({}) == tmp_path / ".tony-cache"
    assert (user / "tony").stat().st_mode & 0o777 == 0o700


def test_content_named_files_need_no_second_reading(tmp_path: Path) -> None:
    named = tmp_path / ("ab" * 32 + ".tar.gz")
    named.touch()
    link = tmp_path / "runtime.tar.gz"
    link.symlink_to(named)
    assert launch.content_name(link) == "ab" * 32
    (tmp_path / "other.tar.gz").touch()
    assert launch.content_name(tmp_path / "other.tar.gz") is None


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "a\n"])
def test_a_key_is_a_plain_name(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a name"):
        launch.unpack_once(tmp_path / "x", key, tmp_path)
