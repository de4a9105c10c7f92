"""`tony.containers.Cluster` on YARN: the client's side. REST for everything that reads; skein's driver submits."""

from __future__ import annotations

import getpass
import logging
import os
import secrets as randomness
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from tony import records
from tony.containers import AppReport, AppState, LogLine
from tony.errors import NotFinished, NotPermitted, Problem, TonyError, Unreachable
from tony.hadoop import HadoopConf
from tony.paths import private_folder, state_dir
from tony.plan import JobSecrets, Plan
from tony.rm import ResourceManager, check_application_id
from tony.spec import JobSpec, Upload
from tony.yarn.admission import away_from_excluded, job_problems
from tony.yarn.docker import cluster_problems as docker_problems
from tony.yarn.driver import skein_jar
from tony.yarn.fastbeat import FILE_NAME, beat_jar, beat_ms
from tony.yarn.scripts import LAUNCHER
from tony.yarn.specification import JOB_FILE, SECRETS_FILE, TAG, application_spec
from tony.yarn.submitter import Submitter

log = logging.getLogger(__name__)

_POLL_S = 0.2
_WITHDRAW_TRIES = 2
_WITHDRAW_TRIES_KEPT = 10
"""A kept driver goes on with a submit whose caller has given up."""


class YarnCluster:
    """A YARN cluster as its configuration folder describes it.

    `bin_dir` holds the command `yarn` when it is not on PATH. `user` is who to be where there is no Kerberos
    (default: HADOOP_USER_NAME, else the caller). `storage` is the base URL of the user's folder when it is not
    ``.tony`` in the home folder on the default file system. `beat` False leaves skein's slow beat as it is.
    `runtime_path` names folders on every node to run from, for plans without a runtime bundle.
    """

    name = "yarn"

    def __init__(
        self,
        conf_dir: Path,
        bin_dir: Path | None = None,
        user: str | None = None,
        *,
        storage: str | None = None,
        beat: bool = True,
        runtime_path: Sequence[str] = (),
        rm_timeout_s: float = 5.0,
    ) -> None:
        self.conf = HadoopConf.load(conf_dir)
        self.conf_dir = Path(conf_dir).absolute()
        self.bin_dir = bin_dir
        self.user = user or os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
        self._given_storage = storage
        self._beat = beat
        self._runtime_path = tuple(runtime_path)
        claimed = None if self.conf.secure else self.user
        self.rm = ResourceManager(self.conf.rm_web_addresses(), claimed, rm_timeout_s)
        self._submitter = Submitter(self.conf_dir, bin_dir, user)

    @property
    def storage(self) -> str:
        """See `Cluster.storage`. Raises UsageError when the configuration names no shared file system."""
        return self._given_storage or self.conf.storage_base(self.user)

    def warm_up(self) -> None:
        """Start the submit driver beside whatever comes first; returns at once."""
        self._submitter.warm_up()

    @property
    def driver_process(self) -> subprocess.Popen[bytes] | None:
        """The submit driver's JVM, if this object has started one."""
        return self._submitter.process

    def check(self, job: JobSpec) -> list[Problem]:
        """See `Cluster.check`. A few REST calls; no Java. Where REST refuses (Kerberos) nothing can be said."""
        try:
            scheduler, nodes, labels = self.rm.scheduler(), self.rm.nodes(), self.rm.node_labels()
        except NotPermitted as error:
            if not self.conf.secure:
                raise
            log.warning("the job was not checked against this cluster: %s", error)
            return []
        found = job_problems(job, nodes, scheduler, self.conf.resource_types, labels)
        found += docker_problems(job, self.conf) + self._client_config_problems(job)
        queue = scheduler.queue(job.queue)
        if queue is not None and self.rm.may_submit(queue.path, self.user) is False:
            found.append(Problem("queue", f"{self.user} may not submit to it.", job.queue))
        if job.am_attempts > 1:
            most = self.conf.get("yarn.resourcemanager.am.max-attempts", "2") or "2"
            if most.isdigit() and job.am_attempts > int(most):
                found.append(Problem("am_attempts", f"this cluster allows {most}.", str(job.am_attempts)))
        return found

    def _client_config_problems(self, job: JobSpec) -> list[Problem]:
        """A Docker client's configuration that is not there. One on another file system is the nodes' matter."""
        from tony.storage import Storage

        url = job.docker.client_config
        if url is None:
            return []
        with suppress(TonyError), closing(Storage(self.storage, self.user)) as storage:
            if not storage.exists(url):
                return [Problem("docker.client_config", "there is no such file for the nodes to read.", url)]
        return []

    def node_count(self) -> int:
        """See `Cluster.node_count`. 1 where REST refuses."""
        try:
            return sum(node.usable for node in self.rm.nodes())
        except NotPermitted:
            if not self.conf.secure:
                raise
            return 1

    def master_jar(self) -> Path:
        """What a plan for this cluster must bring for the application master's JVM. Raises Unreachable."""
        return skein_jar()

    def submit(self, plan: Plan, secrets: JobSecrets) -> str:
        """See `Cluster.submit`. Blocks for the upload and the submit, 1-2 s as a rule.

        What was submitted although this call fails (no answer in time, Ctrl-C) is taken back.
        """
        mark = f"tony-{randomness.token_hex(6)}"
        with tempfile.TemporaryDirectory(prefix="tony-submit-") as staged:
            if plan.job.exclude_nodes:
                placed = away_from_excluded(plan.record.spec, self.rm.nodes())
                plan = replace(plan, record=replace(plan.record, spec=placed))
            if plan.record.jar is None:
                plan = replace(plan, record=replace(plan.record, jar=self._stored_jar()))
            specification = self._specification(plan, secrets, Path(staged), mark)
            driver = self._submitter.driver()
            try:
                application_id = driver.submit(specification)
            except (Unreachable, KeyboardInterrupt):
                self._withdraw(mark)
                raise
        self._remember(application_id, secrets)
        return application_id

    def report(self, application_id: str) -> AppReport:
        """See `Cluster.report`."""
        try:
            return self.rm.report(application_id)
        except NotPermitted:
            if not self.conf.secure:
                raise
            return self._submitter.driver().report(application_id)

    def list(
        self, states: Sequence[AppState] = (), user: str | None = None, tag: str | None = None
    ) -> list[AppReport]:
        """See `Cluster.list`. Only applications that tony submitted."""
        tags = (TAG, tag) if tag else (TAG,)
        return self.rm.applications(states, user, tags)

    def kill(self, application_id: str, timeout_s: float = 30.0) -> AppReport:
        """See `Cluster.kill`. Raises NotFinished when YARN has not confirmed it by then."""
        deadline = time.monotonic() + timeout_s
        try:
            return self.rm.kill(application_id, timeout_s)
        except NotPermitted:
            if not self.conf.secure:
                raise
        driver = self._submitter.driver()
        driver.kill(check_application_id(application_id))
        while not (report := driver.report(application_id)).state.ended:
            if time.monotonic() > deadline:
                raise NotFinished(f"{application_id} is still {report.state.value} {timeout_s:g} s after the kill.")
            time.sleep(_POLL_S)
        return report

    def sweep(self, application_id: str) -> None:
        """Remove the staging folder, keys included, of an application whose master was killed before it could."""
        from tony.storage import Storage

        base, question, query = self.conf.storage_base(self.user).partition("?")
        with closing(Storage(base.rpartition("/")[0] + question + query, self.user)) as home:
            home.remove(f".skein/{check_application_id(application_id)}")

    def logs(self, application_id: str) -> Iterator[LogLine]:
        """See `Cluster.logs`. Starts a JVM."""
        from tony.yarn.logs import kept_logs

        return kept_logs(self.rm, self.conf_dir, self.bin_dir, check_application_id(application_id), self.user)

    def close(self) -> None:
        """See `Cluster.close`."""
        self._submitter.close()
        self.rm.close()

    def _specification(self, plan: Plan, secrets: JobSecrets, staged: Path, mark: str) -> dict[str, object]:
        from tony.packaging.runtime import launch_file

        # Copied, because skein reads a path as a URL: a # in a folder's name would end it.
        contents = {
            LAUNCHER: launch_file().read_bytes(),
            JOB_FILE: records.encode(plan.record),
            SECRETS_FILE: records.encode(secrets),
        }
        if self._beat:
            contents[FILE_NAME] = beat_jar(self.conf.site("yarn-site.xml"), beat_ms(plan.record.node_count))
        files = {}
        for name, content in contents.items():
            files[name] = staged / name
            files[name].touch(0o600)
            files[name].write_bytes(content)
        return application_spec(
            plan, secrets, files.pop(LAUNCHER), files, tags=(mark,), runtime_path=self._runtime_path
        )

    def _stored_jar(self) -> Upload:
        """The jar on the cluster's storage, for plans that were made without it."""
        from tony.packaging.archive import existing_archive
        from tony.packaging.cache import ArchiveCache
        from tony.storage import Storage

        jar = self.master_jar()
        with closing(Storage(self.storage, self.user)) as storage:
            return ArchiveCache(storage).put(existing_archive(jar), jar.name)[0]

    def _withdraw(self, mark: str) -> None:
        """Find what a failed submit has left by its tag, and kill it."""
        tries = _WITHDRAW_TRIES if self._submitter.process is not None else _WITHDRAW_TRIES_KEPT
        self._submitter.close()
        for turn in range(tries):
            try:
                left = self.rm.applications(tags=(mark,))
                for report in left:
                    self.rm.kill(report.application_id)
            except TonyError as error:
                log.warning("could not look for what the failed submit has left (tag %s): %s", mark, error)
                return
            if left or turn == tries - 1:
                return
            time.sleep(1.0)

    def _remember(self, application_id: str, secrets: JobSecrets) -> None:
        """Keep what is needed to attach. Without it the owner's copy in the job folder still serves."""
        try:
            path = private_folder(state_dir() / "jobs") / f"{application_id}.json"
            path.touch(0o600)
            path.write_bytes(records.encode(replace(secrets, secrets={})))
        except OSError as error:
            log.warning("could not keep the key of %s: %s", application_id, error)
