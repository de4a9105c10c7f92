"""Unpacking once per node: many processes, killed processes, hostile archives, a bounded cache."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from executor import launch

UNPACK = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from executor import launch
extract = launch.extract
def counted(archive, into, *rest, **named):
    with open({count!r}, "a") as file:
        file.write("x")
    return extract(archive, into, *rest, **named)
launch.extract = counted
print(launch.unpack_once(Path({archive!r}), "key", Path({cache!r}), sha256={sha256!r}))
sys.stdin.read()
"""
REPOSITORY = str(Path(__file__).resolve().parents[2])


def tar_of(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tuple):
                entry = tarfile.TarInfo(member[0])
                entry.size, entry.mode = len(member[1]), 0o644
                tar.addfile(entry, io.BytesIO(member[1]))
            else:
                tar.addfile(member)
    return path


def entry(name: str, kind: bytes = tarfile.SYMTYPE, target: str = "", mode: int = 0o777) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, mode
    return made


def zip_of(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def unpacker(archive: Path, cache: Path, sha256: str = "") -> subprocess.Popen[bytes]:
    program = UNPACK.format(
        repository=REPOSITORY, archive=str(archive), cache=str(cache), sha256=sha256, count=str(cache / "count")
    )
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def big_archive(path: Path) -> Path:
    """Takes tar about a second: random bytes in many files."""
    return tar_of(path, *((f"d/{number}", os.urandom(100_000)) for number in range(400)))


# Once ---------------------------------------------------------------------------------------------------------


def test_of_eight_processes_one_unpacks_and_all_use_it(tmp_path: Path) -> None:
    archive = big_archive(tmp_path / "a.tar.gz")
    cache = tmp_path / "cache"
    cache.mkdir()
    processes = [unpacker(archive, cache, launch.file_sha256(archive)) for _ in range(8)]
    answers = {process.communicate(b"", timeout=60)[0] for process in processes}
    assert answers == {f"{cache / 'key'}\n".encode()}
    assert (cache / "count").read_text() == "x"
    assert len(list((cache / "key" / "d").iterdir())) == 400
    assert sorted(path.name for path in cache.iterdir()) == ["count", "key", "key.complete", "key.lock"]


def test_a_killed_unpacker_leaves_nothing_that_counts(tmp_path: Path) -> None:
    archive = big_archive(tmp_path / "a.tar.gz")
    cache = tmp_path / "cache"
    cache.mkdir()
    with unpacker(archive, cache) as first:
        deadline = time.monotonic() + 20
        while not list(cache.glob("key.partial-*/d")) and time.monotonic() < deadline:
            time.sleep(0.001)
        first.kill()
    assert not (cache / "key.complete").exists()
    with unpacker(archive, cache) as second:
        assert second.communicate(b"", timeout=60)[0] == f"{cache / 'key'}\n".encode()
    assert len(list((cache / "key" / "d").iterdir())) == 400
    assert not list(cache.glob("key.partial-*"))


def test_a_folder_without_its_marker_is_unpacked_anew(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", ("file", b"right"))
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "file").write_text("half")
    assert (launch.unpack_once(archive, "key", tmp_path) / "file").read_text() == "right"


def test_waiting_for_an_unpacker_that_does_not_get_done_is_bounded(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", ("file", b"x"))
    lock = os.open(tmp_path / "key.lock", os.O_CREAT | os.O_RDWR)
    try:
        launch.fcntl.flock(lock, launch.fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="does not get done"):
            launch.unpack_once(archive, "key", tmp_path, wait_s=0.2)
    finally:
        os.close(lock)


# Bounded ------------------------------------------------------------------------------------------------------


def let_go(path: Path) -> None:
    """As if the process that used it had ended."""
    os.close(launch._in_use.pop(str(path)))


def test_the_longest_unused_goes_first_and_never_what_is_new_or_in_use(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", ("file", b"x" * 50_000))
    long_ago = time.time() - 2 * launch.UNUSED_S
    for number, key in enumerate(("oldest", "in-use", "old", "recent")):
        folder = launch.unpack_once(archive, key, tmp_path)
        if key != "recent":
            os.utime(tmp_path / f"{key}.complete", (long_ago + number, long_ago + number))
        if key != "in-use":
            let_go(folder)
    let_go(launch.unpack_once(archive, "newest", tmp_path, limit_bytes=1))
    let_go(tmp_path / "in-use")
    assert sorted(path.name for path in tmp_path.glob("*.complete")) == [
        "in-use.complete",
        "newest.complete",
        "recent.complete",
    ]
    assert not (tmp_path / "oldest").exists()
    assert not (tmp_path / "old").exists()


def test_using_it_again_makes_it_young(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", ("file", b"x"))
    let_go(launch.unpack_once(archive, "key", tmp_path))
    os.utime(tmp_path / "key.complete", (1, 1))
    let_go(launch.unpack_once(archive, "key", tmp_path))
    assert time.time() - (tmp_path / "key.complete").stat().st_mtime < 60


# Content ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["tar", "tarfile"])
def without_tar(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to unpack a tar archive: the program, and Python's own where there is none."""
    if request.param == "tarfile":
        monkeypatch.setattr(launch.shutil, "which", lambda _: None)


def test_a_virtual_environment_in_a_zip_keeps_its_links_and_modes(tmp_path: Path) -> None:
    archive = zip_of(
        tmp_path / "venv.zip",
        ("bin/python3", b"#!/bin/sh\n", stat.S_IFREG | 0o755),
        ("bin/python", b"python3", stat.S_IFLNK | 0o777),
        ("lib64", b"lib", stat.S_IFLNK | 0o777),
        ("lib/x.py", b"", stat.S_IFREG | 0o644),
        ("empty/", b"", stat.S_IFDIR | 0o755),
        ("plain", b"no mode given", 0),
    )
    into = tmp_path / "out"
    into.mkdir()
    launch.extract(archive, into)
    assert (into / "bin" / "python").readlink() == Path("python3")
    assert os.access(into / "bin" / "python3", os.X_OK)
    assert (into / "lib64" / "x.py").exists()
    assert (into / "empty").is_dir()
    assert (into / "plain").read_text() == "no mode given"


@pytest.mark.usefixtures("without_tar")
def test_a_tar_keeps_links_and_modes_and_loses_set_user_id_bits(tmp_path: Path) -> None:
    script = tarfile.TarInfo("bin/run")
    script.mode = 0o4755
    archive = tar_of(
        tmp_path / "a.tar.gz",
        script,
        entry("bin/link", target="run"),
        entry("up", target="./bin/../bin/run"),
        entry("hard", tarfile.LNKTYPE, "bin/run"),
        ("read-only/x", b""),
    )
    into = tmp_path / "out"
    into.mkdir()
    launch.extract(archive, into)
    assert (into / "bin" / "run").stat().st_mode & 0o7777 == 0o755
    assert (into / "bin" / "link").readlink() == Path("run")
    assert (into / "hard").samefile(into / "bin" / "run")


@pytest.mark.usefixtures("without_tar")
def test_only_a_virtual_environments_interpreter_may_be_a_link_to_the_node(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "venv.tar.gz",
        entry("venv/bin/python3.11", target="/usr/bin/python3.11"),
        entry("venv/bin/python", target="python3.11"),
    )
    into = tmp_path / "out"
    into.mkdir()
    launch.extract(archive, into)
    assert (into / "venv" / "bin" / "python3.11").readlink() == Path("/usr/bin/python3.11")
    for name, target in (
        ("bin/python", "/usr/bin/sh"),
        ("bin/pip", "/usr/bin/python3"),
        ("a/b/bin/python", "/x/python"),
    ):
        archive = tar_of(tmp_path / "bad.tar.gz", entry(name, target=target))
        (tmp_path / name.replace("/", "-")).mkdir()
        with pytest.raises(launch.ArchiveError, match="leads out"):
            launch.extract(archive, tmp_path / name.replace("/", "-"))


HOSTILE_TARS: dict[str, tuple[tarfile.TarInfo | tuple[str, bytes], ...]] = {
    "climbs out": (("../escaped", b"x"),),
    "link to the root": (entry("a", target="/"),),
    "link out": (entry("d/a", target="../../escaped"),),
    "through a link": (entry("a", target=".."), ("a/escaped", b"x")),
    "through a link to the root": (entry("a", target="/tmp"), ("a/escaped", b"x")),
    "pipe": (entry("pipe", tarfile.FIFOTYPE),),
    "device": (entry("null", tarfile.CHRTYPE),),
}


@pytest.mark.usefixtures("without_tar")
@pytest.mark.parametrize("members", HOSTILE_TARS.values(), ids=HOSTILE_TARS.keys())
def test_a_hostile_tar_is_refused_and_nothing_is_written_outside(
    tmp_path: Path, members: tuple[tarfile.TarInfo | tuple[str, bytes], ...]
) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", ("innocent", b"x"), *members)
    cache = tmp_path / "deep" / "cache"
    cache.mkdir(parents=True)
    with pytest.raises(launch.ArchiveError, match=r"a\.tar\.gz"):
        launch.unpack_once(archive, "key", cache)
    assert not list(tmp_path.rglob("escaped"))
    assert not Path("/tmp/escaped").exists()
    assert [path.name for path in cache.iterdir()] == ["key.lock"]


@pytest.mark.usefixtures("without_tar")
def test_an_absolute_name_never_lands_outside(tmp_path: Path) -> None:
    """GNU tar makes it relative, our own way refuses it: both are safe."""
    target = tmp_path / "escaped"
    archive = tar_of(tmp_path / "a.tar.gz", (str(target), b"x"))
    into = tmp_path / "out"
    into.mkdir()
    try:
        launch.extract(archive, into)
    except launch.ArchiveError as error:
        assert "leads out" in str(error)
    assert not target.exists()


@pytest.mark.parametrize(
    "members",
    [
        (("../escaped", b"x", 0o644),),
        (("/escaped", b"x", 0o644),),
        (("a", b"/", stat.S_IFLNK | 0o777),),
        (("a", b"../..", stat.S_IFLNK | 0o777), ("a/escaped", b"x", 0o644)),
        (("a", b"..", stat.S_IFLNK | 0o777), ("a/escaped", b"x", 0o644)),
        (("pipe", b"", stat.S_IFIFO | 0o644),),
    ],
)
def test_a_hostile_zip_is_refused_and_nothing_is_written_outside(
    tmp_path: Path, members: tuple[tuple[str, bytes, int], ...]
) -> None:
    archive = zip_of(tmp_path / "a.zip", *members)
    with pytest.raises(launch.ArchiveError, match=r"a\.zip"):
        launch.unpack_once(archive, "key", tmp_path / "deep" if (tmp_path / "deep").mkdir() is None else tmp_path)
    assert not list(tmp_path.rglob("escaped"))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_RATIO_FREE_BYTES", 1_000_000)
    archive = zip_of(tmp_path / "bomb.zip", ("zeros", bytes(20_000_000), 0o644))
    (tmp_path / "out").mkdir()
    with pytest.raises(launch.ArchiveError, match="would grow to 20000000 bytes"):
        launch.extract(archive, tmp_path / "out")


@pytest.mark.usefixtures("without_tar")
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_archive_is_named_in_one_sentence(tmp_path: Path, damage: str) -> None:
    archive = big_archive(tmp_path / "env.tar.gz")
    content = archive.read_bytes()
    archive.write_bytes({"cut": content[: len(content) // 2], "noise": os.urandom(5000), "empty": b""}[damage])
    with pytest.raises(launch.ArchiveError, match=r"^env\.tar\.gz cannot be unpacked: .*[^.]\.$") as caught:
        launch.unpack_once(archive, "key", tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_content_that_is_not_what_was_announced_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / name
    if name.endswith("zip"):
        zip_of(archive, ("file", b"x", 0o644))
    else:
        tar_of(archive, ("file", b"x"))
    with pytest.raises(launch.ArchiveError, match="is damaged or was changed"):
        launch.unpack_once(archive, "key", tmp_path, sha256="0" * 64)
    assert not (tmp_path / "key").exists()


def test_a_folder_that_cannot_be_written_into_can_still_be_removed(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    deep.chmod(0o500)
    (tmp_path / "a").chmod(0o500)
    launch.remove_tree(tmp_path / "a")
    launch.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


# The whole launcher -------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[[str], Path]:
    def build(python: str) -> Path:
        return tar_of(
            tmp_path / "runtime.tar.gz",
            ("BUNDLE", f'{{"python": "{python}", "version": "1"}}'.encode()),
            ("lib/executor/__init__.py", b""),
            (
                "lib/executor/__main__.py",
                b"import sys, other; print(other.__file__, sys.flags.isolated); sys.exit(7)",
            ),
            ("lib/other.py", b""),
            ("user/tony/__init__.py", b""),
        )

    return build


def launched(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", launch.__file__, "executor"],
        cwd=folder,
        env={"TONY_NODE_CACHE": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_bundle_is_unpacked_and_its_package_runs(tmp_path: Path, bundle: Callable[[str], Path]) -> None:
    bundle("{}.{}".format(*sys.version_info[:2]))
    # What lies beside it, or in PYTHONPATH, is not ours.
    (tmp_path / "other.py").touch()
    for _ in range(2):
        done = launched(tmp_path, TONY_RUNTIME="runtime.tar.gz", PYTHONPATH=str(tmp_path))
        assert done.returncode == 7, done.stderr
        path, isolated = done.stdout.split()
        assert Path(path).parent.parent.parent == tmp_path / "cache"
        assert isolated == "1"


def test_a_bundle_for_another_python_ends_with_a_sentence(tmp_path: Path, bundle: Callable[[str], Path]) -> None:
    bundle("3.4")
    done = launched(tmp_path, TONY_RUNTIME="runtime.tar.gz")
    assert done.returncode == launch.EXIT_UNUSABLE
    assert done.stderr.startswith("tony: the runtime bundle was built for Python 3.4")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "neither TONY_RUNTIME nor TONY_RUNTIME_PATH"),
        ({"TONY_RUNTIME": "none.tar.gz"}, "the runtime bundle none.tar.gz is not in"),
    ],
)
def test_a_missing_runtime_ends_with_a_sentence(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    done = launched(tmp_path, **environment)
    assert done.returncode == launch.EXIT_UNUSABLE
    assert said in done.stderr


def test_the_exit_of_the_package_is_the_exit_of_the_launcher_also_for_signals(tmp_path: Path) -> None:
    package = tmp_path / "path" / "executor"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    done = launched(tmp_path, TONY_RUNTIME_PATH=str(tmp_path / "path"))
    assert done.returncode == -signal.SIGTERM
