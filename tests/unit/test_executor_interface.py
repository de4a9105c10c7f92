"""Which network interface the executor names to gloo."""

from __future__ import annotations

import pytest

from executor.interface import interface

MASTER = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1:4000/invitation"}


def test_a_master_on_this_machine_is_reached_over_the_loopback() -> None:
    assert interface(MASTER, "127.0.0.1") == {"HOROVOD_GLOO_IFACE": "lo"}


@pytest.mark.parametrize("environment", [{}, {**MASTER, "HOROVOD_GLOO_IFACE": "ib0"}])
def test_a_choice_of_the_user_stays_and_other_frameworks_get_nothing(environment: dict[str, str]) -> None:
    assert interface(environment, "127.0.0.1") == {}


def test_a_name_that_cannot_be_resolved_is_left_to_gloo() -> None:
    assert interface({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "nowhere.invalid:4000/x"}, "n1") == {}


def test_peers_that_cannot_be_reached_do_not_hide_the_loopback() -> None:
    table = '{"worker": ["127.0.0.1:1", "nowhere.invalid:1"]}'
    assert interface({**MASTER, "TONY_CLUSTER_SPEC": table}, "127.0.0.1") == {"HOROVOD_GLOO_IFACE": "lo"}
