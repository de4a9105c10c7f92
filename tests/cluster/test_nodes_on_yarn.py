"""Nodes that fail, on a real YARN of two."""

from __future__ import annotations

import contextlib
import json

import pytest
from command_line import Tony

from tony.client import attach
from tony.events import Event, EventKind
from tony.localcluster.cluster import LocalCluster
from tony.yarn import YarnCluster

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def history(cluster: LocalCluster, output: str) -> list[Event]:
    """Everything that happened to the job which such a document is about."""
    application_id = json.loads(output.splitlines()[-1])["application_id"]
    with (
        contextlib.closing(YarnCluster(cluster.conf_dir, cluster.bin_dir)) as yarn,
        contextlib.closing(attach(application_id, yarn)) as handle,
    ):
        return list(handle.events())


def places(events: list[Event], task: str) -> dict[str, str]:
    """On which node each used incarnation of the task ran."""
    running = [one for one in events if one.kind is EventKind.TASK and one.task == task]
    return {one.fields["incarnation"]: one.fields["node"] for one in running if one.fields["state"] == "RUNNING"}


def test_a_task_whose_gpu_failed_goes_on_on_another_node(tony: Tony, yarn_cluster: LocalCluster) -> None:
    done = tony.submit("breaks_its_gpu_once.py", flags=("-c", "exclusion.share=50"))
    assert done.returncode == 0, done.stderr
    events = history(yarn_cluster, done.stdout)
    said = [event.text for event in events if event.kind is EventKind.NODE]
    used = places(events, "worker:1")
    bad, *_, good = used.values()
    assert said[0] == f"node {bad} is excluded for 1h: GPU_FAULT of worker:1"
    assert good != bad, (used, said)
