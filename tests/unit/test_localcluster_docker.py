"""The Docker part of the local cluster: what our stand-in for YARN's native program runs, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tony.errors import Refused as RefusedStart
from tony.errors import UsageError
from tony.localcluster import conf, engine
from tony.localcluster.containerexecutor import Command, Policy, Refused, client_arguments, run_arguments
from tony.localcluster.ports import Ports
from tony.localcluster.settings import ClusterSettings, chosen_settings

RUN = {
    "docker-command": "run",
    "name": "container_1",
    "image": "local/py:1",
    "user": "1000:1000",
    "detach": "true",
    "workdir": "/place",
    "net": "host",
    "cap-drop": "ALL",
    "cap-add": "CHOWN,KILL",
    "group-add": "1000,27",
    "launch-command": "bash,/place/launch_container.sh",
}


def command(tmp_path: Path, **values: str) -> Command:
    path = tmp_path / "docker.cmd"
    lines = [f"  {key.replace('_', '-')}={value}" for key, value in {**RUN, **values}.items()]
    path.write_text("\n".join(["[docker-command-execution]", *lines]) + "\n")
    return Command(str(path))


def policy(tmp_path: Path, *lines: str) -> Policy:
    path = tmp_path / "policy.ini"
    path.write_text("\n".join(lines))
    return Policy(str(path))


def test_a_container_is_run_as_the_node_manager_says(tmp_path: Path) -> None:
    arguments = run_arguments(command(tmp_path), policy(tmp_path, "label = tony.local-cluster=/s"), ())
    image = arguments.index("local/py:1")
    assert arguments[image:] == ["local/py:1", "bash", "/place/launch_container.sh"]
    assert set(arguments[:image]) >= {
        *("run", "--detach", "--name=container_1", "--label=tony.local-cluster=/s", "--user=1000:1000"),
        *("--workdir=/place", "--net=host", "--cap-drop=ALL", "--cap-add=CHOWN", "--cap-add=KILL", "--group-add=27"),
    }


@pytest.mark.parametrize(
    "values",
    [{"image": "--privileged"}, {"image": ""}, {"name": "-f"}, {"privileged": "true"}, {"use-entry-point": "true"}],
)
def test_nothing_can_pass_for_an_option_of_the_client(tmp_path: Path, values: dict[str, str]) -> None:
    with pytest.raises(Refused):
        run_arguments(command(tmp_path, **values), policy(tmp_path), ())


def test_mounts_are_those_that_the_policy_and_the_node_allow(tmp_path: Path) -> None:
    data, own, secret = (tmp_path / name for name in ("data", "local", "secret"))
    for folder in (data, own, secret):
        folder.mkdir()
    rules = policy(tmp_path, f"ro-mounts = {data}", "rw-mounts =")

    def mounted(mount: str) -> list[str]:
        made = run_arguments(command(tmp_path, mounts=mount), rules, [str(own)])
        return [word for word in made if word.startswith("--volume")]

    assert mounted(f"{data}:/data:ro") == [f"--volume={data}:/data:ro"]
    assert mounted(f"{own}/:/own:rw") == [f"--volume={own}:/own:rw"]
    for refused in (f"{data}:/data:rw", f"{secret}:/s:ro", f"{tmp_path}/nothing:/x:ro", f"{data}/../secret:/x:ro"):
        with pytest.raises(Refused):
            mounted(refused)
    (data / "link").symlink_to(secret)
    with pytest.raises(Refused):
        mounted(f"{data}/link:/x:ro")


def test_without_a_policy_everything_is_allowed(tmp_path: Path) -> None:
    made = run_arguments(command(tmp_path, mounts=f"{tmp_path}:/x:rw", tmpfs="/dev/shm"), policy(tmp_path), ())
    assert f"--volume={tmp_path}:/x:rw" in made and "--tmpfs=/dev/shm" in made


def test_an_image_of_an_unknown_registry_runs_without_mounts_and_rights_as_on_a_real_node(tmp_path: Path) -> None:
    made = run_arguments(
        command(tmp_path, mounts=f"{tmp_path}:/x:rw"), policy(tmp_path, "trusted-registries = library,other"), ()
    )
    assert not [word for word in made if word.startswith(("--volume", "--cap-add"))]
    assert "--cap-drop=ALL" in made


def test_networks_and_capabilities_can_be_forbidden(tmp_path: Path) -> None:
    for line in ("networks = bridge", "capabilities = CHOWN"):
        with pytest.raises(Refused):
            run_arguments(command(tmp_path), policy(tmp_path, line), ())


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ({"docker-command": "inspect", "format": "{{.State.Pid}}"}, ["inspect", "--format={{.State.Pid}}"]),
        ({"docker-command": "kill", "signal": "SIGTERM"}, ["kill", "--signal=SIGTERM"]),
        ({"docker-command": "stop"}, ["stop", "--time=10"]),
        ({"docker-command": "rm"}, ["rm"]),
    ],
)
def test_other_calls_of_the_client_name_their_container(
    tmp_path: Path, values: dict[str, str], arguments: list[str]
) -> None:
    assert client_arguments(command(tmp_path, **values)) == [*arguments, "container_1"]


def test_a_call_that_node_managers_do_not_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        client_arguments(command(tmp_path, **{"docker-command": "exec"}))


def test_every_bad_line_of_a_policy_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    path.write_text("# what is allowed\nnetworks = host\nrw-mounts\nbinary = /bin/sh\ninspect-max-retries = 0\n")
    with pytest.raises(UsageError) as caught:
        engine.read_policy(path)
    assert len(caught.value.problems) == 3
    path.write_text("networks = host, bridge\n\n# none more\n")
    assert engine.read_policy(path) == {"networks": "host, bridge"}


def test_the_stand_in_is_installed_with_an_interpreter_that_needs_no_path(tmp_path: Path) -> None:
    home, bin_dir = tmp_path / "home", tmp_path / "bin"
    engine.install(bin_dir, home, None, {"PATH": "", "DOCKER_HOST": "unix:///run/d.sock"})
    program = bin_dir / engine.PROGRAM
    assert program.stat().st_mode & 0o777 == 0o755
    first = program.read_text().splitlines()[0]
    assert first.startswith("#!/") and first.endswith(" -IS") and Path(first[2:].split()[0]).exists()
    assert (bin_dir / "container-executor.ini").read_text().splitlines() == [
        "binary = docker",
        "host = unix:///run/d.sock",
        f"label = tony.local-cluster={home}",
        f"path = {conf.SYSTEM_PATH}",
    ]


def test_a_machine_without_docker_is_told_what_to_install() -> None:
    with pytest.raises(RefusedStart) as caught:
        engine.check({"PATH": "/nonexistent"})
    assert "docker.io" in (caught.value.hint or "")


def test_yarn_gets_the_stand_in_and_its_own_docker_runtime() -> None:
    settings = ClusterSettings(nodes=1, memory_mb=2048, vcores=16, docker=True)
    extra = engine.properties(Path("/s/bin"), "ann", "staff", 1000)
    texts = conf.files(
        Path("/s"), Path("/j"), Ports(21000, 1), settings, user="ann", user_home="/home/ann", yarn=extra
    )
    root = ElementTree.fromstring(texts["yarn-site.xml"].encode())
    yarn = {item.findtext("name"): item.findtext("value") for item in root}
    assert yarn["yarn.nodemanager.linux-container-executor.path"] == "/s/bin/container-executor"
    assert yarn["yarn.nodemanager.linux-container-executor.nonsecure-mode.local-user"] == "ann"
    assert yarn["yarn.nodemanager.runtime.linux.allowed-runtimes"] == "default,docker"
    assert "no separation of users" in settings.summary()


def test_docker_stays_as_it_was_until_it_is_switched_off() -> None:
    first = chosen_settings(nodes=1, memory_mb=2048, docker=True, docker_policy="/p")
    assert ClusterSettings.from_record(first.to_record()) == first
    again = chosen_settings(earlier=first)
    assert (again.docker, again.docker_policy) == (True, "/p")
    free = chosen_settings(earlier=first, docker_policy="none")
    assert (free.docker, free.docker_policy) == (True, None)
    off = chosen_settings(earlier=first, docker=False)
    assert (off.docker, off.docker_policy, off.problems()) == (False, None, ())
    assert chosen_settings(nodes=1, memory_mb=2048, docker_policy="/p").docker
