"""Jobs in Docker images on a real YARN, with the real Docker engine. Nodes end successes as late as production's."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from command_line import Tony, user_of, wait_for
from private_registry import AUTH, PASSWORD, PrivateRegistry, private_registry

from tony.hadoop import HadoopConf
from tony.localcluster.cluster import ClusterSettings, LocalCluster, user_name
from tony.packaging.runtime import this_python
from tony.storage import Storage

# Images and the engine are made in the fixtures, each wait of which has a bound of its own.
pytestmark = pytest.mark.timeout(300, func_only=True)

ROOT = Path(__file__).parents[2]
IMAGE, NO_PYTHON, UNTRUSTED = "local/tony-test:1", "local/tony-no-python:1", "elsewhere/tony-test:1"
ENGINE_S = 30.0
LATE_S = 27.0
"""Between the end of a container that succeeds and its end in YARN's eyes: nine pauses of 3 s."""
POLICY = """\
trusted-registries = local, {registry}
networks = host
ro-mounts = /etc/passwd, /etc/group, {shared}
rw-mounts =
inspect-max-retries = 10
"""


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    """A Docker engine: the one that is there, else one of these tests' own, where they may start it."""
    if shutil.which("docker") is None:
        pytest.skip("there is no Docker client (apt-get install docker.io)")
    if docker("version").returncode == 0:
        yield
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("no Docker engine answers, and only root can start one (apt-get install docker.io)")
    folder = Path(tempfile.mkdtemp(prefix="tony-docker-"))
    socket = f"unix://{folder}/s"
    command = ["dockerd", "--host", socket, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/pid", "--bridge", "none", "--iptables=false"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    here = pytest.MonkeyPatch()
    here.setenv("DOCKER_HOST", socket)
    try:
        deadline = time.monotonic() + ENGINE_S
        while docker("version").returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = (folder / "log").read_text().strip().splitlines()[-1:]
                pytest.skip(f"dockerd does not start here: {''.join(last)}")
            time.sleep(0.1)
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)
        # The engine leaves its network's name mounted.
        subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, timeout=30)
        here.undo()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def images(engine: None) -> Iterator[None]:
    """An image with this machine's Python, the same from another registry, and one without any Python."""
    made = subprocess.run([str(ROOT / "docker" / "test-image.sh"), IMAGE], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert docker("tag", IMAGE, UNTRUSTED).returncode == 0
    made = subprocess.run([str(ROOT / "docker" / "test-image.sh"), NO_PYTHON, "none"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    yield
    docker("rmi", "--force", IMAGE, UNTRUSTED, NO_PYTHON)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the nodes that jobs may mount."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "greeting").write_text("hello from the node\n")
    return folder


@pytest.fixture(scope="module")
def registry(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRegistry]:
    """A registry with the same image that wants a password."""
    saved = tmp_path_factory.mktemp("registry") / "image.tar"
    assert docker("save", "--output", str(saved), IMAGE).returncode == 0
    with private_registry(saved) as found:
        yield found
    docker("rmi", "--force", f"{found.name}/team/private:1")


@pytest.fixture(scope="module")
def docker_cluster(
    registry: PrivateRegistry, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    policy = tmp_path_factory.mktemp("policy") / "policy"
    policy.write_text(POLICY.format(shared=shared, registry=registry.name))
    cluster = LocalCluster(tmp_path_factory.mktemp("docker-yarn"))
    settings = ClusterSettings(nodes=1, memory_mb=6144, vcores=32, docker=True, docker_policy=str(policy))
    try:
        cluster.start(settings)
        yield cluster
    finally:
        cluster.stop()
    left = docker("ps", "--all", "--quiet", "--filter", f"label=tony.local-cluster={cluster.home}")
    assert left.stdout == ""


@pytest.fixture(scope="module")
def yarn_environment(
    docker_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Variables of a user of the cluster with Docker."""
    with user_of(docker_cluster, tmp_path_factory.mktemp("docker-state")) as variables:
        yield variables


@pytest.fixture
def backend(engine: None) -> str:
    return "yarn"


def flags(image: str = IMAGE, *more: str) -> tuple[str, ...]:
    # "auto" is what a user has; the fixture's "none" means the same in an image.
    return ("--image", image, *more)


def content_of(path: Path) -> bytes:
    """Empty for a folder, and for a file that was just removed."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return b""


def test_a_job_trains_in_an_image_and_is_over_when_its_tasks_are(tony: Tony, shared: Path) -> None:
    mount = f"{shared}:/shared:ro"
    began = time.monotonic()
    done = tony.submit("trains_with_sockets.py", "/shared/greeting", flags=flags(IMAGE, "--mount", mount))
    assert done.returncode == 0, done.stderr
    took_s = time.monotonic() - began
    timeline = json.loads(done.stdout)["timeline"]
    # Were the ends of the containers awaited, it would have taken longer by their lateness.
    assert took_s - timeline["last_exit"] < LATE_S / 2, timeline
    # What tasks print is followed on stderr beside a document on stdout.
    assert done.stderr.count("mounted: hello from the node") == 2
    assert len(re.findall(r"in Docker: True, slope (?:2\.99|3\.00)", done.stderr)) == 2


def test_a_task_keeps_its_exit_code(tony: Tony) -> None:
    code, document = tony.begin("exit_3.py", flags=flags()).result()
    assert (code, document["reason"], document["first_failure"]["exit_code"]) == (100, "WORKER_EXIT", 3)


def test_an_image_behind_a_password_is_pulled_and_the_password_stays_where_it_is(
    tony: Tony, docker_cluster: LocalCluster, registry: PrivateRegistry
) -> None:
    image = f"{registry.name}/team/private:1"
    base = HadoopConf.load(docker_cluster.conf_dir).storage_base(user_name())
    with closing(Storage(base)) as storage:
        storage.write("docker.json", registry.client_config().encode())
        config = storage.url("docker.json")
    # This machine's Docker has not got the image, so that nobody but the node knows its PATH.
    given = ("--workers", "1", "--image-python", this_python())
    code, found = tony.begin("exit_0.py", flags=flags(image, *given)).result(150.0)
    assert (code, found["reason"]) == (100, "BAD_IMAGE")
    assert "the registry wants a password" in found["message"]
    done = tony.submit("exit_0.py", flags=flags(image, *given, "--docker-client-config", "hdfs:///no/such.json"))
    assert done.returncode == 3 and "there is no such file" in done.stdout

    given += ("--docker-client-config", config, "--docker-user-names", "--docker-shm-size", "1g")
    done = tony.submit("shows_container.py", flags=flags(image, *given))
    assert done.returncode == 0, done.stderr
    assert f"user {user_name()}, {len(pwd.getpwall())} names" in done.stderr
    shared_memory = re.search(r"shared memory (\d+) MB", done.stderr)
    assert shared_memory is not None and int(shared_memory[1]) >= 1024
    application_id = json.loads(done.stdout)["application_id"]
    told = [done.stdout.encode(), done.stderr.encode(), tony.run("logs", application_id).stdout.encode()]
    with closing(Storage(base)) as storage:
        told += [
            storage.read(f"jobs/{application_id}/{name}")
            for name in storage.list(f"jobs/{application_id}")
            if "." in name
        ]
    for place in ("logs", "data/nm1/logs"):
        told += [content_of(path) for path in (docker_cluster.home / place).rglob("*")]
    assert len(told) > 10
    assert not [text for text in told for secret in (PASSWORD, AUTH) if secret.encode() in text]


def test_a_killed_job_saves_within_its_grace_and_leaves_no_container(tony: Tony) -> None:
    job = tony.begin("checkpoints_on_sigterm.py", flags=flags())
    job.processes("user")
    application_id = job.application_id()
    assert tony.run("kill", application_id).returncode == 0
    code, document = job.result()
    assert (code, document["reason"]) == (103, "CANCELLED")
    assert "saved" in tony.run("logs", application_id).stdout
    wait_for(lambda: docker("ps", "--quiet").stdout == "", timeout_s=LATE_S)


def test_what_a_node_refuses_ends_at_once_with_its_own_sentence(tony: Tony, shared: Path) -> None:
    (shared / "python3.11").write_text("#!/bin/sh\necho 'it is broken' >&2; exit 1\n")
    (shared / "python3.11").chmod(0o755)
    broken = ("--mount", f"{shared}:/shared", "--image-python", "/shared/python3.11")
    known = ("--image-python", this_python())
    cases = {
        "no such image": flags("local/absent:9", *known),
        f"has no python{this_python()}": flags(NO_PYTHON, *known),
        "is no Python that runs: it is broken": flags(IMAGE, *broken),
        "does not trust": flags(UNTRUSTED),
        "mount is not allowed": flags(IMAGE, "--mount", "/etc/shadow:/secret:ro"),
    }
    jobs = {said: tony.begin("exit_0.py", flags=("--workers", "1", *given)) for said, given in cases.items()}
    for said, job in jobs.items():
        code, document = job.result(150.0)
        assert (code, document["reason"]) == (100, "BAD_IMAGE"), document
        assert document["generations"] == 1
        assert said in document["message"], document
