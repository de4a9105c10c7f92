"""What is handed to YARN: nothing in it can be misread by bash, and no secret is where others can see it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tony.errors import TonyError, Unreachable, UsageError
from tony.plan import JobSecrets, Plan
from tony.spec import JobRecord, JobSpec, Resources, RoleSpec, Upload
from tony.yarn.driver import driver_command, empty_jar
from tony.yarn.fastbeat import beat_jar, beat_ms
from tony.yarn.scripts import executor_script
from tony.yarn.specification import application_spec, plain_environment
from tony.yarn.submitter import Submitter

SECRETS = JobSecrets("CERTIFICATE", "KEY", "OWNER", {"TOKEN": "SECRET"})
LAUNCHER = Path("/tmp/staged/tony-launch.py")
MASTER_FILES = {"tony-job.json": Path("/tmp/staged/tony-job.json"), "tony-secrets.json": Path("/tmp/staged/x")}
HOSTILE = [
    "$(touch /tmp/x)",
    "`id`",
    'a"b',
    "a'b",
    "a b",
    "a;b",
    "a\nb",
    "a\\b",
    "{{HOME}}",
    "<LOG_DIR>",
    "é",
    "a$HOME",
]


def upload(name: str) -> Upload:
    return Upload(name, f"hdfs://nn:8020/cache/{name}", "0" * 64, 10)


def job(**changes: Any) -> JobSpec:
    roles = (
        RoleSpec("ps", ("ps.py",), instances=1, resources=Resources(512, 1)),
        RoleSpec("worker", ("w.py",), instances=4, resources=Resources(2048, 2, 4), env={"X": "$(id)"}),
    )
    return replace(JobSpec("mnist", roles, env={"Y": "$(id)"}), **changes)


def plan(spec: JobSpec | None = None, **changes: Any) -> Plan:
    spec = spec or job()
    record = JobRecord(
        spec=spec,
        user="ada",
        storage="webhdfs://nn:9870/user/ada/.tony?fs=hdfs://nn:8020",
        python="/usr/bin/python3.11",
        user_python="{environment}/bin/python",
        runtime=upload("runtime.tar.gz"),
        environment=upload("environment.zip"),
        source=upload("source.tar.gz"),
        files=(upload("data.zip"),),
        role_files={"worker": (upload("vocab.txt"),)},
    )
    return Plan(spec, "yarn", replace(record, **changes))


def built(made: Plan, **more: Any) -> dict[str, Any]:
    return application_spec(made, SECRETS, LAUNCHER, MASTER_FILES, **more)


def test_services_start_nothing_themselves_and_never_decide_the_jobs_fate() -> None:
    services = built(plan())["services"]
    assert list(services) == ["ps", "worker"]
    for service in services.values():
        assert (service["instances"], service["max_restarts"], service["allow_failures"]) == (0, 0, True)
    assert services["worker"]["resources"] == {"memory": 2048, "vcores": 2, "gpus": 4}


def test_every_container_gets_its_files_and_only_the_master_the_secrets() -> None:
    made = built(plan())
    common = {"tony-launch.py", "runtime.tar.gz", "environment.zip", "source.tar.gz", "data.zip"}
    assert set(made["services"]["ps"]["files"]) == common
    assert set(made["services"]["worker"]["files"]) == common | {"vocab.txt"}
    assert set(made["master"]["files"]) == {"tony-launch.py", "runtime.tar.gz", *MASTER_FILES}


def test_uploads_stay_on_the_node_for_the_next_job_and_are_never_unpacked_by_yarn() -> None:
    made = built(plan())
    for files in (made["master"]["files"], *(service["files"] for service in made["services"].values())):
        assert {file["type"] for file in files.values()} == {"FILE"}
        assert files["runtime.tar.gz"] == {
            "source": "hdfs://nn:8020/cache/runtime.tar.gz",
            "type": "FILE",
            "visibility": "PRIVATE",
        }


def test_the_masters_jar_comes_from_the_cache_and_goes_to_no_task() -> None:
    made = built(plan(jar=upload("skein.jar")))
    assert made["master"]["files"]["skein.jar"] == {
        "source": "hdfs://nn:8020/cache/skein.jar",
        "type": "FILE",
        "visibility": "PRIVATE",
    }
    assert not [service for service in made["services"].values() if "skein.jar" in service["files"]]


def test_the_driver_has_next_to_nothing_to_upload_for_each_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tony.yarn.driver.find_java", lambda: "java")
    command = driver_command(tmp_path)
    jar = Path(command[command.index("--jar") + 1])
    assert jar.parent == tmp_path and jar.stat().st_size < 1000
    assert zipfile.ZipFile(jar).namelist() == ["META-INF/MANIFEST.MF"]
    assert empty_jar() == jar.read_bytes()


def test_no_secret_is_in_an_environment_a_script_or_a_service() -> None:
    made = built(plan())
    master = made["master"]
    assert master["security"] == {"cert_bytes": "CERTIFICATE", "key_bytes": "KEY"}
    rest = json.dumps({**made, "master": {**master, "security": None}})
    assert not [secret for secret in ("CERTIFICATE", "KEY", "OWNER", "SECRET", "TOKEN") if f'"{secret}"' in rest]


def test_the_users_environment_is_not_in_the_launch_environment() -> None:
    made = built(plan())
    assert "$(id)" not in json.dumps(made)
    for environment in (made["master"]["env"], *(service["env"] for service in made["services"].values())):
        assert environment["TONY_BACKEND"] == "yarn" and environment["TONY_RUNTIME"] == "runtime.tar.gz"
        others = {name: value for name, value in environment.items() if name != "JDK_JAVA_OPTIONS"}
        assert all(re.fullmatch(r"[A-Za-z0-9_./:@%+=,-]*", value) for value in others.values())


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_never_reach_a_launch_environment(value: str) -> None:
    with pytest.raises(TonyError, match="TONY_TASK"):
        plain_environment({"TONY_TASK": value})
    with pytest.raises(TonyError, match="TONY_RUNTIME_PATH"):
        built(plan(runtime=None), runtime_path=["/opt/tony", value])


@pytest.mark.parametrize("name", ["", "A B", "A=B", "A;B", "1A", "A-B", "A$(id)", "é", "A\n"])
def test_hostile_names_never_reach_a_launch_environment(name: str) -> None:
    with pytest.raises(TonyError):
        plain_environment({name: "x"})


def test_plain_values_pass_as_they_are() -> None:
    environment = {"TONY_AM_ADDRESS": "n1.example:40001", "TONY_TASK": "worker:0", "A": "/a/b_c@d%e+f=g,h-1", "B": ""}
    assert plain_environment(environment) == environment


@pytest.mark.parametrize("name", ["", "a b", "$(id)", "1x", "a/b", "é", "a" * 64, "-x"])
def test_hostile_role_names_never_reach_a_command_line(name: str) -> None:
    with pytest.raises(UsageError, match="role name"):
        built(plan(job(roles=(RoleSpec(name, ("x.py",)),))))


@pytest.mark.parametrize("python", ["python3", "../python", "/usr/bin/python\n"])
def test_an_interpreter_must_be_an_absolute_path(python: str) -> None:
    with pytest.raises(UsageError, match="absolute path"):
        built(plan(python=python))


@pytest.mark.parametrize(
    "name", ["", ".skein.pem", "a/b", "tony-secrets.json", "tony-launch.py", "runtime.tar.gz", "$x"]
)
def test_files_cannot_take_the_place_of_ours_or_leave_the_folder(name: str) -> None:
    with pytest.raises(UsageError):
        built(plan(files=(upload(name),)))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", ""])
def test_files_that_nodes_cannot_read_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="shared storage"):
        built(plan(source=replace(upload("s.zip"), url=url)))


def test_all_problems_are_told_at_once() -> None:
    broken = plan(job(roles=(RoleSpec("a b", ("x.py",)),), tags=("é",), view_users=("a b",)), python="python")
    with pytest.raises(UsageError) as raised:
        built(broken)
    assert [problem.key for problem in raised.value.problems] == ["python", "roles.a b", "tags", "view_users"]


def test_owner_only_is_the_default_and_others_are_named() -> None:
    assert built(plan())["acls"] == {"enable": True, "view_users": [], "modify_users": [], "ui_users": []}
    shared = built(plan(job(view_users=("bob",), modify_users=("eve",))))["acls"]
    assert (shared["view_users"], shared["modify_users"], shared["ui_users"]) == (["bob"], ["eve"], ["bob"])


def test_queue_label_tags_attempts_and_nodes_are_passed_on() -> None:
    roles = (RoleSpec("a", ("x.py",), node_label="gpu"), RoleSpec("b", ("x.py",), nodes=("n1",)))
    made = built(
        plan(job(roles=roles, queue="q", node_label="big", tags=("t",), am_attempts=2, nodes=("n2",))), tags=("m",)
    )
    assert (made["queue"], made["node_label"], made["tags"], made["max_attempts"]) == (
        "q",
        "big",
        ["m", "t", "tony"],
        2,
    )
    assert [made["services"][name]["node_label"] for name in "ab"] == ["gpu", "big"]
    assert [made["services"][name]["nodes"] for name in "ab"] == [["n2"], ["n1"]]


def test_a_huge_job_gives_skeins_master_a_larger_heap() -> None:
    huge = plan(job(roles=(RoleSpec("w", ("x.py",), instances=5000),)))
    assert "_JAVA_OPTIONS" not in built(plan())["master"]["env"]
    assert built(huge)["master"]["env"]["_JAVA_OPTIONS"] == "-Xmx512m"


def test_skein_takes_the_specification() -> None:
    from tony.yarn.skeinlink import check_specification

    made = built(plan())
    check_specification(made)
    made["services"]["ps"]["instances"] = "many"
    with pytest.raises(TonyError, match="skein does not take"):
        check_specification(made)


def test_the_executor_takes_the_place_of_its_shell() -> None:
    last = executor_script("/usr/bin/python3").splitlines()[-1]
    assert last == "exec /usr/bin/python3 -I tony-launch.py executor"


def test_the_beat_jar_holds_the_whole_yarn_site_and_a_shorter_interval() -> None:
    site = {
        "yarn.resourcemanager.hostname": "rm",
        "a": '<&>"',
        "yarn.am.liveness-monitor.expiry-interval-ms": "600000",
    }
    jar = beat_jar(site, 200)
    with zipfile.ZipFile(io.BytesIO(jar)) as archive:
        assert archive.namelist() == ["yarn-site.xml"]
        text = archive.read("yarn-site.xml").decode()
    from xml.etree import ElementTree

    found = {one.findtext("name"): one.findtext("value") for one in ElementTree.fromstring(text)}
    assert found == {**site, "yarn.am.liveness-monitor.expiry-interval-ms": "400"}
    assert beat_jar(dict(reversed(site.items())), 200) == jar


def test_a_large_cluster_is_asked_less_often() -> None:
    assert (beat_ms(1), beat_ms(1000)) == (200, 1000)


def test_without_java_a_submit_ends_before_anything_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("TONY_STATE_DIR", str(tmp_path))
    with pytest.raises(Unreachable, match="Java was not found in JAVA_HOME"):
        Submitter(tmp_path, None).warm_up()
