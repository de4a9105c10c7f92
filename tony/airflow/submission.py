"""A task's one application: the one that an earlier try has submitted, or a new one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from tony import client
from tony.airflow.identity import Identity
from tony.airflow.reaper import end_application
from tony.asked import Asked, planned
from tony.clusters import Address, connect
from tony.containers import Cluster, SubmitProgress
from tony.jobhandle import JobHandle

Say = Callable[[str], None]


class Submission:
    """What one task instance wants to run, and where. `say` gets a line for each step; `grace_s` as of the reaper."""

    def __init__(
        self, asked: Asked, address: Address, identity: Identity, reason: str, grace_s: float, say: Say
    ) -> None:
        self._asked = asked
        self._address = address
        self._identity = identity
        self._reason = reason
        self._grace_s = grace_s
        self._say = say
        self._step = ""

    def handle(self) -> JobHandle:
        """The application, accepted. Whatever the submit needed, a JVM above all, is closed again.

        Raises UsageError, Refused, PackagingError, Unreachable, NotPermitted. An interrupt takes back what was done.
        """
        with contextlib.closing(connect(self._address)) as cluster:
            found = client.submitted(self._identity.key, cluster)
            if found is not None:
                self._say(f"attached to {found.application_id}, submitted by an earlier try")
                return found
            self._end_earlier(cluster)
        handle = self._submitted()
        self._say(f"{'attached to' if handle.attached else 'submitted'} {handle.application_id}")
        return handle

    def _submitted(self) -> JobHandle:
        resolved = self._asked.resolved
        job = replace(resolved.job, tags=(*resolved.job.tags, self._identity.tag))
        asked = replace(self._asked, resolved=replace(resolved, job=job))
        with planned(asked, self._told, warm_up=True, address=self._address) as made:
            for warning in (*resolved.warnings, *made.plan.warnings):
                self._say(f"warning: {warning}")
            return client.submit(
                made.plan,
                made.cluster,
                self._told,
                resolved.secrets,
                command_at=time.time(),
                idempotency_key=self._identity.key,
            )

    def _end_earlier(self, cluster: Cluster) -> None:
        """End what the task had submitted before somebody cleared it, or in a try that was not durable."""
        for report in cluster.list(user=getattr(cluster, "user", None), tag=self._identity.tag):
            if not report.state.ended and self._identity.key_tag not in report.tags:
                end_application(cluster, report.application_id, self._reason, self._grace_s, self._say)

    def _told(self, progress: SubmitProgress) -> None:
        """One line for each step of packing and uploading."""
        if progress.step != self._step:
            self._step = progress.step
            self._say(progress.step)
