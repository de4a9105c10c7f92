"""`tony.containers.ContainerBackend` on YARN: the application master's side, through skein's master beside us."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from tony.containers import AppState, EndCause, HandleState, Identity, Phase
from tony.errors import Unreachable
from tony.yarn.nodes import NodeWatch, last_lines
from tony.yarn.skeinlink import Master, Silent, SkeinContainer
from tony.yarn.specification import plain_environment
from tony.yarn.startfailure import explained

T = TypeVar("T")

GONE_AFTER_S = 30.0
_STARTING_S = 300.0
"""A container that has run so long has started: fetching a large image takes minutes."""
_EXPLAIN_S = 3.0
_MAX_DIAGNOSTICS = 8000
"""Longer texts break skein's header limit, and nobody reads them in a table of applications."""


class MasterGone(Unreachable):
    """skein's JVM has not answered for so long that it will not come back: the application is ending or orphaned."""


class YarnContainers:
    """Containers of the application that this process is the master of. Thread-safe; all calls block."""

    def __init__(
        self,
        master: Master,
        monotonic: Callable[[], float] = time.monotonic,
        images: Mapping[str, str] = MappingProxyType({}),
        nodes: NodeWatch | None = None,
    ) -> None:
        """`images` by role: their containers may be refused by nodes, which are asked about them while they start."""
        self._master = master
        self._images = dict(images)
        self._nodes = nodes or NodeWatch()
        self._running_since: dict[str, float] = {}
        self._explained: dict[str, HandleState] = {}
        self._monotonic = monotonic
        self._silent_since: float | None = None
        self._closed = False

    @classmethod
    def from_current(cls, images: Mapping[str, str] = MappingProxyType({})) -> YarnContainers:
        """Connect from inside the master's container. Raises TonyError elsewhere."""
        return cls(Master(), images=images)

    @property
    def application_id(self) -> str:
        return self._master.application_id

    def request(self, identity: Identity, environment: Mapping[str, str]) -> str:
        """See `ContainerBackend.request`. The handle is skein's name of the container, ``worker_3``."""
        plain = plain_environment(environment)
        return self._called(lambda: self._master.add(identity.task.role, plain))

    def stop(self, handle: str) -> None:
        """See `ContainerBackend.stop`."""
        try:
            self._called(lambda: self._master.kill(handle))
        except (KeyError, ValueError):
            # It has ended, or was never asked for: what was wanted is so.
            return

    def poll(self) -> Sequence[HandleState]:
        """See `ContainerBackend.poll`. May be as late as skein's beat, and RUNNING is no proof of life."""
        containers = self._called(self._master.containers)
        self._watch(containers)
        until = self._monotonic() + _EXPLAIN_S
        return [self._state(container, until) for container in containers]

    def progress(self, fraction: float) -> None:
        """See `ContainerBackend.progress`."""
        self._called(lambda: self._master.progress(fraction))

    def finish(self, state: AppState, diagnostics: str) -> None:
        """See `ContainerBackend.finish`. With attempts left YARN starts the next one after a failure."""
        text = diagnostics if len(diagnostics) <= _MAX_DIAGNOSTICS else diagnostics[: _MAX_DIAGNOSTICS - 1] + "…"
        self._called(lambda: self._master.shutdown(state.value, text))

    def close(self) -> None:
        """See `ContainerBackend.close`: YARN ends the containers with the application."""
        if not self._closed:
            self._closed = True
            self._nodes.close()
            self._master.close()

    def _watch(self, containers: Sequence[SkeinContainer]) -> None:
        """Have nodes asked about Docker containers that are young enough to fail at their start."""
        if not self._images:
            return
        now = self._monotonic()
        young = []
        for container in containers:
            if container.state == "RUNNING" and _role(container) in self._images:
                since = self._running_since.setdefault(container.id, now)
                if now - since < _STARTING_S:
                    young.append((container.container_id, container.node))
        self._nodes.watch(young)

    def _state(self, container: SkeinContainer, until: float) -> HandleState:
        """The container as it is; one that has failed is looked into once, within the time that a poll may take."""
        known = self._explained.get(container.id)
        if known is not None:
            return known
        state = handle_state(container)
        if container.state != "FAILED" or not container.container_id or self._monotonic() > until:
            return state
        role = _role(container)
        said = self._nodes.said(container.container_id, container.node) if role in self._images else None
        lines = last_lines(container.node, container.container_id, f"{role}.log")
        self._explained[container.id] = explained(state, self._images.get(role), said, lines)
        return self._explained[container.id]

    def _called(self, call: Callable[[], T]) -> T:
        try:
            answer = call()
        except Silent as error:
            now = self._monotonic()
            since = self._silent_since = now if self._silent_since is None else self._silent_since
            if now - since >= GONE_AFTER_S:
                raise MasterGone(
                    f"skein's master has not answered for {now - since:.0f} s: {error.message}"
                ) from error
            raise
        self._silent_since = None
        return answer


def _role(container: SkeinContainer) -> str:
    """skein names containers ``role_3``."""
    return container.id.rpartition("_")[0]


def handle_state(container: SkeinContainer) -> HandleState:
    """skein's six states as our three."""
    phases = {"WAITING": Phase.REQUESTED, "REQUESTED": Phase.REQUESTED, "RUNNING": Phase.HELD}
    phase = phases.get(container.state, Phase.ENDED)
    ended = phase is Phase.ENDED
    return HandleState(
        handle=container.id,
        phase=phase,
        container_id=container.container_id or None,
        node=container.node.rpartition(":")[0] or container.node or None,
        cause=end_cause(container.state, container.message) if ended else None,
        # skein drops every other exit code.
        exit_code=0 if container.state == "SUCCEEDED" else None,
        diagnostics=diagnostics(container.message) if ended else "",
        node_id=container.node or None,
    )


def diagnostics(message: str) -> str:
    """YARN's sentence; of a file that is gone or changed its name and that, instead of a Java stack."""
    changed, gone = _CHANGED.search(message), _GONE.search(message)
    if changed:
        return f"{changed[1]} was changed after the submit"
    if gone:
        return f"{gone[1]} was removed after the submit"
    return message


_CHANGED = re.compile(r"Resource (\S+) changed on src filesystem")
_GONE = re.compile(r"File does not exist: (\S+)")

_CAUSES = (
    (EndCause.KILLED_BY_US, ("killed by user request",)),
    (
        EndCause.OUT_OF_MEMORY,
        ("physical memory used", "beyond the 'physical' memory limit", "beyond physical memory"),
    ),
    (EndCause.OUT_OF_VMEM, ("virtual memory used", "beyond the 'virtual' memory limit", "beyond virtual memory")),
    (EndCause.PREEMPTED, ("preempted",)),
    (
        EndCause.DISK_FAILED,
        ("local-dirs are bad", "log-dirs are bad", "disk(s) failed", "disks failed", "no space left"),
    ),
    (EndCause.NODE_LOST, ("released on a *lost* node", "lost node", "node lost")),
    (EndCause.ARTIFACT_CHANGED, ("changed on src filesystem", "file does not exist:", "filenotfoundexception")),
    (EndCause.LAUNCH_FAILED, ("failed to start, exception", "container launch failed", "could not find", "localiz")),
    (EndCause.EXITED, ("container failed during execution", "completed successfully")),
)


def end_cause(state: str, message: str) -> EndCause:
    """Why a container ended, from skein's state and YARN's sentence."""
    if state == "SUCCEEDED":
        return EndCause.EXITED
    if state == "KILLED":
        return EndCause.KILLED_BY_US
    said = message.lower()
    for cause, words in _CAUSES:
        if any(word in said for word in words):
            return cause
    return EndCause.UNKNOWN
