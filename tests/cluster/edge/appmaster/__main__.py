"""An application master that shows one behaviour of YARN's edge, named by the job; what it saw goes to a folder."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

STARTED = time.time()

from contract import obey  # noqa: E402

from tony.containers import AppState, HandleState, Identity, Phase  # noqa: E402
from tony.plan import JobSecrets  # noqa: E402
from tony.records import decode, plain  # noqa: E402
from tony.spec import JobRecord, TaskId  # noqa: E402
from tony.yarn import YarnContainers  # noqa: E402

RECORD = decode(Path("tony-job.json").read_bytes(), JobRecord)
SECRETS = decode(Path("tony-secrets.json").read_bytes(), JobSecrets)
SEEN = Path(RECORD.spec.checkpoint_dir or "")


def write(name: str, value: object) -> None:
    partial = SEEN / f".{name}"
    partial.write_text(json.dumps(value))
    partial.rename(SEEN / name)


def starts() -> int:
    """How often this program has been started for this job, this time included."""
    names = [name for name in os.listdir(SEEN) if name.startswith("start-")]
    write(f"start-{len(names) + 1}", {"at": STARTED, "environment": dict(os.environ), "pid": os.getpid()})
    return len(names) + 1


def until(
    containers: YarnContainers, done: Callable[[list[HandleState]], bool], within_s: float = 60.0
) -> list[HandleState]:
    deadline = time.monotonic() + within_s
    while True:
        states = list(containers.poll())
        if done(states):
            return states
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within_s} s: {states}")
        time.sleep(0.05)


def ended(states: list[HandleState]) -> bool:
    return all(state.phase is Phase.ENDED for state in states)


def ask(containers: YarnContainers, count: int) -> list[str]:
    address = os.environ["SKEIN_APPMASTER_ADDRESS"].rpartition(":")[0] + ":1"
    handles = []
    for index in range(count):
        task = TaskId("worker", index)
        environment = {
            "TONY_TASK": str(task),
            "TONY_INCARNATION": "1",
            "TONY_AM_ADDRESS": address,
            "TONY_APPLICATION_ID": containers.application_id,
            "EDGE_SEEN": str(SEEN),
            "EDGE_BEHAVIOUR": RECORD.spec.name,
        }
        handles.append(containers.request(Identity(task, 1), environment))
    return handles


def runs_all_tasks(containers: YarnContainers) -> tuple[bool, str]:
    count = RECORD.spec.roles[0].instances
    asked = time.time()
    ask(containers, count)
    requested = list(containers.poll())
    until(containers, lambda states: all(state.phase is not Phase.REQUESTED for state in states))
    held = time.time()
    states = until(containers, ended)
    containers.progress(0.9)
    write("times", {"asked": asked, "held": held, "ended": time.time()})
    write("requested", plain(requested))
    write("states", plain(states))
    return True, "every task ended"


def stops_what_it_started(containers: YarnContainers) -> tuple[bool, str]:
    handles = ask(containers, 2)
    until(containers, lambda states: all(state.phase is Phase.HELD for state in states))
    while len(list(SEEN.glob("task-*"))) < 2:
        time.sleep(0.05)
    for handle in handles:
        containers.stop(handle)
    states = until(containers, ended)
    for handle in [*handles, "worker_99", "nonsense"]:
        containers.stop(handle)
    write("states", plain(states))
    return True, "stopped"


def watches_its_task_end(containers: YarnContainers) -> tuple[bool, str]:
    ask(containers, 1)
    write("states", plain(until(containers, ended)))
    return True, "seen"


def crashes_twice(containers: YarnContainers) -> tuple[bool, str]:
    if len(list(SEEN.glob("start-*"))) < 3:
        os._exit(9)
    return True, "third time lucky"


def fails(containers: YarnContainers) -> tuple[bool, str]:
    verdict = SEEN / "verdict"
    if verdict.exists():
        return False, f"again: {verdict.read_text()}"
    verdict.write_text('worker:1 exited with 1: ValueError: "7"')
    return False, verdict.read_text()


def waits(containers: YarnContainers) -> tuple[bool, str]:
    ask(containers, 1)
    time.sleep(300)
    return True, "never"


def obeys_the_contract(containers: YarnContainers) -> tuple[bool, str]:
    address = os.environ["SKEIN_APPMASTER_ADDRESS"].rpartition(":")[0] + ":1"
    try:
        obey(
            containers,
            {
                "TONY_AM_ADDRESS": address,
                "TONY_APPLICATION_ID": containers.application_id,
                "EDGE_SEEN": str(SEEN),
            },
        )
    except AssertionError as broken:
        return False, str(broken)
    return True, "every sentence holds"


BEHAVIOURS = {
    "obeys-the-contract": obeys_the_contract,
    "runs-all-tasks": runs_all_tasks,
    "stops-what-it-started": stops_what_it_started,
    "eats-memory": watches_its_task_end,
    "exits-with-3": watches_its_task_end,
    "crashes-twice": crashes_twice,
    "fails": fails,
    "waits": waits,
}


def main() -> int:
    starts()
    containers = YarnContainers.from_current()
    succeeded, diagnostics = BEHAVIOURS[RECORD.spec.name](containers)
    write("secrets", plain(SECRETS))
    containers.finish(AppState.SUCCEEDED if succeeded else AppState.FAILED, diagnostics)
    containers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
