"""What must be true after every job, whatever happened to it."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.injector import Scene
from tony.events import EventKind
from tony.storage import Storage

LATE = re.compile(r"(detected|stepping) after \d")
"""Everything was right, later than it has to be on a machine that does nothing else."""

_CONFIRMED_S = 15.0
"""How long the cluster may take to say what the job has said already."""


@dataclass(frozen=True)
class Expected:
    """How a job has to end under a fault. Empty and None mean: does not matter.

    `cause` is what the policy has to decide about (the root cause), and `root` the task to blame: ``victim`` or a
    name. `code` is the client's exit code. `message` is searched for in the root cause's own words.
    """

    state: str = "SUCCEEDED"
    reason: str = "SUCCEEDED"
    code: int = 0
    cause: str = ""
    root: str = "victim"
    message: str = ""
    evidence: str = ""
    """Searched for in the lines that the job's first failure shows."""
    warned: str = ""
    """What a warning has to be about."""
    generations: int | None = None
    detect_s: float | None = None
    recover_s: float | None = None
    alternatives: tuple[tuple[str, str, int], ...] = ()
    """Other ends that are as right: where the fault races with the end itself."""
    files_may_stay: bool = False
    """The machine itself was lost: nobody could tidy it."""
    clocks_jump: bool = False
    """Wall times of events and traces cannot be compared."""
    gone_s: float = 15.0
    """After the client has returned: how long processes on their way out may take."""


@dataclass(frozen=True)
class Seen:
    """What happened: the product's final word, times of the fault's discovery and of the gang's next step."""

    state: str = ""
    reason: str = ""
    code: int | None = None
    cause: str = ""
    detect_s: float | None = None
    recover_s: float | None = None
    leftovers: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    text_right: bool | None = None
    """Whether cause, task and words of the root cause were right; None where the fault has none."""
    wrong_end: bool = False
    """Whether the final state or its reason was wrong."""


def inspect(scene: Scene, expected: Expected, code: int | None, document: dict[str, Any]) -> Seen:
    """Everything that is to be said of a job that has ended. `code` and `document` are the client's."""
    left = left_by(scene, expected)
    outcome = scene.handle.outcome()
    state, reason = outcome.state.value, outcome.reason.value
    decisions = [e for e in scene.events if e.kind is EventKind.DECISION]
    failure = outcome.first_failure
    cause = decisions[0].fields.get("reason", "") if decisions else (failure.reason.value if failure else "")
    blamed = decisions[0].task if decisions else (failure.task if failure else "")
    found: list[str] = []

    ends = ((expected.state, expected.reason, expected.code), *expected.alternatives)
    wrong_end = (state, reason) not in [(s, r) for s, r, _ in ends]
    if wrong_end:
        found.append(f"ended {state} {reason}, not {expected.state} {expected.reason}: {outcome.message[:200]}")
    if code is not None and code not in [c for s, r, c in ends if (s, r) == (state, reason)]:
        found.append(f"exit code {code}")
    if document and (document.get("state"), document.get("reason")) != (state, reason):
        found.append(f"the client said {document.get('state')} {document.get('reason')}, the job {state} {reason}")
    before = len(found)
    if expected.cause and cause != expected.cause:
        found.append(f"root cause {cause or 'unknown'}, not {expected.cause}")
    who = scene.task if expected.root == "victim" else expected.root
    if expected.cause and who and blamed != who:
        found.append(f"{blamed} was blamed, not {who}")
    own = [
        e.text
        for e in scene.events
        if e.task == blamed and (e.fields.get("state") in ("FAILED", "LOST") or e.kind is EventKind.WARNING)
    ]
    told = "\n".join([*own, failure.message if failure else "", outcome.message])
    if expected.message and not re.search(expected.message, told):
        found.append(f"nothing says /{expected.message}/: {outcome.message[:200]}")
    if expected.evidence and not re.search(expected.evidence, "\n".join(failure.tail if failure else ())):
        found.append(f"the first failure does not show /{expected.evidence}/")
    warnings = [e for e in scene.events if e.kind is EventKind.WARNING]
    if expected.warned and not any(e.fields.get("reason") == expected.warned for e in warnings):
        found.append(f"nobody warned of {expected.warned}")
    text_right = len(found) == before if expected.cause or expected.message else None
    generations = outcome.verdict.generations if outcome.verdict else None
    if expected.generations is not None and generations != expected.generations:
        found.append(f"{generations} generations, not {expected.generations}")
    found += one_end(scene, state) + nobody_twice(scene) + no_step_lost(scene, generations)
    detect = recover = None
    if not expected.clocks_jump:
        found += nobody_alone(scene)
        detect, recover = detected_s(scene, expected.cause), recovered_s(scene)
    for name, limit, value in (("detected", expected.detect_s, detect), ("stepping", expected.recover_s, recover)):
        if limit is not None and (value is None or value > limit):
            found.append(f"{name} after {value} s, allowed {limit} s")
    return Seen(state, reason, code, cause, detect, recover, tuple(left), tuple(found), text_right, wrong_end)


def one_end(scene: Scene, state: str) -> list[str]:
    """One final state: in the history, in verdict.json, in the cluster's report."""
    found = []
    kept = kept_events(scene)
    history = [event for event in kept if event["kind"] == "VERDICT"]
    states = {event["fields"].get("state") for event in history}
    if len(history) > 1 or states - {state}:
        found.append(f"the history has {len(history)} ends: {sorted(map(str, states))}")
    numbers = [event["number"] for event in kept]
    if len(set(numbers)) != len(numbers):
        found.append("two events of the history have one number")
    deadline = time.monotonic() + _CONFIRMED_S
    while not (report := scene.handle.report()).state.ended and time.monotonic() < deadline:
        time.sleep(0.1)
    if report.state.value != state:
        found.append(f"the cluster says {report.state.value}, the job {state}")
    return found


def kept_events(scene: Scene) -> list[dict[str, Any]]:
    """The history on the storage."""
    storage = Storage(scene.site.cluster.storage)
    folder = f"jobs/{scene.application_id}"
    lines: list[dict[str, Any]] = []
    try:
        for name in sorted(storage.list(folder)):
            if name.startswith("events-"):
                lines += [json.loads(line) for line in storage.read(f"{folder}/{name}").splitlines()]
    except FileNotFoundError:
        pass
    finally:
        storage.close()
    return lines


def nobody_twice(scene: Scene) -> list[str]:
    """Never two live processes with one rank, never a step of an older generation after one of a newer."""
    found = []
    for rank in range(scene.workers):
        newest = 0
        for line in scene.lines(rank):
            if line["what"] == "twin":
                found.append(f"rank {rank} lived twice")
            if line["what"] == "step" and line["generation"] < newest:
                found.append(f"rank {rank} made a step of generation {line['generation']} after one of {newest}")
                break
            newest = max(newest, line["generation"])
    return found


def no_step_lost(scene: Scene, generations: int | None) -> list[str]:
    """Where there was one generation, every rank was started once and made every step once."""
    if generations != 1:
        return []
    found = []
    for rank in range(scene.workers):
        lines = scene.lines(rank)
        steps = [line["step"] for line in lines if line["what"] == "step"]
        begun = sum(line["what"] == "begin" for line in lines)
        if begun > 1 or steps != list(range(1, len(steps) + 1)):
            found.append(f"rank {rank} began {begun} times and made {len(steps)} steps up to {max(steps, default=0)}")
    return found


def nobody_alone(scene: Scene) -> list[str]:
    """No rank goes on training for long when the others have ended: nobody trains alone after the end."""
    last = [max((line["at"] for line in scene.lines(r)), default=0.0) for r in range(scene.workers)]
    ended = max((e.at for e in scene.events if e.kind is EventKind.VERDICT), default=0.0)
    late = [r for r, at in enumerate(last) if ended and at > ended + 1.0]
    return [f"ranks {late} went on after the verdict"] if late else []


def detected_s(scene: Scene, cause: str) -> float | None:
    """From the fault to the product's first word about it."""
    if not scene.injected_at or not cause:
        return None
    kinds = (EventKind.TASK, EventKind.DECISION, EventKind.VERDICT)
    for event in scene.events:
        failed = event.fields.get("state") in ("FAILED", "LOST") or event.kind is not EventKind.TASK
        if event.kind in kinds and failed and event.at >= scene.injected_at - 0.05:
            return round(max(0.0, event.at - scene.injected_at), 2)
    return None


def recovered_s(scene: Scene) -> float | None:
    """From the fault to the first step of the last rank in the generation that came after it."""
    if not scene.injected_at:
        return None
    firsts = []
    for rank in range(scene.workers):
        lines = scene.lines(rank)
        before = max((line["generation"] for line in lines if line["at"] <= scene.injected_at), default=0)
        later = [x["at"] for x in lines if x["what"] == "step" and x["generation"] > before > 0]
        if not later:
            return None
        firsts.append(min(later))
    return round(max(firsts) - scene.injected_at, 2) if firsts else None


def left_by(scene: Scene, expected: Expected) -> list[str]:
    """What is left and should not be."""
    left = leftovers(scene, expected.gone_s * scene.site.patience)
    return [one for one in left if not (expected.files_may_stay and one.startswith(("socket", "staging")))]


def leftovers(scene: Scene, gone_s: float) -> list[str]:
    """Whatever of the job is still there: processes, ports, sockets, the cluster's staging folder."""
    deadline = time.monotonic() + gone_s
    while (left := _left(scene)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _left(scene: Scene) -> list[str]:
    left = [f"process {pid} {_words(pid)}" for pid in scene.everything()]
    for path in scene.trace.glob("sockets-*"):
        for name in set(path.read_text().split()):
            if Path(name).exists() or Path(name).parent.exists():
                left.append(f"socket {name}")
    if not scene.application_id:
        return left
    with suppress(OSError, ValueError, KeyError):
        address = json.loads(_storage_file(scene, "address.json"))
        with socket.create_connection((address["host"], address["port"]), timeout=0.5):
            left.append(f"port {address['port']}")
    if scene.site.backend == "yarn":
        home = Storage(scene.site.cluster.storage.rsplit("/.tony", 1)[0])
        try:
            left += [f"staging {n}" for n in home.list(".skein") if n == scene.application_id]
        except FileNotFoundError:
            pass
        finally:
            home.close()
    return left


def _storage_file(scene: Scene, name: str) -> bytes:
    storage = Storage(scene.site.cluster.storage)
    try:
        return bytes(storage.read(f"jobs/{scene.application_id}/{name}"))
    finally:
        storage.close()


def _words(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-80:]
    return ""
