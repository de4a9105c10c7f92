"""The source archive: what goes along, what stays, and what is refused."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tony.errors import UsageError
from tony.packaging.archive import Archive
from tony.packaging.source import pack_source


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("train.py", "model/net.py", "data/big.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(archive: Archive) -> set[str]:
    with tarfile.open(archive.path) as tar:
        return set(tar.getnames())


def pack(
    project: Path, *exclude: str, required: tuple[str, ...] = (), limit: int = 10**9
) -> tuple[set[str], list[str]]:
    archive, warnings = pack_source(project, exclude, project.parent / "out", required, limit)
    return names(archive), warnings


def test_everything_ordinary_is_packed(project: Path) -> None:
    packed, warnings = pack(project, required=("train.py", "./model/net.py"))
    assert packed == {"train.py", "model/net.py", "data/big.bin"}
    assert warnings == []


@pytest.mark.parametrize(
    "noise",
    [".git/config", "__pycache__/a.pyc", "node_modules/x.js", "model/old.pyc", ".venv/bin/python", ".mypy_cache/x"],
)
def test_noise_stays_behind_silently(project: Path, noise: str) -> None:
    (project / noise).parent.mkdir(parents=True, exist_ok=True)
    (project / noise).write_text("x")
    packed, warnings = pack(project)
    assert noise not in packed and warnings == []


def test_a_virtual_environment_of_any_name_stays_behind(project: Path) -> None:
    (project / "py311/lib").mkdir(parents=True)
    (project / "py311/pyvenv.cfg").write_text("home = /usr/bin")
    (project / "py311/lib/big.so").write_text("x")
    assert not any(name.startswith("py311") for name in pack(project)[0])


@pytest.mark.parametrize(
    "secret",
    [".env", ".env.production", "id_rsa", "keys/id_rsa.old", "host.pem", "a.keytab", ".ssh/config", ".netrc"],
)
def test_secrets_stay_behind_with_a_warning(project: Path, secret: str) -> None:
    (project / secret).parent.mkdir(parents=True, exist_ok=True)
    (project / secret).write_text("s3cret")
    packed, warnings = pack(project)
    assert secret not in packed
    assert len(warnings) == 1 and "secret" in warnings[0]


def test_tonyignore_excludes_and_brings_back(project: Path) -> None:
    (project / ".tonyignore").write_text("data/\n# words\n!ca.pem\n")
    (project / "ca.pem").write_text("public")
    packed, warnings = pack(project)
    assert "ca.pem" in packed and "data/big.bin" not in packed and warnings == []


def test_patterns_of_the_job_exclude(project: Path) -> None:
    assert pack(project, "data", "*.md")[0] == {"train.py", "model/net.py"}


def test_links_inside_are_kept_and_links_out_are_left_with_a_warning(project: Path) -> None:
    (project / "alias.py").symlink_to("train.py")
    (project / "absolute.py").symlink_to(project / "model/net.py")
    (project / "root").symlink_to("/")
    (project / "dangling").symlink_to("nowhere")
    (project / "model/loop").symlink_to("../model")
    archive, warnings = pack_source(project, (), project.parent / "out")
    with tarfile.open(archive.path) as tar:
        links = {info.name: info.linkname for info in tar if info.issym()}
    assert links == {"alias.py": "train.py", "absolute.py": "model/net.py", "model/loop": "../model"}
    assert len(warnings) == 1 and "'root'" in warnings[0] and "'dangling'" in warnings[0]


def test_fifo_is_left_with_a_warning(project: Path) -> None:
    os.mkfifo(project / "pipe")
    packed, warnings = pack(project)
    assert "pipe" not in packed and "regular" in warnings[0]


def test_empty_folders_are_kept(project: Path) -> None:
    (project / "logs").mkdir()
    assert "logs" in pack(project)[0]


def test_names_that_break_lines_or_encodings_are_all_refused_at_once(project: Path) -> None:
    (project / "two\nlines.py").write_text("x")
    (project / "bell\x07.py").write_text("x")
    Path(os.fsdecode(os.fsencode(project) + b"/\xff.py")).write_text("x")
    with pytest.raises(UsageError) as caught:
        pack(project)
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 3
    assert all(message.isprintable() for message in messages)
    assert any("UTF-8" in message for message in messages)


def test_too_much_is_refused_and_the_largest_part_named(project: Path) -> None:
    (project / "data/big.bin").write_bytes(b"x" * 5000)
    with pytest.raises(UsageError, match=r"more than the 1\.0 kB allowed: 'data' 5\.0 kB") as caught:
        pack(project, limit=1000)
    assert "--exclude" in (caught.value.problems[0].hint or "")


@pytest.mark.parametrize(("script", "said"), [("absent.py", "there is no"), ("data/big.bin", "left out")])
def test_the_script_of_the_command_must_be_inside(project: Path, script: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pack(project, "data/", required=(script,))


def test_a_file_instead_of_a_folder_is_refused(project: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        pack(project / "train.py")


def test_the_same_project_gives_the_same_name_after_being_copied(project: Path, tmp_path: Path) -> None:
    first, _ = pack_source(project, (), tmp_path / "out")
    project.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/train.py").touch()
    second, _ = pack_source(tmp_path / "elsewhere", (), tmp_path / "out")
    assert first.name == second.name
