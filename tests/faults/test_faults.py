"""The short part of the fault matrix: one seed of some faults, on this machine. `walk` and `soak` do the rest."""

from __future__ import annotations

import pytest

from tests.faults.fault import Fault
from tests.faults.faults import FAULTS
from tests.faults.sites import local_site
from tests.faults.walk import walk

SHORT = [fault for fault in FAULTS if fault.quick]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", SHORT, ids=[fault.key.replace(" ", "_") for fault in SHORT])
def test_a_job_ends_as_it_has_to_under(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONY_STATE_DIR", "")
    with local_site() as (where, folder):
        run = walk(fault, where, 1, folder / "job")
    assert not run.seen.violations, run
    assert not run.seen.leftovers, run


def test_the_table_has_every_fault_once() -> None:
    keys = [fault.key for fault in FAULTS]
    assert len(keys) == len(set(keys))


def test_a_fault_that_has_a_root_cause_says_what_its_text_must_tell() -> None:
    assert not [fault.key for fault in FAULTS if fault.expected.cause and not fault.expected.message]
