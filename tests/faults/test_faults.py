"""The short part of the fault matrix: one seed of some faults, on this machine. `walk` and `soak` do the rest."""

from __future__ import annotations

import pytest

from tests.faults.faults import FAULTS, Fault
from tests.faults.walk import site, walk

SHORT = [fault for fault in FAULTS if fault.quick]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", SHORT, ids=[fault.key.replace(" ", "_") for fault in SHORT])
def test_a_job_ends_as_it_has_to_under(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONY_STATE_DIR", "")
    with site("local") as (where, folder):
        place = folder / "job"
        place.mkdir()
        run = walk(fault, where, 1, place)
    assert not run.seen.violations, run
    assert not run.seen.leftovers, run


def test_the_table_has_every_fault_once() -> None:
    keys = [fault.key for fault in FAULTS]
    assert len(keys) == len(set(keys))
