"""The sentences of `ContainerBackend`, as one body that is run against every back-end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tony.containers import ContainerBackend, EndCause, HandleState, Identity, Phase
from tony.spec import TaskId

_PATIENCE_S = 60.0


def obey(backend: ContainerBackend, environment: Mapping[str, str]) -> None:
    """Two containers: one ends by itself, one is stopped. Raises AssertionError with the sentence that is broken."""

    def states() -> dict[str, HandleState]:
        return {state.handle: state for state in backend.poll()}

    def until(done: Callable[[dict[str, HandleState]], bool], sentence: str) -> dict[str, HandleState]:
        deadline = time.monotonic() + _PATIENCE_S
        while not done(seen := states()):
            assert time.monotonic() < deadline, f"{sentence}: {seen}"
            time.sleep(0.05)
        return seen

    def ask(index: int, behaviour: str) -> str:
        task = TaskId("worker", index)
        extra = {"TONY_TASK": str(task), "TONY_INCARNATION": "1", "EDGE_BEHAVIOUR": behaviour}
        return backend.request(Identity(task, 1), {**environment, **extra})

    short, long = ask(0, "exits-with-3"), ask(1, "sleeps")
    assert short != long, "every request has a handle of its own"
    assert set(states()) == {short, long}, "a request is known at once, before anything is allocated"

    def both_held(seen: dict[str, HandleState]) -> bool:
        return all(state.phase is not Phase.REQUESTED for state in seen.values())

    seen = until(both_held, "what can be given is given")
    assert all(state.container_id and state.node for state in seen.values()), "a held container has an id and a node"

    seen = until(lambda s: s[short].phase is Phase.ENDED, "the end of a process is noticed")
    assert seen[short].cause is EndCause.EXITED, "a process that ends by itself has EXITED"
    assert seen[short].exit_code in (3, None), "an exit code is true or unknown, never invented"
    assert seen[long].phase is Phase.HELD, "the end of one container is not the end of another"

    backend.stop(long)
    seen = until(lambda s: s[long].phase is Phase.ENDED, "a stopped container ends")
    assert seen[long].cause is EndCause.KILLED_BY_US, "what we ended is told apart from what ended"
    assert short in seen, "ended containers stay in the list"
    for handle in (long, short, "worker_99", "nonsense"):
        backend.stop(handle)  # twice, ended, unknown: all the same
    backend.progress(0.5)
