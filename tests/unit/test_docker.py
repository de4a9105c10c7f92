"""Docker jobs as values: what is refused before the submit, and what YARN is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tony import docker
from tony.config.layers import Request
from tony.config.resolve import resolve
from tony.errors import Problem, UsageError
from tony.hadoop import HadoopConf
from tony.plan import JobSecrets, Plan
from tony.spec import DockerSpec, ImagePython, JobRecord, JobSpec, Mount, RoleSpec, Upload
from tony.yarn.docker import cluster_problems, docker_environment
from tony.yarn.scripts import image_script
from tony.yarn.specification import application_spec

IMAGE = "registry.example:5000/team/train:1.0"


@pytest.mark.parametrize(
    "good", ["ubuntu", "local/py:1", "a.b-c/d_e/f", IMAGE, "localhost:5000/x:Tag_1", "Registry.example/a/b:V"]
)
def test_names_of_images_are_taken(good: str) -> None:
    assert docker.image(good) is None


@pytest.mark.parametrize(
    "bad",
    [
        *("", " ", "-v", "--privileged", "a b", "a,b", "a;b", "$(id)", "a\nb", "a/../b", "/a", "a/", "Team/Train/x"),
        *("a@sha256:" + "0" * 64, "https://r.example/a", "a:-rm", "a:" + "t" * 129, "a" * 300, "é", "a:b:c", "a:"),
    ],
)
def test_what_could_be_an_option_or_two_words_is_no_image(bad: str) -> None:
    assert docker.image(bad)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data:/data", Mount("/data", "/data")),
        ("/data:/in:ro", Mount("/data", "/in")),
        ("/scratch/a+b:/s:rw", Mount("/scratch/a+b", "/s", True)),
    ],
)
def test_mounts_are_read_only_unless_told(text: str, mount: Mount) -> None:
    assert docker.mount(text) == (mount, None)


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "/data",
            "data:/data",
            "/data:data",
            "/a:/b:rw,/etc:/etc",
            "/a:/b:rshared",
            "/a:/b:",
            "/a,/c:/b",
            "/a/../b:/c",
        ),
        *("/a b:/c", "/a:/", "/a:/proc", "/a:/dev/shm", "/a:/$(id)", "/a\n:/b", "", ":", "/a:/b:ro:rw", "-v:/a"),
    ],
)
def test_a_mount_smuggles_nothing(bad: str) -> None:
    assert docker.mount(bad)[1]


@pytest.mark.parametrize("bad", ["none", "", "container:x", "host --privileged", "a,b", "-x", "a" * 65])
def test_networks_without_a_way_to_the_master_are_refused(bad: str) -> None:
    assert docker.network(bad)
    assert docker.network("bridge") is None


@pytest.mark.parametrize("bad", ["3.9", "2.7", "python", "/usr/bin/../python", "/a b", "3.11 -c x", "/usr/bin/"])
def test_the_images_python_is_a_version_or_a_path(bad: str) -> None:
    assert docker.python(bad)
    assert docker.python("3.12") is None and docker.python("/opt/conda/bin/python") is None


@pytest.mark.parametrize(
    "bad", ["config.json", "/home/ada/.docker/config.json", "https://x/c.json", "hdfs://nn/a b", "hdfs://u@nn/a"]
)
def test_credentials_of_a_registry_are_named_by_their_place_only(bad: str) -> None:
    assert docker.client_config(bad)
    assert docker.client_config("hdfs://nn:8020/user/ada/docker/config.json") is None
    assert docker.client_config("hdfs:///user/ada/config.json") is None


def resolved(folder: Path, **flags: list[str]) -> JobSpec:
    (folder / "train.py").write_text("")
    named = {name.replace("__", "."): texts for name, texts in flags.items()}
    return resolve(Request(flags=named, script="train.py", folder=folder, environ={})).job


def problems(folder: Path, **flags: list[str]) -> list[Problem]:
    with pytest.raises(UsageError) as caught:
        resolved(folder, **flags)
    return list(caught.value.problems)


def test_an_image_is_for_every_role_unless_one_has_its_own(tmp_path: Path) -> None:
    job = resolved(
        tmp_path,
        image=[IMAGE],
        role=["worker:2", "ps:1", "board:1"],
        role_image=["ps=local/ps:1", "board=none"],
    )
    assert {role.name: role.image for role in job.roles} == {"worker": IMAGE, "ps": "local/ps:1", "board": None}
    assert job.images == (IMAGE, "local/ps:1")


def test_every_mistake_about_docker_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        image=["--privileged"],
        role_image=["wroker=a:1"],
        docker__mounts=["/a:/b", "/c:/b", "x"],
        docker__network=["none"],
        docker__shm_size=["1m"],
        image_python=["3.8"],
    )
    assert sorted(problem.key for problem in found) == [
        "docker.mounts",
        "docker.mounts",
        "docker.network",
        "docker.shm_size",
        "image",
        "image_python",
        "role_image",
    ]


def test_a_docker_setting_without_an_image_is_a_mistake_of_the_user_but_not_of_a_site(tmp_path: Path) -> None:
    assert [problem.key for problem in problems(tmp_path, docker__network=["bridge"])] == ["docker.network"]
    (tmp_path / "train.py").write_text("")
    site = tmp_path / "site.yaml"
    site.write_text("docker: {network: overlay}\n")
    request = Request(script="train.py", folder=tmp_path, environ={"TONY_SITE": str(site)})
    assert resolve(request).job.docker.network == "overlay"


def job(**changes: Any) -> JobSpec:
    roles = (RoleSpec("worker", ("w.py",), image=IMAGE), RoleSpec("board", ("b.py",), sidecar=True))
    return replace(JobSpec("mnist", roles), **changes)


def test_yarn_is_told_image_network_and_mounts_and_nothing_else() -> None:
    told = docker_environment(job(), job().role("worker"))
    assert told == {
        "YARN_CONTAINER_RUNTIME_TYPE": "docker",
        "YARN_CONTAINER_RUNTIME_DOCKER_IMAGE": IMAGE,
        "YARN_CONTAINER_RUNTIME_DOCKER_CONTAINER_NETWORK": "host",
    }
    mounts = (Mount("/data", "/data"), Mount("/scratch", "/s", True))
    full = job(docker=DockerSpec(mounts, "overlay", 2048, True, "hdfs:///c.json"))
    told = docker_environment(full, full.role("worker"))
    assert told["YARN_CONTAINER_RUNTIME_DOCKER_MOUNTS"] == (
        "/data:/data:ro,/scratch:/s:rw,/etc/passwd:/etc/passwd:ro,/etc/group:/etc/group:ro"
    )
    assert told["YARN_CONTAINER_RUNTIME_DOCKER_TMPFS_MOUNTS"] == "/dev/shm"
    assert told["YARN_CONTAINER_RUNTIME_DOCKER_CLIENT_CONFIG"] == "hdfs:///c.json"
    assert docker_environment(full, full.role("board")) == {}


def upload(name: str, sha256: str = "0" * 64) -> Upload:
    return Upload(name, f"hdfs://nn:8020/cache/{sha256}", sha256, 10)


def specification(spec: JobSpec) -> dict[str, Any]:
    record = JobRecord(
        spec,
        "ada",
        "webhdfs://nn:9870/user/ada/.tony",
        "/usr/bin/python3.11",
        "{environment}/bin/python",
        runtime=upload("runtime.tar.gz"),
        environment=upload("environment.tar.gz"),
        images={
            "worker": ImagePython("python3.12", "python3.12", upload("runtime.tar.gz", "1" * 64)),
        },
    )
    launcher = Path("/tmp/staged/tony-launch.py")
    return application_spec(Plan(spec, "yarn", record), JobSecrets("C", "K", "O"), launcher, {})


def test_only_the_tasks_run_in_docker_with_the_bundle_for_their_python() -> None:
    made = specification(job())
    worker, board, master = made["services"]["worker"], made["services"]["board"], made["master"]
    assert worker["env"]["YARN_CONTAINER_RUNTIME_TYPE"] == "docker"
    for other in (board, master):
        assert not [name for name in other["env"] if name.startswith("YARN_CONTAINER_RUNTIME")]
    assert worker["files"]["runtime.tar.gz"]["source"].endswith("1" * 64)
    assert board["files"]["runtime.tar.gz"]["source"] == master["files"]["runtime.tar.gz"]["source"]
    assert "environment.tar.gz" in board["files"] and "environment.tar.gz" not in worker["files"]
    assert "python=python3.12" in worker["script"] and "python3.12" not in board["script"]


def test_a_job_that_was_not_made_from_settings_is_checked_too() -> None:
    worker = RoleSpec("worker", ("w.py",), image="--privileged")
    bad = job(roles=(worker,), docker=DockerSpec((Mount("/a,/etc:/x", "/b"),), "none"))
    with pytest.raises(UsageError) as caught:
        specification(bad)
    keys = {problem.key for problem in caught.value.problems}
    assert keys >= {"roles.worker.image", "docker.mounts", "docker.network"}


def test_a_cluster_whose_configuration_excludes_docker_refuses_images() -> None:
    runtimes = "yarn.nodemanager.runtime.linux.allowed-runtimes"

    def found(**properties: str) -> list[str]:
        conf = HadoopConf(Path("/conf"), {name.replace("__", "."): text for name, text in properties.items()})
        return [problem.key for problem in cluster_problems(job(), conf)]

    assert found() == []
    assert found(**{runtimes: "default"}) == ["image"]
    assert found(**{runtimes: "default,docker"}) == []
    networks = "yarn.nodemanager.runtime.linux.docker.allowed-container-networks"
    assert found(**{runtimes: "docker", networks: "bridge"}) == ["docker.network"]
    assert found(**{"yarn.nodemanager.container-executor.class": "a.b.DefaultContainerExecutor"}) == ["image"]


def test_the_script_in_an_image_quotes_the_path_of_its_python() -> None:
    assert "python='/opt/a b'" in image_script("/opt/a b")
