"""The Python of an image: as it is told, else as a Docker on this machine says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tony.errors import UsageError
from tony.packaging.image import InsidePython, inside_python
from tony.packaging.runtime import this_python

_ENGINE = """\
#!/bin/sh
echo "$*" >> {log}
case "$*" in
"image inspect"*) {inspect} ;;
run*) {run} ;;
esac
"""


class Engine:
    """A `docker` that answers as it is told, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "asked"

    def answers(self, run: str, inspect: str = "echo sha256:1") -> None:
        command = self.folder / "docker"
        command.write_text(_ENGINE.format(log=self._log, inspect=inspect, run=run))
        command.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("TONY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Engine(tmp_path)


def test_what_the_user_says_is_not_asked(engine: Engine) -> None:
    engine.answers("exit 1")
    assert inside_python("a:1", "3.12") == InsidePython("python3.12", "3.12", True)
    assert inside_python("a:1", "/opt/bin/python3.10") == InsidePython("/opt/bin/python3.10", "3.10", True)
    assert engine.asked == []


def test_a_local_image_is_asked_once_and_without_rights(engine: Engine) -> None:
    engine.answers("echo 3.12 glibc /usr/bin/python3.12")
    for _ in range(2):
        assert inside_python("a:1", None) == InsidePython("/usr/bin/python3.12", "3.12", True)
    ran = [line for line in engine.asked if line.startswith("run")]
    assert len(ran) == 1
    for flag in ("--pull never", "--network none", "--read-only", "--cap-drop ALL", "--user 65534:65534", "--rm"):
        assert flag in ran[0]


def test_an_image_that_is_not_here_is_taken_for_like_here(engine: Engine) -> None:
    engine.answers("exit 1", inspect="exit 1")
    assert inside_python("a:1", None) == InsidePython("python3", this_python(), False)
    assert inside_python("a:1", "/opt/python") == InsidePython("/opt/python", this_python(), False)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("""echo 'docker: exec: "bash": executable file not found in $PATH' >&2; exit 127""", "no bash"),
        ("echo 'bash: line 1: exec: python3: not found' >&2; exit 127", "no python3"),
        ("echo 'sh: 0: Illegal option -I' >&2; exit 2", "no Python 3 that runs: sh: 0: Illegal option -I"),
        ("exit 139", "no Python 3 that runs: exit code 139"),
        ("echo 3.8 glibc /usr/bin/python3", "Python 3.8"),
        ("echo 3.12 other /usr/bin/python3", "glibc"),
    ],
)
def test_an_image_that_cannot_work_is_refused_before_the_submit(engine: Engine, run: str, said: str) -> None:
    engine.answers(run)
    with pytest.raises(UsageError) as caught:
        inside_python("a:1", None)
    assert said in caught.value.problems[0].message


def test_an_engine_that_fails_otherwise_decides_nothing(engine: Engine) -> None:
    engine.answers("echo 'permission denied' >&2; exit 125")
    assert not inside_python("a:1", None).known


def test_a_path_that_bash_could_misread_is_not_taken(engine: Engine) -> None:
    engine.answers("echo '3.12 glibc /opt/$(id)/python'")
    assert inside_python("a:1", None).program == "python3"
