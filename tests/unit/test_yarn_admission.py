"""What could never run on a cluster is told before it is submitted, with the largest values that could."""

from __future__ import annotations

from typing import Any

import pytest

from tony.capacity import GPU, Node, Queue, Scheduler, Size
from tony.errors import Problem
from tony.spec import JobSpec, Resources, RoleSpec
from tony.yarn.admission import away_from_excluded, job_problems, stages

TYPES = ("memory-mb", "vcores", GPU)


def node(
    host: str, memory_mb: int = 8192, vcores: int = 32, gpus: int = 4, label: str = "", state: str = "RUNNING"
) -> Node:
    labels = (label,) if label else ()
    return Node(
        f"{host}:1", host, f"{host}:8042", state, "/r", labels, Size(memory_mb, vcores, {GPU: gpus}), "bad disk"
    )


NODES = (node("n1"), node("n2"), node("n3", state="UNHEALTHY", memory_mb=99999), node("n4", label="fast", gpus=8))


def queue(name: str, **more: Any) -> Queue:
    return Queue(name, f"root.{name}", **{"leaf": True, "labels": ("*",), **more})


def scheduler(**more: Any) -> Scheduler:
    queues = (
        Queue("root", "root", leaf=False),
        queue("default"),
        queue("stopped", running=False),
        queue("team", leaf=False),
        Queue("inner", "root.team.inner", leaf=True, labels=("slow",), max_share=0.25),
    )
    limits = {"largest": Size(8192, 8, {GPU: 2**63 - 1}), "smallest": Size(1024, 1), "resource_types": TYPES}
    return Scheduler("capacityScheduler", queues, **{**limits, **more})


def job(*roles: RoleSpec, **more: Any) -> JobSpec:
    return JobSpec("j", roles or (role(),), **more)


def role(
    name: str = "worker", instances: int = 1, memory_mb: int = 1024, vcores: int = 1, gpus: int = 0, **more: Any
) -> RoleSpec:
    other = more.pop("other", {})
    return RoleSpec(name, ("x.py",), instances, Resources(memory_mb, vcores, gpus, other), **more)


def problems(spec: JobSpec, nodes: tuple[Node, ...] = NODES, **limits: Any) -> list[Problem]:
    return job_problems(spec, nodes, scheduler(**limits), (GPU,))


def only(spec: JobSpec, **limits: Any) -> Problem:
    found = problems(spec, **limits)
    assert len(found) == 1, found
    return found[0]


def test_a_job_that_fits_has_no_problem() -> None:
    assert problems(job(role(instances=10), role("ps", gpus=4), queue="default")) == []


@pytest.mark.parametrize("name", ["default", "root.default", "team.inner", "root.team.inner", "inner"])
def test_a_queue_may_be_named_by_name_or_path(name: str) -> None:
    assert problems(job(queue=name)) == []


def test_an_unknown_queue_is_told_with_the_nearest_name() -> None:
    found = only(job(queue="defualt"))
    assert (found.key, found.value) == ("queue", "defualt")
    assert 'Did you mean "default"?' in (found.hint or "")


def test_a_parent_queue_names_its_leaves_and_a_stopped_one_the_others() -> None:
    assert "root.team.inner" in (only(job(queue="team")).hint or "")
    found = only(job(queue="stopped"))
    assert "stopped" in found.message and "default" in (found.hint or "")


def test_a_task_larger_than_every_running_node_is_told_with_the_largest() -> None:
    # n3 has more, but is unhealthy; the scheduler would allow more.
    found = only(job(role(memory_mb=9000)), largest=Size(100000, 64))
    assert (found.key, found.value) == ("roles.worker.memory", "9000m")
    assert "largest node has 8g" in found.message and "8g" in (found.hint or "")


def test_a_task_above_the_schedulers_maximum_is_told() -> None:
    found = only(job(role(memory_mb=5000)), largest=Size(4096, 8))
    assert "scheduler allows at most 4g" in found.message


def test_memory_is_rounded_up_as_the_scheduler_does() -> None:
    nodes = (node("n1", memory_mb=4500),)
    assert problems(job(role(memory_mb=4100), am_resources=Resources(1024, 1)), nodes)[0].key == "roles.worker.memory"


def test_the_application_master_is_checked_as_well() -> None:
    assert only(job(am_resources=Resources(90000, 1))).key == "am.memory"


def test_all_sizes_are_told_at_once() -> None:
    found = problems(job(role(memory_mb=90000, vcores=900, gpus=90), role("ps", memory_mb=90000)))
    assert [problem.key for problem in found] == [
        "roles.worker.memory",
        "roles.worker.vcores",
        "roles.worker.gpus",
        "roles.ps.memory",
    ]


def test_gpus_on_a_cluster_that_does_not_count_them_are_refused() -> None:
    found = only(job(role(gpus=1)), resource_types=("memory-mb", "vcores"))
    assert found.key == "roles.worker.gpus"
    assert found.message == "this cluster does not count GPUs. Its resource types: memory-mb, vcores."


def test_where_the_scheduler_does_not_tell_its_types_the_clients_configuration_decides() -> None:
    assert problems(job(role(gpus=1)), resource_types=None) == []
    assert job_problems(job(role(gpus=1)), NODES, scheduler(resource_types=None), ())[0].key == "roles.worker.gpus"


def test_gpus_that_only_labelled_nodes_have_need_the_label() -> None:
    assert only(job(role(gpus=8))).message == "the largest node has 4 GPUs."
    assert problems(job(role(gpus=8, node_label="fast"))) == []


def test_unknown_labels_nodes_and_types_are_told() -> None:
    found = problems(
        job(role(node_label="fats"), role("ps", nodes=("n9", "n3")), role("x", other={"yarn.io/fpga": 1}))
    )
    assert [(problem.key, problem.value) for problem in found] == [
        ("roles.worker.node_label", "fats"),
        ("roles.ps.nodes", "n9"),
        ("roles.ps.nodes", "n3"),
        ("roles.x.resources", "yarn.io/fpga=1"),
    ]
    assert "fast" in (found[0].hint or "") and "unhealthy" in found[2].message
    assert found[3].hint == f"Its resource types: memory-mb, vcores, {GPU}."


def test_a_type_that_the_cluster_counts_but_skein_cannot_ask_for_is_refused_with_another_way() -> None:
    types = ("memory-mb", "vcores", "yarn.io/fpga")
    found = job_problems(job(role(other={"yarn.io/fpga": 2})), NODES, scheduler(resource_types=types), ())
    assert [(problem.key, problem.value) for problem in found] == [("roles.worker.resources", "yarn.io/fpga=2")]
    assert "counts it" in found[0].message and "--node-label" in (found[0].hint or "")


def test_nodes_of_a_label_that_is_not_exclusive_take_other_tasks_too() -> None:
    assert job_problems(job(role(gpus=8)), NODES, scheduler(), labels={"fast": False}) == []
    assert job_problems(job(role(gpus=8)), NODES, scheduler(), labels={"fast": True}) != []


def test_a_queue_that_may_not_use_the_label_is_told() -> None:
    found = problems(job(role(node_label="fast"), queue="inner"))
    assert [problem.key for problem in found] == ["roles.worker.node_label"] and "inner" in found[0].message


def test_nodes_and_label_together_are_refused_because_yarn_would_end_the_master() -> None:
    found = problems(job(role(node_label="fast", nodes=("n4",))))
    assert [problem.key for problem in found] == ["roles.worker.nodes"] and "not both" in found[0].message


def test_excluded_nodes_become_the_nodes_that_remain() -> None:
    placed = away_from_excluded(job(role(), role("ps", nodes=("n2",)), exclude_nodes=("n1",)), NODES)
    assert [one.nodes for one in placed.roles] == [("n2", "n4"), ("n2",)]
    assert away_from_excluded(job(nodes=("n1", "n2"), exclude_nodes=("n1",)), NODES).roles[0].nodes == ("n2",)
    assert away_from_excluded(job(), NODES) == job()


def test_excluding_an_unknown_node_or_every_node_is_told() -> None:
    assert only(job(exclude_nodes=("n22",))).value == "n22"
    assert problems(job(exclude_nodes=("n1", "n2", "n4")))[0].message == "no running node remains."
    assert "room for 8 of" in only(job(role(instances=9), exclude_nodes=("n1", "n4"))).message


def test_more_tasks_than_fit_are_told_with_the_number_that_does() -> None:
    found = only(job(role(instances=9, gpus=1)))
    assert found.key == "roles.worker.instances" and "room for 8 of" in found.message and "8" in (found.hint or "")


def test_nodes_are_counted_one_by_one_not_as_a_sum() -> None:
    # 16 GiB in all, but only one task of 5 GiB on each of the two nodes.
    assert "room for 2 of" in only(job(role(instances=3, memory_mb=5120))).message


def test_roles_that_fit_alone_but_not_together_are_told() -> None:
    found = only(job(role("a", 10), role("b", 15)))
    assert found.key == "roles" and "10 a, 15 b" in found.message and "16g" in found.message


def test_stages_do_not_run_together_and_so_are_not_added_up() -> None:
    first, second = role("a", 12), role("b", 12, depends_on=("a",))
    assert [[one.name for one in stage] for stage in stages(job(first, second))] == [["a"], ["b"]]
    assert problems(job(first, second)) == []


def test_a_queue_with_a_ceiling_has_room_for_less() -> None:
    found = only(job(role(instances=12), queue="inner"))
    assert "queue inner may use 4g" in found.message


def test_vcores_do_not_count_where_the_scheduler_looks_at_memory_alone() -> None:
    many = job(role(instances=10, vcores=8))
    assert problems(many, resource_types=("memory-mb", "vcores")) == []
    assert problems(many)[0].key == "roles.worker.instances"


def test_a_cluster_without_a_running_node_is_told_once() -> None:
    assert [problem.key for problem in problems(job(role(gpus=99)), (node("n1", state="LOST"),))] == ["cluster"]
