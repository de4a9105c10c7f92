"""The resource manager's REST: reports, lists, nodes, queues, limits, kill. No Java.

With several resource managers the one that answers as active is remembered; a standby is passed over. Every request
has a deadline. Errors are `Unreachable`, `NoSuchJob` and `NotPermitted`, in the resource manager's own words.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from tony.capacity import Node, Queue, Scheduler, Size
from tony.containers import AppReport, AppState
from tony.errors import NoSuchJob, NotFinished, NotPermitted, TonyError, Unreachable

_MEMORY, _VCORES = "memory-mb", "vcores"
_APPLICATION_ID = re.compile(r"application_[0-9]{1,20}_[0-9]{4,10}")
_ATTEMPT = re.compile(r"container_(?:e\d+_)?\d+_\d+_(\d+)_\d+")
_KILL_POLL_S = 0.1
_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_ROUNDS = 2
"""How often all resource managers are tried: a fail-over may be going on."""
_ROUND_PAUSE_S = 0.5


@dataclass(frozen=True)
class ClusterInfo:
    """What the resource manager says of itself."""

    version: str
    state: str
    ha_state: str
    started_at: float


def check_application_id(text: str) -> str:
    """The id itself, when it has the form of one; only then may it stand in a URL or a path. Raises NoSuchJob."""
    if not _APPLICATION_ID.fullmatch(text):
        raise NoSuchJob(f"{text!r} is not an application id.", "They look like application_1700000000000_0001.")
    return text


class ResourceManager:
    """A client of one cluster's resource managers. `user` is who it claims to be on clusters without Kerberos."""

    def __init__(self, addresses: Sequence[str], user: str | None = None, timeout_s: float = 5.0) -> None:
        if not addresses:
            raise ValueError("no address of a resource manager")
        self.addresses = tuple(address.rstrip("/") for address in addresses)
        self.user = user
        self.timeout_s = timeout_s
        self._active = 0
        self._session = requests.Session()
        # The cluster is inside the network; a proxy for the internet does not know it.
        self._session.trust_env = False

    def close(self) -> None:
        """Close connections. May be called twice."""
        self._session.close()

    @property
    def address(self) -> str:
        """The resource manager that answered last."""
        return self.addresses[self._active]

    def info(self) -> ClusterInfo:
        """Version and state. Raises Unreachable."""
        told = _object(self._get("/ws/v1/cluster/info"), "clusterInfo")
        return ClusterInfo(
            str(told.get("resourceManagerVersion", "")),
            str(told.get("state", "")),
            str(told.get("haState", "")),
            float(told.get("startedOn", 0)) / 1000,
        )

    def report(self, application_id: str) -> AppReport:
        """Raises NoSuchJob, NotPermitted or Unreachable."""
        path = f"/ws/v1/cluster/apps/{check_application_id(application_id)}"
        return _report(_object(self._get(path, missing=application_id), "app"))

    def log_aggregation(self, application_id: str) -> str:
        """Where the gathering of an application's logs is: NOT_START, RUNNING, SUCCEEDED, FAILED, DISABLED, …"""
        path = f"/ws/v1/cluster/apps/{check_application_id(application_id)}"
        return str(_object(self._get(path, missing=application_id), "app").get("logAggregationStatus", ""))

    def applications(
        self, states: Sequence[AppState] = (), user: str | None = None, tags: Sequence[str] = (), limit: int = 1000
    ) -> list[AppReport]:
        """Applications, newest first, that carry every one of the tags (YARN keeps tags in lower case)."""
        query = {"limit": str(limit), "deSelects": "resourceRequests"}
        wanted = {tag.lower() for tag in tags}
        if user:
            query["user"] = user
        if wanted:
            query["applicationTags"] = ",".join(sorted(wanted))
        if states:
            query["states"] = ",".join(sorted({name for state in states for name in _YARN_STATES[state]}))
        told = self._get("/ws/v1/cluster/apps", query)
        reports = [_report(app) for app in _items(told.get("apps"), "app")]
        chosen = [one for one in reports if wanted <= set(one.tags) and (not states or one.state in states)]
        return sorted(chosen, key=lambda one: (one.started_at, one.application_id), reverse=True)

    def nodes(self) -> list[Node]:
        """Every node that the resource manager knows, lost and unhealthy ones included."""
        return [_node(node) for node in _items(self._get("/ws/v1/cluster/nodes").get("nodes"), "node")]

    def node_labels(self) -> dict[str, bool]:
        """Every node label, and whether its nodes are kept for those who ask for it."""
        told = self._get("/ws/v1/cluster/get-node-labels")
        labels = _items(told, "nodeLabelInfo") or _items(told.get("nodeLabelsInfo"), "nodeLabelInfo")
        return {
            str(one["name"]): str(one.get("exclusivity", True)).lower() == "true" for one in labels if "name" in one
        }

    def scheduler(self) -> Scheduler:
        """Queues and limits, of the capacity scheduler as of the fair one."""
        told = _object(_object(self._get("/ws/v1/cluster/scheduler"), "scheduler"), "schedulerInfo")
        found = _scheduler(told)
        try:
            overview = _object(self._get("/ws/v1/cluster/scheduler-overview"), "scheduler")
        except (TonyError, ValueError):
            # Hadoop before 3.3 does not have it; the limits of the root queue are what remains.
            return found
        kinds = [part.split("(")[0].strip() for part in str(overview.get("schedulingResourceType", "")).split(",")]
        largest, smallest = _size(overview.get("maximumAllocation")), _size(overview.get("minimumAllocation"))
        return Scheduler(
            found.kind, found.queues, largest or found.largest, smallest, tuple(filter(None, kinds)) or None
        )

    def may_submit(self, queue: str, user: str) -> bool | None:
        """Whether the user may submit to the queue; None where the resource manager does not tell this caller."""
        query = {"user": user, "queue-acl-type": "SUBMIT_APPLICATIONS"}
        try:
            path = f"/ws/v1/cluster/queues/{quote(queue, safe='')}/access"
            # Hadoop 3.5 cannot write this answer as JSON.
            answer, raw = self._exchange("GET", path, query, None, accept="application/xml")
        except Unreachable:
            return None
        allowed = re.search(rb"<allowed>(true|false)</allowed>", raw)
        return allowed[1] == b"true" if answer.ok and allowed else None

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        """End the application and return its final report once confirmed; one that has ended is only reported.

        Raises NoSuchJob, NotPermitted, Unreachable, or NotFinished when it is still there after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        report = self.report(application_id)
        if not report.state.ended:
            path = f"/ws/v1/cluster/apps/{application_id}/state"
            _json(*self._exchange("PUT", path, {}, {"state": "KILLED"}), missing=application_id)
        while not report.state.ended:
            if time.monotonic() > deadline:
                raise NotFinished(f"{application_id} is still {report.state.value} {timeout_s:g} s after the kill.")
            time.sleep(_KILL_POLL_S)
            report = self.report(application_id)
        return report

    def _get(self, path: str, query: Mapping[str, str] | None = None, missing: str | None = None) -> dict[str, Any]:
        return _json(*self._exchange("GET", path, query or {}, None), missing)

    def _exchange(
        self, method: str, path: str, query: Mapping[str, str], body: object | None, accept: str = "application/json"
    ) -> tuple[requests.Response, bytes]:
        """What the active resource manager answers. Raises Unreachable when none does."""
        refusals: dict[str, str] = {}
        query = {**query, "user.name": self.user} if self.user else query
        tries = 1 if len(self.addresses) == 1 else _ROUNDS * len(self.addresses)
        for turn in range(tries):
            if turn == len(self.addresses):
                time.sleep(_ROUND_PAUSE_S)
            index = (self._active + turn) % len(self.addresses)
            address = self.addresses[index]
            try:
                with self._session.request(
                    method,
                    address + path,
                    params=query,
                    json=body,
                    headers={"Accept": accept},
                    timeout=self.timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    if answer.is_redirect or "Refresh" in answer.headers:
                        refusals[address] = "is on standby"
                    elif answer.status_code in (502, 503, 504):
                        refusals[address] = f"answers {answer.status_code}"
                    else:
                        self._active = index
                        return answer, _body(answer)
            except (requests.RequestException, OSError) as error:
                if isinstance(error, TonyError):
                    raise
                refusals[address] = _cause(error)
        told = "; ".join(f"{address} {why}" for address, why in refusals.items())
        raise Unreachable(
            f"the resource manager does not answer: {told}",
            "Check HADOOP_CONF_DIR; for a cluster on this machine: tony cluster status",
        )


def _body(answer: requests.Response) -> bytes:
    """The whole answer, bounded in size."""
    parts, size = [], 0
    for part in answer.iter_content(1024 * 1024):
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            raise Unreachable(f"{answer.url} answers more than {_MAX_ANSWER_BYTES} bytes.")
        parts.append(part)
    return b"".join(parts)


def _json(answer: requests.Response, raw: bytes, missing: str | None) -> dict[str, Any]:
    try:
        told = json.loads(raw or b"{}")
    except ValueError:
        told = None
    if answer.ok:
        if isinstance(told, dict):
            return told
        raise _foreign(answer)
    said = _exception(told) or f"{answer.status_code} {answer.reason}"
    if answer.status_code in (401, 403):
        raise NotPermitted(f"the resource manager refuses: {said}")
    if answer.status_code == 404 and missing:
        raise NoSuchJob(f"the resource manager knows no {missing}.")
    if answer.status_code == 404:
        raise _foreign(answer)
    if answer.status_code < 500:
        raise ValueError(f"the resource manager refuses the request: {said}")
    raise Unreachable(f"the resource manager failed: {said}")


def _foreign(answer: requests.Response) -> Unreachable:
    return Unreachable(
        f"{answer.url.split('?')[0]} does not answer as a resource manager does.",
        "Check yarn.resourcemanager.webapp.address in yarn-site.xml.",
    )


def _exception(told: object) -> str:
    """Hadoop's sentence in an error document."""
    inner = told.get("RemoteException") if isinstance(told, dict) else None
    return str(inner.get("message", "")).splitlines()[0] if isinstance(inner, dict) and inner.get("message") else ""


def _cause(error: BaseException) -> str:
    if isinstance(error, requests.Timeout):
        return "did not answer in time"
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "No route to host", "reset by peer"):
        if known in text:
            return f"cannot be reached ({known})"
    return f"cannot be reached ({type(error).__name__})"


def _object(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = told.get(name)
    return inner if isinstance(inner, dict) else {}


def _items(told: object, name: str) -> list[dict[str, Any]]:
    """The list below a name; the REST writes null for none and, in some versions, an object for one."""
    inner = told.get(name) if isinstance(told, dict) else None
    listed = inner if isinstance(inner, list) else [inner]
    return [item for item in listed if isinstance(item, dict)]


_YARN_STATES = {
    AppState.SUBMITTED: ("NEW", "NEW_SAVING", "SUBMITTED"),
    AppState.ACCEPTED: ("ACCEPTED",),
    AppState.RUNNING: ("RUNNING",),
    AppState.SUCCEEDED: ("FINISHED",),
    AppState.FAILED: ("FINISHED", "FAILED"),
    AppState.KILLED: ("FINISHED", "KILLED"),
}


def application_state(state: str, final_status: str) -> AppState:
    """One word for YARN's two; an application that finished without a status has failed."""
    if state == "FINISHED":
        ends = {"SUCCEEDED": AppState.SUCCEEDED, "KILLED": AppState.KILLED}
        return ends.get(final_status, AppState.FAILED)
    if state in ("NEW", "NEW_SAVING", "SUBMITTED"):
        return AppState.SUBMITTED
    # FINISHING: unregistered, its container not gone yet.
    return AppState(state) if state in AppState.__members__ else AppState.RUNNING


def _report(app: Mapping[str, Any]) -> AppReport:
    attempt = _ATTEMPT.search(str(app.get("amContainerLogs", "")))
    return AppReport(
        application_id=str(app.get("id", "")),
        name=str(app.get("name", "")),
        user=str(app.get("user", "")),
        queue=str(app.get("queue", "")),
        state=application_state(str(app.get("state", "")), str(app.get("finalStatus", ""))),
        started_at=_number(app.get("startedTime")) / 1000,
        finished_at=_number(app.get("finishedTime")) / 1000,
        diagnostics=str(app.get("diagnostics") or "").strip(),
        tracking_url=str(app.get("trackingUrl") or "").replace("UNASSIGNED", ""),
        tags=tuple(tag for tag in str(app.get("applicationTags") or "").split(",") if tag),
        progress=_number(app.get("progress")) / 100,
        containers=max(0, int(_number(app.get("runningContainers")))),
        memory_mb=max(0, int(_number(app.get("allocatedMB")))),
        am_host=str(app.get("amHostHttpAddress") or "").rpartition(":")[0],
        am_attempts=int(attempt[1]) if attempt else 0,
    )


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0


def _whole(value: object) -> int:
    return value if isinstance(value, int) else int(_number(value))


def _node(node: Mapping[str, Any]) -> Node:
    total = _size(node.get("totalResource"))
    if total is None:
        # Hadoop before 3.1 tells used and available only.
        total = Size(
            int(_number(node.get("usedMemoryMB")) + _number(node.get("availMemoryMB"))),
            int(_number(node.get("usedVirtualCores")) + _number(node.get("availableVirtualCores"))),
        )
    labels = node.get("nodeLabels") or ()
    return Node(
        id=str(node.get("id", "")),
        host=str(node.get("nodeHostName", "")),
        http_address=str(node.get("nodeHTTPAddress", "")),
        state=str(node.get("state", "")),
        rack=str(node.get("rack", "")),
        labels=tuple(str(label) for label in ([labels] if isinstance(labels, str) else labels)),
        total=total,
        health=str(node.get("healthReport", "")),
    )


def _size(told: object) -> Size | None:
    """A resource in any of the shapes that the REST has had."""
    if not isinstance(told, dict):
        return None
    details = _items(told.get("resourceInformations"), "resourceInformation")
    named = {str(one.get("name")): _whole(one.get("value")) for one in details}
    memory, vcores = named.pop(_MEMORY, told.get("memory")), named.pop(_VCORES, told.get("vCores"))
    return None if memory is None else Size(_whole(memory), _whole(vcores), named)


def _scheduler(told: Mapping[str, Any]) -> Scheduler:
    if "rootQueue" in told:
        root = _object(told, "rootQueue")
        return Scheduler("fair", tuple(_fair_queues(root)), _size(root.get("maxContainerAllocation")))
    queues = (Queue("root", "root", leaf=False), *_capacity_queues(told, "root"))
    if len(queues) == 1:
        # The FIFO scheduler has one queue, which it calls default.
        queues = (Queue("default", "root.default", leaf=True),)
    return Scheduler(str(told.get("type", "")), queues, _size(told.get("maximumAllocation")))


def _capacity_queues(parent: Mapping[str, Any], path: str) -> Iterable[Queue]:
    for queue in _items(parent.get("queues"), "queue"):
        name = str(queue.get("queueName", ""))
        here = str(queue.get("queuePath") or f"{path}.{name}")
        children = list(_capacity_queues(queue, here))
        labels = queue.get("nodeLabels")
        yield Queue(
            name=name,
            path=here,
            leaf=not children and queue.get("queueType", "leaf") == "leaf",
            running=queue.get("state", "RUNNING") == "RUNNING",
            labels=tuple(map(str, labels)) if isinstance(labels, list) else None,
            max_share=_number(queue.get("absoluteMaxCapacity", 100.0)) / 100,
            largest=_size(queue.get("maximumAllocation")),
        )
        yield from children


def _fair_queues(queue: Mapping[str, Any]) -> Iterable[Queue]:
    path = str(queue.get("queueName", ""))
    children = [found for child in _items(queue.get("childQueues"), "queue") for found in _fair_queues(child)]
    leaf = not children and queue.get("type", "fairSchedulerLeafQueueInfo") == "fairSchedulerLeafQueueInfo"
    yield Queue(path.rpartition(".")[2], path, leaf, largest=_size(queue.get("maxContainerAllocation")))
    yield from children
