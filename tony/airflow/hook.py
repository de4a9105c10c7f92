"""What a connection of type ``tony`` says, and jobs on the cluster that it names.

The user of the cluster is not part of it: it is the one of the worker's process (its Kerberos ticket, or
HADOOP_USER_NAME), as for every Hadoop client.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from tony.asked import address_in, completed
from tony.client import attach
from tony.clusters import Address, connect
from tony.config.layers import Request, Settings, gather
from tony.containers import Cluster
from tony.errors import Problem, TonyError, UsageError
from tony.jobhandle import JobHandle

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """What a connection says; empty texts where it says nothing. `cluster` is the connection's host."""

    called: str = ""
    cluster: str = ""
    conf_dir: str = ""
    bin_dir: str = ""
    storage: str = ""
    node_python: str = ""
    queue: str = ""
    namespace: str = ""

    @classmethod
    def of(cls, connection: Any) -> Place:
        """Raises UsageError for a field that is not one, with the nearest that is."""
        called = f"connection {connection.conn_id}"
        extra: Mapping[str, Any] = connection.extra_dejson or {}
        known = [field.name for field in fields(cls) if field.name not in ("called", "cluster")]
        problems = []
        for name in extra:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
                problems.append(Problem(name, "no such field.", origin=called, hint=hint))
        if problems:
            raise UsageError(problems)
        given = {name: str(value) for name, value in extra.items() if value not in (None, "")}
        return cls(called, connection.host or "", **given)

    def address(self, settings: Settings, cluster: str | None = None) -> Address:
        """Where that is. `cluster` and what the settings name come before the connection.

        Raises UsageError when there is no such cluster, or none is known at all.
        """
        name: str | None = cluster or settings.value("cluster")
        if name is None and self.conf_dir and not self.cluster:
            own = Address(self.called, self.conf_dir, self.bin_dir, self.storage, self.node_python)
            found = completed(own, settings)
        else:
            found = address_in(settings, name or self.cluster or None)
        # Other processes, with other working folders, get it too.
        return found if found.local else replace(found, conf_dir=str(Path(found.conf_dir).absolute()))


class TonyHook(BaseHook):
    """Jobs on the cluster of a connection.

    The connection `tony_default` may be missing: then the cluster is found as on the command line. `cluster` names
    another one than the connection. `address` is for those who know it already: no connection is looked up.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "tony_default"
    conn_type = "tony"
    hook_name = "TonY"

    def __init__(
        self, conn_id: str | None = default_conn_name, cluster: str | None = None, address: Address | None = None
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.cluster = cluster
        self._address = address

    @cached_property
    def place(self) -> Place:
        """What the connection says. Raises AirflowNotFoundException, UsageError."""
        if not self.conn_id:
            return Place()
        try:
            return Place.of(self.get_connection(self.conn_id))
        except AirflowNotFoundException:
            if self.conn_id != self.default_conn_name:
                raise
            self.log.info("There is no connection %s; the cluster is found as on the command line.", self.conn_id)
            return Place()

    @property
    def address(self) -> Address:
        """Where jobs are looked for. Raises as `place` does."""
        if self._address is None:
            self._address = self.place.address(gather(Request()), self.cluster)
        return self._address

    def get_conn(self) -> Cluster:
        """The cluster's back-end; close it. Starts no JVM before a submit."""
        return connect(self.address)

    @contextlib.contextmanager
    def opened(self, application_id: str) -> Iterator[JobHandle]:
        """A handle on a job, whichever host submitted it: its folder on the storage tells all. Closed at the end.

        Raises NoSuchJob, Unreachable.
        """
        with (
            contextlib.closing(self.get_conn()) as cluster,
            contextlib.closing(attach(application_id, cluster)) as handle,
        ):
            yield handle

    def test_connection(self) -> tuple[bool, str]:
        """For the button of that name: whether the cluster answers."""
        try:
            with contextlib.closing(self.get_conn()) as cluster:
                return True, f"{self.address.called} answers; {cluster.node_count()} nodes are up"
        except TonyError as error:
            return False, error.message


class TonyAsyncHook(TonyHook):
    """The same for an event loop: what blocks runs in the loop's threads, of which there are only so many."""

    async def call(self, question: Callable[[], T]) -> T:
        """The answer of something that blocks, asked in a thread. Each call of the client has a deadline."""
        return await asyncio.to_thread(question)

    async def open(self, application_id: str) -> JobHandle:
        """A handle whose job was not looked for yet; give it to `close` afterwards."""
        return await self.call(lambda: JobHandle(application_id, self.get_conn()))

    async def close(self, handle: JobHandle) -> None:
        """Let go of a handle of `open`."""
        await self.call(lambda: _close(handle))


def _close(handle: JobHandle) -> None:
    handle.close()
    handle.cluster.close()
