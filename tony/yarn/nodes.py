"""What a NodeManager says of a container: skein keeps neither the exit code nor YARN's diagnostics.

A NodeManager forgets a container half a second after its end, but its output stays until the application has ended.
So those that may fail to start are asked about while they start. Where a node does not answer us (Kerberos, HTTPS, a
wall in between), nothing is known, and the task says where to look.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_ASK_S = 2.0
_MAX_BYTES = 4 * 1024 * 1024
_TAIL_BYTES = 2048
_MAX_NODES = 200
_PAUSE_S = 0.15
_BEFORE_LOG, _AFTER_LOG = "LogContents:\n", "End of LogType:"
_NOT_ENDED = -1000
"""YARN's exit code of a container that has not ended."""


@dataclass(frozen=True)
class Said:
    """A container's end in a NodeManager's words."""

    exit_code: int
    diagnostics: str


def ended_containers(node: str) -> dict[str, Said]:
    """The containers of a node that have ended and are not yet forgotten, by id. Raises OSError, ValueError."""
    told = json.loads(_get(f"http://{node}/ws/v1/node/containers", _MAX_BYTES))
    found = (told.get("containers") or {}).get("container") or []
    return {
        str(one["id"]): Said(int(one["exitCode"]), str(one.get("diagnostics") or ""))
        for one in found
        if isinstance(one.get("exitCode"), int) and one["exitCode"] != _NOT_ENDED and one.get("id")
    }


def last_lines(node: str, container_id: str, file: str) -> list[str]:
    """The end of a container's log file while its application runs; empty where it cannot be had."""
    url = f"http://{node}/ws/v1/node/containers/{container_id}/logs/{file}?size=-{_TAIL_BYTES}"
    try:
        text = _get(url, 2 * _TAIL_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return []
    return [line.strip() for line in _unframed(text).splitlines() if line.strip()]


def _unframed(text: str) -> str:
    """The log alone: since Hadoop 3 the web service tells of container, type and size around it."""
    head, mark, log = text.partition(_BEFORE_LOG)
    return log.rpartition(_AFTER_LOG)[0] if mark and "LogType:" in head else text


class NodeWatch:
    """Asks nodes about containers that are starting, in a thread that lives as long as there are any.

    `ask` is `ended_containers` or what stands for it. `watch` and `said` may be called from any thread.
    """

    def __init__(self, ask: Callable[[str], dict[str, Said]] = ended_containers) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._wanted: dict[str, set[str]] = {}
        self._said: dict[str, Said] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def watch(self, starting: Iterable[tuple[str, str]]) -> None:
        """These are starting: container ids with their nodes' web addresses. Replaces what was watched before."""
        wanted: dict[str, set[str]] = {}
        for container_id, node in starting:
            if node in wanted or len(wanted) < _MAX_NODES:
                wanted.setdefault(node, set()).add(container_id)
        with self._lock:
            self._wanted = wanted
            if wanted and self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="tony-nodes", daemon=True)
                self._thread.start()

    def said(self, container_id: str, node: str) -> Said | None:
        """What the node has said of an ended container, else what it says now; None: nothing. Blocks up to 2 s."""
        with self._lock:
            known = self._said.pop(container_id, None)
        if known is not None:
            return known
        try:
            return self._ask(node).get(container_id)
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End the thread. May be called twice."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(_ASK_S + 1.0)

    def _run(self) -> None:
        silent_until: dict[str, float] = {}
        while not self._closing.wait(_PAUSE_S):
            with self._lock:
                wanted = {node: set(ids) for node, ids in self._wanted.items()}
                if not wanted:
                    self._thread = None
                    return
            for node, ids in wanted.items():
                if self._closing.is_set() or time.monotonic() < silent_until.get(node, 0.0):
                    continue
                try:
                    told = self._ask(node)
                except (OSError, ValueError):
                    # A node that cannot be asked must not keep the others waiting.
                    silent_until[node] = time.monotonic() + 10.0
                    continue
                with self._lock:
                    self._said.update({one: told[one] for one in ids & told.keys()})


def _get(url: str, limit: int) -> bytes:
    # A proxy of the node's environment has no business with its neighbours.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_ASK_S) as answer:
        content: Any = answer.read(limit + 1)
    if len(content) > limit:
        raise ValueError("the answer is too long")
    return bytes(content)
