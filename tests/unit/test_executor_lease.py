"""The user process is gone before a replacement may start, by the executor's own clock."""

from __future__ import annotations

from executor.lease import Lease


def test_before_the_first_welcome_the_search_is_bounded() -> None:
    assert Lease(100.0).ends_at == 160.0


def test_each_sign_of_life_moves_the_end() -> None:
    lease = Lease(0.0)
    lease.grant(60.0, now=10.0)
    assert lease.ends_at == 70.0
    lease.in_contact(11.0)
    assert (lease.ends_at, lease.terminate_at) == (71.0, 66.0)


def test_a_loss_is_counted_from_when_the_connection_may_have_died_unnoticed() -> None:
    lease = Lease(0.0)
    lease.grant(60.0, now=100.0)
    lease.lost(100.0)
    assert lease.ends_at == 145.0


def test_further_attempts_that_fail_do_not_prolong_it_and_contact_does() -> None:
    lease = Lease(0.0)
    lease.grant(60.0, now=100.0)
    lease.lost(100.0)
    lease.lost(120.0)
    assert lease.ends_at == 145.0
    lease.in_contact(121.0)
    assert lease.ends_at == 181.0


def test_a_loss_never_prolongs_what_was_granted() -> None:
    lease = Lease(0.0)
    lease.grant(8.0, now=0.0)
    lease.lost(7.0)
    assert lease.ends_at == 8.0
    assert lease.grace_s == 2.0


def test_a_pause_longer_than_a_turn_means_that_the_process_stood_still() -> None:
    lease = Lease(0.0)
    lease.grant(60.0, now=0.0)
    for second in range(1, 11):
        assert not lease.is_over(float(second))
    assert lease.stood_still_s(10.0) == 0.0
    assert not lease.is_over(25.0)
    assert lease.stood_still_s(26.0) == 14.0
    assert lease.stood_still_s(86.0) == 0.0, "that was long ago"
    assert lease.is_over(86.0)
