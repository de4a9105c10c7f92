"""Which variables reach the user process, and which never do."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor.environment import ContainerEnvironment, user_environment
from tony.errors import TonyError
from tony.spec import TaskId

CONTAINER = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/",
    "USER": "ann",
    "CONTAINER_ID": "container_1",
    "LOCAL_DIRS": "/a,/b",
    "HADOOP_TOKEN_FILE_LOCATION": "/c/container_tokens",
    "PYTHONHOME": "/nm/python",
    "TONY_PRIVATE_KEY": ".skein.pem",
    "TONY_CERTIFICATE": ".skein.crt",
    "TONY_RUNTIME": "runtime.tar.gz",
    "SKEIN_APPMASTER_ADDRESS": "h:1",
}


def composed(
    container: dict[str, str] | None = None, release: dict[str, str] | None = None, **given: object
) -> dict[str, str]:
    options: dict[str, object] = {"library": Path("/c/library"), "home": Path("/c/home"), **given}
    return user_environment(CONTAINER if container is None else container, release or {}, **options)  # type: ignore[arg-type]


def test_yarns_variables_stay_and_ours_do_not() -> None:
    environment = composed()
    assert environment["CONTAINER_ID"] == "container_1"
    assert environment["LOCAL_DIRS"] == "/a,/b"
    assert environment["HADOOP_TOKEN_FILE_LOCATION"] == "/c/container_tokens"
    assert not [name for name in environment if name.startswith(("TONY_", "SKEIN_"))]


def test_the_release_wins_over_the_container() -> None:
    environment = composed(release={"USER": "job", "TONY_RANK": "3", "PYTHONUNBUFFERED": "", "HOME": "/mine"})
    assert (environment["USER"], environment["TONY_RANK"]) == ("job", "3")
    assert (environment["PYTHONUNBUFFERED"], environment["HOME"]) == ("", "/mine")


def test_the_release_cannot_redirect_the_report_socket() -> None:
    assert "TONY_REPORT_SOCKET" not in composed(release={"TONY_REPORT_SOCKET": "/x"})
    assert composed(release={"TONY_REPORT_SOCKET": "/x"}, report_socket="/y")["TONY_REPORT_SOCKET"] == "/y"


@pytest.mark.parametrize(
    ("container", "release", "path"),
    [
        ({}, {}, "/e/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ({"PATH": "/usr/bin"}, {}, "/e/bin:/usr/bin"),
        ({"PATH": "/usr/bin"}, {"PATH": "/opt/bin::"}, "/e/bin:/opt/bin"),
    ],
)
def test_the_jobs_python_comes_first_in_path(container: dict[str, str], release: dict[str, str], path: str) -> None:
    assert composed(container, release, python_folder=Path("/e/bin"))["PATH"] == path


@pytest.mark.parametrize(
    ("container", "release", "path"),
    [
        ({}, {}, "/c/library"),
        ({"PYTHONPATH": "/nm"}, {}, "/c/library:/nm"),
        ({"PYTHONPATH": "/nm"}, {"PYTHONPATH": "src::lib"}, "/c/library:src:lib"),
    ],
)
def test_our_library_comes_before_the_users_own_path(
    container: dict[str, str], release: dict[str, str], path: str
) -> None:
    assert composed(container, release)["PYTHONPATH"] == path


@pytest.mark.parametrize("home", ["", "/", "/home/", "/home", "/nonexistent"])
def test_a_home_that_is_none_is_replaced(home: str) -> None:
    assert composed({"HOME": home})["HOME"] == "/c/home"


def test_a_real_home_is_kept() -> None:
    assert composed({"HOME": "/home/ann"})["HOME"] == "/home/ann"


def test_another_pythons_home_is_not_passed_on_but_the_users_own_setting_is() -> None:
    assert "PYTHONHOME" not in composed()
    assert composed(release={"PYTHONHOME": "/mine"})["PYTHONHOME"] == "/mine"


def test_virtual_env_names_the_unpacked_environment_or_nothing() -> None:
    assert "VIRTUAL_ENV" not in composed({"VIRTUAL_ENV": "/client"})
    assert composed(virtual_env=Path("/cache/abc"))["VIRTUAL_ENV"] == "/cache/abc"


def test_the_container_says_who_we_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "TONY_APPLICATION_ID": "application_1_1",
        "TONY_AM_ADDRESS": "h:1",
        "TONY_TASK": "worker:3",
        "TONY_INCARNATION": "2",
        "TONY_CERTIFICATE": ".skein.crt",
        "TONY_PRIVATE_KEY": ".skein.pem",
        "NM_HOST": "node7",
        "LOG_DIRS": "/l1,/l2",
    }.items():
        monkeypatch.setenv(name, value)
    here = ContainerEnvironment.from_environ()
    assert (here.task, here.incarnation, here.host) == (TaskId("worker", 3), 2, "node7")
    assert (here.log_folder, here.private_key) == (Path("/l1"), tmp_path / ".skein.pem")
    monkeypatch.setenv("TONY_HOST", "10.0.0.7")
    assert ContainerEnvironment.from_environ().host == "10.0.0.7"
    monkeypatch.setenv("TONY_TASK", "worker")
    with pytest.raises(TonyError, match="makes no sense"):
        ContainerEnvironment.from_environ()
    monkeypatch.delenv("TONY_AM_ADDRESS")
    monkeypatch.setenv("TONY_TASK", "worker:3")
    with pytest.raises(TonyError, match="TONY_AM_ADDRESS is missing"):
        ContainerEnvironment.from_environ()
