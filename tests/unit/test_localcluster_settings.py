"""Settings of the local cluster: totals over nodes, defaults, what is refused, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tony.localcluster.settings import ClusterSettings, chosen_settings, default_memory_mb

TWO_NODES = ClusterSettings(nodes=2, memory_mb=8192, vcores=64, gpus=8, queues=("default", "batch"))


def test_totals_are_split_evenly_over_the_nodes() -> None:
    assert (TWO_NODES.node_memory_mb, TWO_NODES.node_vcores, TWO_NODES.node_gpus) == (4096, 32, 4)
    assert TWO_NODES.problems() == ()


def test_node_memory_is_rounded_down_to_what_the_scheduler_hands_out() -> None:
    assert ClusterSettings(nodes=3, memory_mb=4096, vcores=3).node_memory_mb == 1344


def test_thirty_two_counted_gpus_fit_on_two_small_nodes() -> None:
    assert ClusterSettings(nodes=2, memory_mb=12288, vcores=64, gpus=32).problems() == ()


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"nodes": 0}, "--nodes", "between 1 and 16"),
        ({"nodes": 17}, "--nodes", "between 1 and 16"),
        ({"memory_mb": 1000}, "--memory", "less than 512 MiB"),
        ({"vcores": 0}, "--vcores", "between 1 and"),
        ({"vcores": 7}, "--vcores", "does not divide by 2"),
        ({"gpus": 3}, "--gpus", "does not divide by 2"),
        ({"gpus": -2}, "--gpus", "between 0 and"),
        ({"queues": ()}, "--queues", "at least one"),
        ({"queues": ("a", "a")}, "--queues", "twice"),
        ({"queues": ("root",)}, "--queues", "not a queue name"),
        ({"queues": ("a.b",)}, "--queues", "not a queue name"),
        ({"labels": ((3, "gpu"),)}, "--label", "nodes 1 to 2"),
        ({"labels": ((1, "g p"),)}, "--label", "not a label"),
        ({"labels": ((1, "gpu"), (1, "cpu"))}, "--label", "one label only"),
        ({"port_base": 80}, "--port-base", "between 1024"),
    ],
)
def test_impossible_settings_are_named(change: dict[str, object], key: str, said: str) -> None:
    (problem,) = replace(TWO_NODES, **change).problems()  # type: ignore[arg-type]
    assert problem.key == key
    assert said in problem.message


def test_all_problems_are_reported_at_once() -> None:
    wrong = replace(TWO_NODES, vcores=7, gpus=3, queues=("1x",))
    assert [problem.key for problem in wrong.problems()] == ["--vcores", "--gpus", "--queues"]


def test_the_hint_for_an_uneven_total_names_the_next_even_ones() -> None:
    (problem,) = replace(TWO_NODES, gpus=3).problems()
    assert problem.hint == "try --gpus 2 or 4"


@pytest.mark.parametrize(("machine_mb", "expected_mb"), [(24 * 1024, 12 * 1024), (16 * 1024, 9792), (512, 512)])
def test_default_memory_is_12_gib_or_sixty_percent(machine_mb: int, expected_mb: int) -> None:
    assert default_memory_mb(machine_mb) == expected_mb


def test_defaults_are_one_node_with_sixteen_vcores_and_no_gpu() -> None:
    settings = chosen_settings()
    assert (settings.nodes, settings.vcores, settings.gpus, settings.queues) == (1, 16, 0, ("default",))
    assert settings.problems() == ()


def test_vcores_grow_with_the_nodes_when_not_given() -> None:
    assert chosen_settings(nodes=3).vcores == 48


def test_what_is_not_given_stays_as_at_the_last_start() -> None:
    assert chosen_settings(gpus=32, earlier=TWO_NODES) == replace(TWO_NODES, gpus=32)


def test_an_empty_list_of_labels_takes_the_labels_away() -> None:
    labelled = replace(TWO_NODES, labels=((1, "gpu"),))
    assert chosen_settings(earlier=labelled).labels == ((1, "gpu"),)
    assert chosen_settings(labels=(), earlier=labelled).labels == ()


def test_settings_survive_the_way_through_json() -> None:
    settings = replace(TWO_NODES, labels=((2, "gpu"),), port_base=21000)
    assert ClusterSettings.from_record(json.loads(json.dumps(settings.to_record()))) == settings


def test_differences_are_told_in_the_users_words() -> None:
    other = replace(TWO_NODES, memory_mb=12288, queues=("default",))
    assert TWO_NODES.differences(other) == ["memory 8g → 12g", "queues default,batch → default"]


def test_a_chosen_port_is_no_difference_to_a_free_choice() -> None:
    assert TWO_NODES.differences(replace(TWO_NODES, port_base=21000)) == []
    assert replace(TWO_NODES, port_base=22000).differences(replace(TWO_NODES, port_base=21000))


def test_the_summary_says_that_gpus_are_only_counted() -> None:
    assert TWO_NODES.summary() == (
        "2 nodes, 8g memory, 64 vcores, 8 GPUs (counted, not isolated), queues default, batch"
    )
