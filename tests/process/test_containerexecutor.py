"""The stand-in for YARN's native program as a NodeManager calls it, with a Docker client that only writes down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tony.localcluster import conf, engine

_CLIENT = """\
#!/bin/sh
echo "$*" >> {log}
case "$1" in
run) [ ! -e {folder}/fails ] || {{ echo "no such image" >&2; exit 125; }} ;;
inspect) echo 4242 ;;
wait) cat {folder}/code ;;
esac
"""


class Node:
    """A NodeManager's folders, and its way of calling the program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.local, self.logs, self.private = (folder / name for name in ("local", "logs", "private"))
        for place in (self.local, self.logs, self.private):
            place.mkdir()
        self.work = self.local / "usercache/ann/appcache/app_1/c_1"
        self.pid_file = self.private / "c_1.pid"
        (self.private / "c_1.tokens").write_text("tokens")
        client = folder / "docker"
        client.write_text(_CLIENT.format(log=folder / "asked", folder=folder))
        client.chmod(0o755)
        engine.install(folder / "bin", folder, None, {"PATH": str(folder)})

    def begin(self, *words: str) -> subprocess.Popen[str]:
        program = str(self.folder / "bin" / engine.PROGRAM)
        # With no more of an environment than a NodeManager gives.
        return subprocess.Popen([program, *words], env={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, *words: str) -> tuple[int, str, str]:
        process = self.begin(*words)
        said, complained = process.communicate(timeout=30)
        return process.returncode, said, complained

    def launch_words(self, script: str, number: str = "1", last: str = "cgroups=none") -> list[str]:
        path = self.private / "launch_container.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        tokens = str(self.private / "c_1.tokens")
        words = ["ann", "ann", number, "app_1", "c_1", str(self.work), str(path), tokens, "--http"]
        return [*words, str(self.pid_file), str(self.local), str(self.logs), last]

    def docker_words(self, **values: str) -> list[str]:
        path = self.private / "docker.cmd"
        given = {"docker-command": "run", "name": "c_1", "image": "local/py:1", **values}
        path.write_text("[docker-command-execution]\n" + "".join(f"  {key}={text}\n" for key, text in given.items()))
        return self.launch_words("", "4", str(path))

    @property
    def asked(self) -> str:
        return (self.folder / "asked").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
def test_a_plain_container_runs_in_its_folder_and_its_code_is_kept(node: Node, script: str, code: int) -> None:
    assert node.call(*node.launch_words(f"pwd > where; {script}"))[0] == code
    assert (node.private / "c_1.pid.exitcode").read_text() == str(code)
    assert (node.work / "where").read_text().strip() == str(node.work)
    assert (node.work / "container_tokens").read_text() == "tokens"
    assert (node.work / "container_tokens").stat().st_mode & 0o777 == 0o600


def test_a_plain_container_finds_the_programs_of_whoever_started_the_cluster(node: Node) -> None:
    assert node.call(*node.launch_words('echo "$PATH" > path'))[0] == 0
    assert (node.work / "path").read_text().strip() == f"{conf.SYSTEM_PATH}:{node.folder}"


def test_a_signal_reaches_the_whole_group_of_a_container(node: Node) -> None:
    process = node.begin(*node.launch_words("sleep 600 & wait"))
    deadline = time.monotonic() + 20
    while not node.pid_file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = node.pid_file.read_text()
    assert os.getpgid(int(pid)) == int(pid) != os.getpgid(0)
    assert node.call("ann", "ann", "2", pid, "0")[0] == 0
    assert node.call("ann", "ann", "2", pid, str(int(signal.SIGKILL)))[0] == 0
    assert process.wait(timeout=10) == 137
    process.communicate()
    assert node.call("ann", "ann", "2", pid, "0")[0] == 9


def test_the_localizer_finds_tokens_and_folders(node: Node) -> None:
    tokens = str(node.private / "c_1.tokens")
    words = ["ann", "ann", "0", "app_1", "c_1", tokens, str(node.local), str(node.logs), "/bin/sh", "-c", "pwd; ls"]
    code, said, _ = node.call(*words)
    assert (code, said.split()) == (0, [str(node.local / "usercache/ann/appcache/app_1"), "c_1.tokens"])
    assert (node.logs / "app_1" / "c_1").is_dir()


def test_a_docker_container_is_started_awaited_and_its_code_kept(node: Node) -> None:
    (node.folder / "code").write_text("3\n")
    assert node.call(*node.docker_words())[0] == 3
    assert node.pid_file.read_text() == "4242"
    assert (node.private / "c_1.pid.exitcode").read_text() == "3"
    first, *_, last = node.asked.splitlines()
    assert first.startswith("run --detach --name=c_1") and last == "wait c_1"


def test_a_container_that_docker_does_not_start_ends_with_its_words(node: Node) -> None:
    (node.folder / "fails").touch()
    code, _, complained = node.call(*node.docker_words())
    assert code == 7 and "no such image" in complained
    assert node.asked.count("\n") == 1


def test_what_the_policy_forbids_never_reaches_docker(node: Node) -> None:
    code, _, complained = node.call(*node.docker_words(mounts="/no/such/place:/x:ro"))
    assert code == 29 and "/no/such/place" in complained
    assert not (node.folder / "asked").exists()


def test_trees_are_removed_though_they_are_read_only(node: Node) -> None:
    deep = node.local / "usercache" / "ann" / "deep"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    deep.chmod(0o500)
    assert node.call("ann", "ann", "3", "usercache/ann", str(node.local))[0] == 0
    assert not (node.local / "usercache" / "ann").exists()
    assert node.call("ann", "ann", "3", "", str(node.local / "gone"))[0] == 0


def test_questions_about_containers_are_passed_on(node: Node) -> None:
    assert node.call("--inspect-docker-container", "--format={{.State.Pid}}", "c_1")[:2] == (0, "4242\n")
    assert node.call("--remove-docker-container", "c_1")[0] == 0
    assert node.asked.splitlines()[-1] == "rm --force c_1"
    assert node.call("--checksetup")[0] == 0
    assert node.call("--mount-cgroups", "x")[0] == 32
