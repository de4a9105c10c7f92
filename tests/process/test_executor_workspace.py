"""The user's folder, made of what really lies in a container."""

from __future__ import annotations

import errno
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

from executor import launch, workspace
from executor.workspace import PreparedWorkspace, WorkspaceError, prepare
from tony.protocol.messages import Archive, Workspace
from tony.state import Reason


def packed(folder: Path, name: str, *files: tuple[str, str]) -> Archive:
    """A tar archive in the container's folder, and what the application master says of it."""
    path = folder / name
    with tarfile.open(path, "w:gz") as tar:
        for relative, text in files:
            entry = tarfile.TarInfo(relative)
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return described(path)


def described(path: Path, target: str = "", unpack: bool = False) -> Archive:
    return Archive(
        name=path.name,
        sha256=launch.file_sha256(path),
        size=path.stat().st_size,
        target=target,
        unpack=unpack,
    )


def placed(folder: Path, text: str = "content", name: str = "data.txt", target: str = "", **more: bool) -> Archive:
    (folder / name).write_text(text)
    return described(folder / name, target, **more)


@pytest.fixture
def container(tmp_path: Path) -> Path:
    folder = tmp_path / "container"
    folder.mkdir()
    return folder


def prepared(container: Path, **parts: object) -> PreparedWorkspace:
    parts.setdefault("user_python", sys.executable)
    cache = container.parent / "cache"
    cache.mkdir(exist_ok=True)
    return prepare(Workspace(**parts), container, cache, dict(os.environ))  # type: ignore[arg-type]


def refused(container: Path, **parts: object) -> WorkspaceError:
    with pytest.raises(WorkspaceError) as caught:
        prepared(container, **parts)
    assert "\n" not in caught.value.message
    return caught.value


def test_source_and_files_stand_where_the_user_expects_them(container: Path) -> None:
    source = packed(container, "source.tar.gz", ("train.py", "print(1)"), ("pkg/mod.py", ""))
    data = placed(container, target="pkg/data.txt")
    models = packed(container, "models.tar.gz", ("a", "x"))
    models.target, models.unpack = "models", True
    made = prepared(container, source=source, files=[data, models])
    assert made.work == container / "work"
    names = sorted(str(path.relative_to(made.work)) for path in made.work.rglob("*") if path.is_file())
    assert names == ["models/a", "pkg/data.txt", "pkg/mod.py", "train.py"]
    (made.work / "pkg" / "data.txt").write_text("changed by the user")
    assert (container / "data.txt").read_text() == "content"
    assert [path.name for path in made.library.iterdir()] == ["tony"]
    assert not (container / ".tony" / "unpacking").exists()


def test_a_link_of_yarns_is_as_good_as_a_file(container: Path) -> None:
    elsewhere = container.parent / "filecache"
    elsewhere.mkdir()
    source = packed(elsewhere, "source.tar.gz", ("train.py", ""))
    (container / "source.tar.gz").symlink_to(elsewhere / "source.tar.gz")
    assert (prepared(container, source=source).work / "train.py").exists()


def test_preparing_again_in_the_same_container_succeeds(container: Path) -> None:
    source = packed(container, "source.tar.gz", ("pkg/train.py", "1"))
    data = placed(container)
    for _ in range(2):
        made = prepared(container, source=source, files=[data])
    assert (made.work / "pkg" / "train.py").read_text() == "1"


def test_an_environment_is_unpacked_into_the_cache_and_asked_only_once(container: Path) -> None:
    python = f'#!/bin/sh\necho asked >> {container}/asked\nexec {sys.executable} "$@"\n'
    environment = packed(container, "env.tar.gz", ("bin/python", python))
    for _ in range(2):
        made = prepared(container, environment=environment, user_python="{environment}/bin/python")
    folder = container.parent / "cache" / environment.sha256
    assert (made.environment, made.python) == (folder, (f"{folder}/bin/python",))
    assert made.python_folder == folder / "bin"
    assert (container / "asked").read_text() == "asked\n"


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (["train.py", "--x"], ["/e/bin/python", "train.py", "--x"]),
        (["pkg/train.py"], ["/e/bin/python", "pkg/train.py"]),
        (["python", "train.py"], ["python", "train.py"]),
        (["{environment}/bin/torchrun", "{environment}"], ["/e/bin/torchrun", "{environment}"]),
    ],
)
def test_only_the_first_word_of_a_command_is_changed(command: list[str], argv: list[str]) -> None:
    nowhere = Path("/w")
    made = PreparedWorkspace(nowhere, ("/e/bin/python",), Path("/e"), nowhere, nowhere)
    assert made.argv(command) == argv


# Attacks and accidents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["../escaped", "/escaped", "a/../../escaped", ".."])
def test_a_target_outside_of_the_working_directory_is_refused(container: Path, target: str) -> None:
    error = refused(container, files=[placed(container, target=target)])
    assert (error.reason, target in error.message) == (Reason.BAD_ARCHIVE, True)
    assert not list(container.parent.rglob("escaped"))


def test_nothing_is_placed_through_a_link_that_leads_out(container: Path) -> None:
    (container / "work").mkdir()
    (container / "work" / "out").symlink_to(container.parent)
    error = refused(container, files=[placed(container, target="out/escaped")])
    assert "through a link" in error.message
    assert not (container.parent / "escaped").exists()


def test_a_hostile_source_archive_leaves_nothing(container: Path) -> None:
    error = refused(container, source=packed(container, "source.tar.gz", ("fine", "x"), ("../escaped", "x")))
    assert error.reason is Reason.BAD_ARCHIVE
    assert list((container / "work").iterdir()) == []
    assert not list(container.parent.rglob("escaped"))


@pytest.mark.parametrize("part", ["source", "environment", "files"])
def test_a_truncated_archive_is_named(container: Path, part: str) -> None:
    archive = packed(container, "archive.tar.gz", ("file", "x" * 1000))
    path = container / archive.name
    path.write_bytes(path.read_bytes()[:-20])
    error = refused(container, **{part: [archive] if part == "files" else archive})
    assert error.reason is Reason.BAD_ARCHIVE
    assert "archive.tar.gz has" in error.message


@pytest.mark.parametrize("part", ["source", "environment", "files"])
def test_a_changed_archive_of_the_same_size_is_named(container: Path, part: str) -> None:
    archive = packed(container, "archive.tar.gz", ("file", "x" * 1000))
    path = container / archive.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    error = refused(container, **{part: [archive] if part == "files" else archive})
    assert error.reason is Reason.BAD_ARCHIVE
    assert "archive.tar.gz" in error.message


def test_an_archive_that_is_not_there_is_named(container: Path) -> None:
    error = refused(container, source=Archive(name="source.tar.gz"))
    assert error.reason is Reason.ARTIFACT_CHANGED
    assert error.message.startswith("source.tar.gz is not in the container: /")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "#!/bin/sh\necho 'libc.so.6: version GLIBC_2.99 not found' >&2\nexit 1\n",
            "does not run on this node (1): libc.so.6",
        ),
        ("#!/bin/sh\nexit 3\n", "does not run on this node (3): no message"),
        ("#!/bin/sh\nkill -ILL $$\n", "does not run on this node (-4)"),
        ("#!/no/such/interpreter\n", "does not exist on this node"),
        ("\x7fELF for another machine", "Exec format error"),
    ],
)
def test_an_environment_that_does_not_run_here_is_told_in_one_line(container: Path, script: str, said: str) -> None:
    environment = packed(container, "env.tar.gz", ("bin/python", script))
    error = refused(container, environment=environment, user_python="{environment}/bin/python")
    assert error.reason is Reason.BAD_ENV
    assert said in error.message


def test_an_interpreter_that_hangs_is_given_up(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    with pytest.raises(WorkspaceError, match="no sign of life"):
        workspace.probe([str(python)], dict(os.environ), timeout_s=0.3)


def test_a_link_to_an_interpreter_that_the_node_does_not_have_is_told_as_such(container: Path) -> None:
    (container / "python").symlink_to("/opt/client/bin/python3.11")
    error = refused(container, user_python=str(container / "python"))
    assert "it is a link to /opt/client/bin/python3.11" in error.message


def test_a_python_from_an_environment_that_the_job_does_not_have_is_an_error(container: Path) -> None:
    assert refused(container, user_python="{environment}/bin/python").reason is Reason.BAD_ENV


def test_a_full_disk_is_named_with_its_path(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/1/work")

    monkeypatch.setattr(launch, "extract", full)
    error = refused(container, source=packed(container, "source.tar.gz", ("a", "x")))
    assert error.reason is Reason.DISK_FULL
    assert error.message.startswith("The disk of /data/1/work is full (")
