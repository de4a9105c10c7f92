"""What the user's script learns of its job, inside and outside of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from executor.reports import NAMES_LIMIT, Reports
from tony.context import Context, from_environment


def test_outside_of_a_job_it_describes_a_job_of_one() -> None:
    context = from_environment({})
    assert context == Context()
    assert (context.rank, context.world_size, context.is_chief, context.application_id) == (0, 1, True, None)
    context.report(step=1)


def test_inside_it_tells_what_the_environment_says() -> None:
    context = from_environment(
        {
            "TONY_RANK": "3",
            "TONY_WORLD_SIZE": "8",
            "TONY_ROLE": "worker",
            "TONY_INDEX": "2",
            "TONY_LOCAL_RANK": "0",
            "TONY_GENERATION": "2",
            "TONY_INCARNATION": "4",
            "TONY_APPLICATION_ID": "application_1_1",
            "TONY_CHECKPOINT_DIR": "hdfs://nn/x",
            "TONY_IS_CHIEF": "false",
            "TONY_CLUSTER_SPEC": json.dumps({"worker": ["a:1", "b:2"]}),
        }
    )
    assert (context.rank, context.world_size, context.index, context.generation) == (3, 8, 2, 2)
    assert (context.incarnation, context.checkpoint_dir, context.is_chief) == (4, "hdfs://nn/x", False)
    assert context.cluster_spec == {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize("text", ["", "x", "[1]", "{"])
def test_an_unreadable_environment_is_no_error(text: str) -> None:
    context = from_environment({"TONY_RANK": text, "TONY_CLUSTER_SPEC": text})
    assert (context.rank, dict(context.cluster_spec)) == (0, {})


def test_a_report_to_nobody_is_no_error(tmp_path: Path) -> None:
    context = from_environment({"TONY_REPORT_SOCKET": str(tmp_path / "nobody")})
    context.report(step=1)
    context.report(step=object(), loss="x")  # type: ignore[arg-type]


def reported(*datagrams: bytes) -> dict[str, float]:
    """What the executor makes of those datagrams."""
    reports = Reports()
    for datagram in datagrams:
        reports.take(datagram)
    return reports.fresh()


def test_the_newest_number_of_each_name_counts() -> None:
    assert reported(b'{"step": 1, "loss": 2}', b'{"step": 2}') == {"step": 2.0, "loss": 2.0}


def test_what_was_told_once_is_not_told_again() -> None:
    reports = Reports()
    reports.take(b'{"step": 1}')
    assert reports.fresh() == {"step": 1.0}
    assert reports.fresh() == {}


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0\xff",
        b"[1]",
        b"[" * 4000,
        b'{"step": NaN}',
        b'{"step": 1e999}',
        b'{"step": true}',
        b'{"step": "1"}',
        b'{"step": null}',
        b'{"": 1}',
        b'{"' + b"x" * 65 + b'": 1}',
        b'{"step": ' + b"9" * 400 + b"}",
        b'{"step": 1, "x": "' + b"y" * 9000 + b'"}',
    ],
)
def test_what_is_no_number_is_ignored(datagram: bytes) -> None:
    assert reported(datagram) == {}


def test_names_are_capped_and_known_ones_go_on() -> None:
    names = [json.dumps({f"n{number}": 1}).encode() for number in range(1000)]
    seen = reported(*names, b'{"n3": 7}')
    assert len(seen) == NAMES_LIMIT
    assert seen["n3"] == 7.0
