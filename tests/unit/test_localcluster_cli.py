"""`tony cluster` as people and scripts meet it, without any daemon."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tony.cli.cluster import cluster, status_document, status_lines
from tony.cli.main import main
from tony.localcluster.cluster import ClusterSettings, ClusterStatus, DaemonStatus, LocalCluster
from tony.localcluster.follow import follow

SETTINGS = ClusterSettings(nodes=1, memory_mb=2048, vcores=16, gpus=4)
RUNNING = ClusterStatus(
    running=True,
    home=Path("/s"),
    conf_dir=Path("/s/conf"),
    bin_dir=Path("/s/bin"),
    settings=SETTINGS,
    rm_url="http://127.0.0.1:21014",
    webhdfs_url="http://127.0.0.1:21001",
    hdfs_url="hdfs://127.0.0.1:21000",
    daemons=(DaemonStatus("namenode", 7, True, 170), DaemonStatus("datanode", 8, True, 150)),
    active_nodes=1,
    running_applications=2,
    started_at=1000.0,
)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TONY_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ClusterSettings]:
    """The settings that a start was asked for; nothing is started."""
    settings: list[ClusterSettings] = []

    def start(self: LocalCluster, wanted: ClusterSettings, progress: object = None) -> ClusterStatus:
        settings.append(wanted)
        return replace(RUNNING, settings=wanted)

    monkeypatch.setattr(LocalCluster, "start", start)
    monkeypatch.setattr("tony.cli.cluster.start_driver", lambda *_: None)
    return settings


def test_every_flag_reaches_the_cluster(asked: list[ClusterSettings]) -> None:
    words = "--nodes 2 --memory 12g --vcores 16 --gpus 8 --queues a,b --label 2=gpu --port-base 21000"
    result = CliRunner().invoke(cluster, ["start", *words.split()])
    assert result.exit_code == 0
    assert asked == [
        ClusterSettings(
            nodes=2,
            memory_mb=12288,
            vcores=16,
            gpus=8,
            queues=("a", "b"),
            labels=((2, "gpu"),),
            port_base=21000,
        )
    ]


def test_a_start_ends_with_the_next_command_to_type(asked: list[ClusterSettings]) -> None:
    result = CliRunner().invoke(cluster, ["start"])
    assert "tony submit --workers 2 train.py" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "12"], "not a size"),
        (["--label", "gpu"], "not NODE=NAME"),
        (["--label", "x=gpu"], "not NODE=NAME"),
        (["--nodes", "two"], "not a valid integer"),
    ],
)
def test_a_flag_that_makes_no_sense_is_a_usage_error(
    words: list[str], said: str, asked: list[ClusterSettings]
) -> None:
    result = CliRunner().invoke(cluster, ["start", *words])
    assert result.exit_code == 2
    assert said in result.stderr
    assert asked == []


def test_status_of_a_cluster_that_was_never_started_says_how_to_start_it() -> None:
    result = CliRunner().invoke(cluster, ["status"])
    assert result.exit_code == 5
    assert "tony cluster start" in result.stdout


def test_stopping_what_does_not_run_is_no_error(own_state: Path) -> None:
    result = CliRunner().invoke(cluster, ["stop"])
    assert result.exit_code == 0
    assert "was not running" in result.stderr
    assert list(own_state.iterdir()) == []


def test_a_running_cluster_shows_its_size_addresses_and_age() -> None:
    text = "\n".join(status_lines(RUNNING, now=1090.0))
    assert text.startswith("running for 1m30s: 1 node, 2g memory, 16 vcores, 4 GPUs (counted, not isolated)")
    assert "http://127.0.0.1:21014" in text
    assert "HADOOP_CONF_DIR=/s/conf" in text
    assert "2 applications running" in text


def test_a_dead_daemon_is_named_with_its_log_and_the_cure() -> None:
    broken = replace(RUNNING, running=False, daemons=(RUNNING.daemons[0], DaemonStatus("datanode", 8, False, 0)))
    lines = status_lines(broken, now=1090.0)
    assert lines[0].startswith("broken, datanode not running")
    assert any("tony cluster logs datanode" in line for line in lines)
    assert "tony cluster start" in lines[-1]


def test_after_a_reboot_the_status_does_not_list_every_daemon_as_broken() -> None:
    dead = tuple(replace(daemon, alive=False) for daemon in RUNNING.daemons)
    assert status_lines(replace(RUNNING, running=False, daemons=dead), now=0.0)[0].startswith("not running")


def test_a_stopped_cluster_remembers_its_size() -> None:
    lines = status_lines(replace(RUNNING, running=False, daemons=()), now=0.0)
    assert lines[0].startswith("stopped (last: 1 node, 2g memory")


def test_the_status_document_has_a_schema_and_plain_values() -> None:
    document = status_document(RUNNING)
    assert document["schema"] == "tony.cluster.status/1"
    assert document["settings"]["gpus"] == 4
    assert document["daemons"][0] == {"name": "namenode", "pid": 7, "alive": True, "memory_mb": 170}


def test_a_followed_log_goes_on_over_half_lines_and_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\n")
    writes = iter([("a", "thr"), ("a", "ee\n"), ("w", "n\n")])

    def write_instead_of_waiting(seconds: float) -> None:
        mode, text = next(writes)
        with log.open(mode) as out:
            out.write(text)

    lines = follow(log, 1, wait=write_instead_of_waiting)
    assert [next(lines) for _ in range(3)] == ["two", "three", "n"]


@pytest.mark.parametrize("words", [["--json", "cluster", "status"], ["cluster", "status", "--json"]])
def test_json_may_stand_before_or_after_the_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 5
    assert json.loads(capsys.readouterr().out)["running"] is False
