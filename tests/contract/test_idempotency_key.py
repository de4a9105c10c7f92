"""With an idempotency key there is one application, on every back-end, whoever dies or races."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from command_line import Tony, processes_of, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["local", "yarn"])
def backend(request: pytest.FixtureRequest) -> str:
    """Processes of this machine, or containers of a real YARN."""
    return str(request.param)


def key(tony: Tony) -> tuple[str, ...]:
    return ("--workers", "1", "--idempotency-key", f"nightly {tony.tag}")


def final(output: str) -> dict[str, Any]:
    return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]


def test_a_job_that_succeeded_is_not_run_again_and_one_that_failed_is(tony: Tony) -> None:
    first = tony.submit("exit_0.py", flags=key(tony))
    again = tony.submit("exit_0.py", flags=key(tony))
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    assert final(first.stdout)["application_id"] == final(again.stdout)["application_id"]
    assert "attached" in again.stderr and "upload" not in again.stderr
    other = ("--workers", "1", "--idempotency-key", f"fails {tony.tag}")
    failures = [tony.submit("exit_1.py", flags=other) for _ in range(2)]
    assert [one.returncode for one in failures] == [100, 100]
    assert len(tony.applications()) == 3


def test_a_killed_submitters_job_is_attached_to(tony: Tony) -> None:
    first = tony.begin("sleeps.py", "600", flags=key(tony))
    wait_for(tony.applications)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(10)
    (application_id,) = tony.applications()
    second = tony.begin("sleeps.py", "600", flags=key(tony))
    # The second one follows it: Ctrl-C there ends the job.
    wait_for(lambda: processes_of(application_id, "user"))
    assert second.process.stderr is not None
    assert any("attached" in line for line in second.process.stderr)
    second.process.send_signal(signal.SIGINT)
    code, document = second.result()
    assert (code, document["state"], document["application_id"]) == (130, "KILLED", application_id)
    assert tony.applications() == [application_id]


def test_submitters_at_the_same_moment_make_one_application(tony: Tony) -> None:
    running = [tony.begin("exit_0.py", flags=key(tony)) for _ in range(4)]
    ends = [one.result() for one in running]
    assert [code for code, _ in ends] == [0] * 4
    assert len({document["application_id"] for _, document in ends}) == 1
    assert len(tony.applications()) == 1
