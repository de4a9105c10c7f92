"""The resource manager's answers, in the shapes that Hadoop's versions have given them, as values of ours."""

from __future__ import annotations

from typing import Any

import pytest

from tony import rm
from tony.capacity import GPU, Size
from tony.containers import AppState
from tony.errors import NoSuchJob, NotPermitted, Unreachable


class Answers(rm.ResourceManager):
    """A resource manager that answers from a table, or with the error that stands there."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(["http://rm:8088"], "ada")
        self.answers = answers

    def _get(self, path: str, query: Any = None, missing: str | None = None) -> dict[str, Any]:
        found = self.answers[path]
        if isinstance(found, Exception):
            raise found
        return dict(found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "application_1",
        "application_1_1",
        "application_1_0001/../..",
        "application_1_0001\n",
        "application_1_00011111111111",
        "application_١_0001",
        "job_1_0001",
        "application_1_0001?user.name=root",
    ],
)
def test_what_is_not_an_application_id_never_reaches_a_url(text: str) -> None:
    with pytest.raises(NoSuchJob):
        rm.check_application_id(text)


def test_an_application_id_is_taken_as_it_is() -> None:
    assert rm.check_application_id("application_1700000000000_12345") == "application_1700000000000_12345"


@pytest.mark.parametrize(
    ("state", "final", "expected"),
    [
        ("NEW", "UNDEFINED", AppState.SUBMITTED),
        ("NEW_SAVING", "UNDEFINED", AppState.SUBMITTED),
        ("SUBMITTED", "UNDEFINED", AppState.SUBMITTED),
        ("ACCEPTED", "UNDEFINED", AppState.ACCEPTED),
        ("RUNNING", "UNDEFINED", AppState.RUNNING),
        ("FINISHING", "SUCCEEDED", AppState.RUNNING),
        ("FINISHED", "SUCCEEDED", AppState.SUCCEEDED),
        ("FINISHED", "FAILED", AppState.FAILED),
        ("FINISHED", "KILLED", AppState.KILLED),
        ("FINISHED", "UNDEFINED", AppState.FAILED),
        ("FAILED", "FAILED", AppState.FAILED),
        ("KILLED", "KILLED", AppState.KILLED),
        ("SOMETHING_NEW", "", AppState.RUNNING),
    ],
)
def test_two_words_of_yarn_are_one_of_ours(state: str, final: str, expected: AppState) -> None:
    assert rm.application_state(state, final) is expected


def test_a_report_is_read_whole_and_from_almost_nothing() -> None:
    path = "/ws/v1/cluster/apps/application_1_0001"
    app = {
        "id": "application_1_0001",
        "user": "ada",
        "name": "mnist",
        "queue": "root.research",
        "state": "RUNNING",
        "finalStatus": "UNDEFINED",
        "progress": 40.0,
        "trackingUrl": "http://rm/proxy/application_1_0001/",
        "diagnostics": "\n",
        "applicationTags": "b,tony",
        "startedTime": 1500,
        "finishedTime": 0,
        "amContainerLogs": "http://n1:8042/node/containerlogs/container_e07_1_0001_02_000001/ada",
        "amHostHttpAddress": "n1:8042",
        "allocatedMB": 4096,
        "runningContainers": 3,
    }
    report = Answers({path: {"app": app}}).report("application_1_0001")
    assert (report.state, report.progress, report.started_at, report.tags) == (
        AppState.RUNNING,
        0.4,
        1.5,
        ("b", "tony"),
    )
    assert (report.am_host, report.am_attempts, report.containers, report.diagnostics) == ("n1", 2, 3, "")
    # Once ended, the REST tells -1 for what is held no more, and null for what never was.
    ended = {
        "state": "KILLED",
        "finalStatus": "KILLED",
        "allocatedMB": -1,
        "runningContainers": -1,
        "trackingUrl": None,
    }
    report = Answers({path: {"app": ended}}).report("application_1_0001")
    assert (report.state, report.memory_mb, report.containers, report.am_attempts) == (AppState.KILLED, 0, 0, 0)


@pytest.mark.parametrize("apps", [None, {}, {"app": None}, {"app": []}])
def test_no_applications_are_an_empty_list(apps: object) -> None:
    assert Answers({"/ws/v1/cluster/apps": {"apps": apps}}).applications() == []


def test_applications_come_newest_first_and_with_every_tag_asked_for() -> None:
    def app(number: int, tags: str, state: str = "FINISHED", final: str = "FAILED") -> dict[str, object]:
        return {
            "id": f"application_1_000{number}",
            "applicationTags": tags,
            "state": state,
            "finalStatus": final,
            "startedTime": number,
        }

    listed = {"apps": {"app": [app(1, "tony,a"), app(2, "tony"), app(3, "tony,a"), app(4, "a,tony", "RUNNING", "")]}}
    found = Answers({"/ws/v1/cluster/apps": listed})
    ids = [report.application_id[-1] for report in found.applications(tags=("tony", "A"))]
    assert ids == ["4", "3", "1"]
    # FINISHED covers success and failure; the answer is sorted out here.
    assert [report.application_id[-1] for report in found.applications((AppState.FAILED,))] == ["3", "2", "1"]
    assert found.applications((AppState.SUCCEEDED,)) == []


def resource(memory: int, vcores: int, **other: int) -> dict[str, object]:
    named = {
        "memory-mb": memory,
        "vcores": vcores,
        **{name.replace("_", ".io/"): count for name, count in other.items()},
    }
    details = [{"name": name, "value": value} for name, value in named.items()]
    return {"memory": memory, "vCores": vcores, "resourceInformations": {"resourceInformation": details}}


def test_nodes_are_read_with_and_without_resource_types() -> None:
    new = {
        "id": "n1:1",
        "nodeHostName": "n1",
        "nodeHTTPAddress": "n1:8042",
        "state": "RUNNING",
        "nodeLabels": ["gpu"],
        "totalResource": resource(4096, 8, yarn_gpu=2),
    }
    old = {"id": "n2:1", "nodeHostName": "n2", "state": "UNHEALTHY", "usedMemoryMB": 1024, "availMemoryMB": 1024}
    old |= {"usedVirtualCores": 1, "availableVirtualCores": 3, "healthReport": "disk full"}
    first, second = Answers({"/ws/v1/cluster/nodes": {"nodes": {"node": [new, old]}}}).nodes()
    assert (first.total, first.labels, first.usable) == (Size(4096, 8, {GPU: 2}), ("gpu",), True)
    assert (second.total, second.labels, second.usable, second.health) == (Size(2048, 4), (), False, "disk full")


def test_one_node_may_come_as_an_object_instead_of_a_list() -> None:
    [node] = Answers({"/ws/v1/cluster/nodes": {"nodes": {"node": {"id": "n1:1", "state": "LOST"}}}}).nodes()
    assert (node.id, node.state) == ("n1:1", "LOST")


CAPACITY = {
    "type": "capacityScheduler",
    "queueName": "root",
    "maximumAllocation": resource(8192, 4),
    "queues": {
        "queue": [
            {
                "queueName": "a",
                "queuePath": "root.a",
                "queueType": "parent",
                "state": "RUNNING",
                "queues": {
                    "queue": {
                        "queueName": "b",
                        "queuePath": "root.a.b",
                        "queueType": "leaf",
                        "state": "STOPPED",
                        "nodeLabels": ["gpu"],
                        "absoluteMaxCapacity": 25.0,
                        "maximumAllocation": resource(2048, 2),
                    }
                },
            },
            {"queueName": "default", "state": "RUNNING", "queues": None},
        ]
    },
}


def test_the_capacity_schedulers_tree_is_flattened() -> None:
    answers = {
        "/ws/v1/cluster/scheduler": {"scheduler": {"schedulerInfo": CAPACITY}},
        "/ws/v1/cluster/scheduler-overview": NoSuchJob("404"),
    }
    found = Answers(answers).scheduler()
    assert [queue.path for queue in found.queues] == ["root", "root.a", "root.a.b", "root.default"]
    assert [queue.leaf for queue in found.queues] == [False, False, True, True]
    inner = found.queue("b")
    assert inner is not None and inner == found.queue("a.b") == found.queue("root.a.b")
    assert (inner.running, inner.labels, inner.max_share, inner.largest) == (False, ("gpu",), 0.25, Size(2048, 2))
    assert found.queue("c") is None
    assert (found.largest, found.smallest, found.resource_types) == (Size(8192, 4), None, None)


def test_limits_and_resource_types_come_from_the_overview_where_there_is_one() -> None:
    overview = {
        "schedulingResourceType": "memory-mb (unit=Mi),vcores,yarn.io/gpu",
        "minimumAllocation": resource(64, 1, yarn_gpu=0),
        "maximumAllocation": resource(4096, 32, yarn_gpu=9223372036854775807),
    }
    answers = {
        "/ws/v1/cluster/scheduler": {"scheduler": {"schedulerInfo": CAPACITY}},
        "/ws/v1/cluster/scheduler-overview": {"scheduler": overview},
    }
    found = Answers(answers).scheduler()
    assert found.largest == Size(4096, 32, {GPU: 9223372036854775807})
    assert found.smallest == Size(64, 1, {GPU: 0})
    assert found.resource_types == ("memory-mb", "vcores", GPU)


def test_the_fair_schedulers_tree_is_flattened() -> None:
    root = {
        "queueName": "root",
        "type": "fairSchedulerInfo",
        "maxContainerAllocation": resource(4096, 4),
        "childQueues": {
            "queue": [
                {"queueName": "root.default", "type": "fairSchedulerLeafQueueInfo"},
                {
                    "queueName": "root.team",
                    "childQueues": {"queue": [{"queueName": "root.team.x", "type": "fairSchedulerLeafQueueInfo"}]},
                },
            ]
        },
    }
    info = {"type": "fairScheduler", "rootQueue": root}
    answers = {
        "/ws/v1/cluster/scheduler": {"scheduler": {"schedulerInfo": info}},
        "/ws/v1/cluster/scheduler-overview": Unreachable("no such page"),
    }
    found = Answers(answers).scheduler()
    assert [(queue.name, queue.leaf) for queue in found.queues] == [
        ("root", False),
        ("default", True),
        ("team", False),
        ("x", True),
    ]
    assert found.largest == Size(4096, 4)


def test_the_fifo_scheduler_has_one_queue() -> None:
    info = {"type": "fifoScheduler", "qstate": "RUNNING", "capacity": 1.0}
    answers = {
        "/ws/v1/cluster/scheduler": {"scheduler": {"schedulerInfo": info}},
        "/ws/v1/cluster/scheduler-overview": NotPermitted("no"),
    }
    [queue] = Answers(answers).scheduler().queues
    assert (queue.name, queue.leaf, queue.running) == ("default", True, True)
