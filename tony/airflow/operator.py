"""A training job as a task: submitted once, waited for, ended with the task, its end told in Airflow's words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    TaskDeferralError,
    TaskDeferralTimeout,
)
from airflow.sdk.log import mask_secret

from tony import client
from tony.airflow.hook import TonyHook
from tony.airflow.identity import Identity
from tony.airflow.jobfile import INLINE, JobFile, is_path
from tony.airflow.link import LINKS, links_of
from tony.airflow.parameters import PARAMETERS, Asking, asked_by
from tony.airflow.reaper import LEFTOVER_S, Order, Reaper
from tony.airflow.result import RETRIED, check_retried, document_of, failure, story, translated
from tony.airflow.submission import Submission
from tony.airflow.trigger import TonyTrigger, address_values
from tony.airflow.watch import Watch
from tony.asked import Asked
from tony.clusters import Address
from tony.errors import NoSuchJob, TonyError
from tony.jobhandle import JobHandle
from tony.outcome import Outcome
from tony.state import JobState

ENDED_WITH_TASK = "ended with its Airflow task"
"""The reason that a job keeps when a task has ended it."""
_KILL_EXTRA_S = 60.0
_DEFERRED = "_tony_deferred"
_SLEEP_S = 0.5


class _EndedWhileSubmitting(KeyboardInterrupt):
    """Ends a submit that is under way, which takes back what it has done, as after Ctrl-C."""


class TonyOperator(BaseOperator):
    """Submit a job, wait for it, and return its ``tony.job/1`` document.

    The job is described as for ``tony submit``: `script` with `script_args` (a list), or `job_file` (a path, rendered
    with Jinja; or YAML text; or a dict), and parameters named as the flags; `settings` sets any other key. Relative
    paths start at the dag's folder. `yarn_queue` is the flag ``--queue``: `queue` is Airflow's own.

    `durable`: all tries of the task attach to one application while it lives or has succeeded; a task that somebody
    has cleared gets a new one. Otherwise every try submits its own.
    `deferrable`: wait in the triggerer. `wait_for_completion` False: succeed once the cluster has accepted the job.
    `poll_interval`, `kill_grace`: seconds. `cancel_on_kill`: the job ends with the task.
    `retry_on`: faults and reasons after which Airflow may try again; after others the task fails for good.
    """

    template_fields: ClassVar[Sequence[str]] = (
        *PARAMETERS,
        *("script", "script_args", "job_file", "settings", "conn_id", "cluster"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "job_file": "yaml",
        "settings": "json",
        "env": "json",
        "script_args": "json",
    }
    operator_extra_links = LINKS
    ui_color = "#dbe7f3"

    def __init__(
        self,
        *,
        script: str | None = None,
        script_args: Sequence[Any] = (),
        job_file: str | Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        framework: str | None = None,
        workers: int | str | None = None,
        ps: int | str | None = None,
        chief: bool | str | None = None,
        evaluator: bool | str | None = None,
        roles: Sequence[str] | None = None,
        min_workers: int | str | None = None,
        max_workers: int | str | None = None,
        procs_per_task: int | str | None = None,
        memory: str | None = None,
        vcores: int | str | None = None,
        gpus: int | str | None = None,
        am_memory: str | None = None,
        src: str | None = None,
        exclude: Sequence[str] | None = None,
        venv: str | None = None,
        python: str | None = None,
        files: Sequence[str] | None = None,
        image: str | None = None,
        env: Mapping[str, Any] | None = None,
        secrets: Sequence[str] | Mapping[str, str] | None = None,
        name: str | None = None,
        yarn_queue: str | None = None,
        node_label: str | None = None,
        tags: Sequence[str] | None = None,
        restart: str | None = None,
        max_restarts: int | str | None = None,
        am_attempts: int | str | None = None,
        max_duration: str | timedelta | None = None,
        queue_timeout: str | timedelta | None = None,
        gang_timeout: str | timedelta | None = None,
        hang_timeout: str | timedelta | None = None,
        on_hang: str | None = None,
        success: str | None = None,
        checkpoint_dir: str | None = None,
        tensorboard: str | None = None,
        quantize: int | str | None = None,
        conn_id: str | None = TonyHook.default_conn_name,
        cluster: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait_for_completion: bool = True,
        poll_interval: float = 10.0,
        durable: bool = True,
        cancel_on_kill: bool = True,
        kill_grace: float = 3.0,
        retry_on: Collection[str] = RETRIED,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.script = script
        self.script_args = script_args
        self.job_file = job_file
        self.settings = settings
        self.framework = framework
        self.workers = workers
        self.ps = ps
        self.chief = chief
        self.evaluator = evaluator
        self.roles = roles
        self.min_workers = min_workers
        self.max_workers = max_workers
        self.procs_per_task = procs_per_task
        self.memory = memory
        self.vcores = vcores
        self.gpus = gpus
        self.am_memory = am_memory
        self.src = src
        self.exclude = exclude
        self.venv = venv
        self.python = python
        self.files = files
        self.image = image
        self.env = env
        self.secrets = secrets
        self.name = name
        self.yarn_queue = yarn_queue
        self.node_label = node_label
        self.tags = tags
        self.restart = restart
        self.max_restarts = max_restarts
        self.am_attempts = am_attempts
        self.max_duration = max_duration
        self.queue_timeout = queue_timeout
        self.gang_timeout = gang_timeout
        self.hang_timeout = hang_timeout
        self.on_hang = on_hang
        self.success = success
        self.checkpoint_dir = checkpoint_dir
        self.tensorboard = tensorboard
        self.quantize = quantize
        self.conn_id = conn_id
        self.cluster = cluster
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.durable = durable
        self.cancel_on_kill = cancel_on_kill
        self.kill_grace = kill_grace
        self.retry_on = tuple(retry_on)
        check_retried(self.retry_on)
        self.links: dict[str, str] = {}
        self._job_path: Path | None = None
        self._order: Order | None = None
        self._submitting = False
        self._killed = False
        self._reaper: Reaper | None = None

    # The life of a task ---------------------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Submit or attach, then wait, here or in the triggerer. AirflowFailException where no try can help."""
        with self._in_airflows_words(context):
            return self._run(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The trigger has seen the job's end, or could not look any longer; then this process looks.

        What was known at the deferral comes from XCom: ``airflow dags test`` hands nothing but the event on.
        """
        with self._in_airflows_words(context):
            if "error" in event:
                self.log.warning("the triggerer gave up: %s. Waiting here instead.", event["error"])
            address, application_id, attached = self._resumed(context)
            self._publish(context, address, application_id)
            return self._to_the_end(context, address, application_id, attached)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow has it; a wait that ended without the job's end must not leave the job behind."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self._resumed(context)
            self.on_kill()
            raise
        except TaskDeferralError as error:
            self.log.warning("the triggerer gave up: %s. Waiting here instead.", error)
            with self._in_airflows_words(context):
                address, application_id, _ = self._resumed(context)
                return self._to_the_end(context, address, application_id, attached=True)

    def on_kill(self) -> None:
        """End the job, also one that is just being submitted; returns when the cluster has confirmed its end.

        Airflow calls this from a signal's handler, 5 s before it ends this process: another one does the work.
        """
        if self._killed:
            return
        self._killed = True
        if self._order is None:
            return  # nothing was submitted, and nothing will be
        if not self.cancel_on_kill:
            self.log.info("the job goes on: cancel_on_kill is off")
            return
        self._reaper = Reaper.start(self._order)
        if self._submitting:
            raise _EndedWhileSubmitting
        self._reaped(self.kill_grace + _KILL_EXTRA_S)

    def _reaped(self, timeout_s: float) -> None:
        if self._reaper is not None:
            self._tell(self._reaper.wait(timeout_s)[1])

    @contextlib.contextmanager
    def _in_airflows_words(self, context: Context) -> Iterator[None]:
        """Errors of ours become Airflow's; a job that nobody will look for again is not left behind."""
        try:
            yield
        except _EndedWhileSubmitting:
            self._reaped(LEFTOVER_S + _KILL_EXTRA_S)
            raise AirflowException("the task was ended while it submitted its job") from None
        except KeyboardInterrupt:
            self.on_kill()
            raise
        except AirflowNotFoundException as error:
            raise AirflowFailException(str(error)) from error
        except TonyError as error:
            self._left_behind(context)
            raise translated(error) from error
        except Exception:
            self._left_behind(context)
            raise

    def _left_behind(self, context: Context) -> None:
        """The wait failed, not the job: the next try attaches; without a next try the job is ended."""
        instance = context["ti"]
        if self._killed or self._order is None or not self._order.application_id or not self.cancel_on_kill:
            return
        if self.durable and instance.try_number <= instance.max_tries:
            self.log.info("%s goes on; the next try finds it", self._order.application_id)
        else:
            self.on_kill()

    def _run(self, context: Context) -> Any:
        address, application_id, attached = self._submit(context)
        self._publish(context, address, application_id)
        if not self.wait_for_completion:
            self._order = None
            return {"schema": "tony.submitted/1", "application_id": application_id, "attached": attached}
        if self.deferrable:
            place = address_values(address)
            known = {"application_id": application_id, "address": place, "attached": attached}
            context["ti"].xcom_push(key=_DEFERRED, value=known)
            self.defer(
                trigger=TonyTrigger(application_id, place, self.poll_interval, self.cancel_on_kill, self.kill_grace),
                method_name="execute_complete",
                timeout=self.execution_timeout,
            )
        return self._to_the_end(context, address, application_id, attached)

    # Submitting -----------------------------------------------------------------------------------------------

    def _submit(self, context: Context) -> tuple[Address, str, bool]:
        """Where the job is, its id, and whether it was there before."""
        asked, address, identity = self._wanted(context)
        self._submitting = True
        try:
            self._order = Order(address, "", identity.key, ENDED_WITH_TASK, self.kill_grace)
            if self._killed:
                raise AirflowException("the task was ended before it submitted its job")
            submission = Submission(asked, address, identity, ENDED_WITH_TASK, self.kill_grace, self._say)
            handle = submission.handle()
            self._order = self._order_for(address, handle.application_id)
        finally:
            self._submitting = False
        handle.close()
        return address, handle.application_id, handle.attached

    def _wanted(self, context: Context) -> tuple[Asked, Address, Identity]:
        """The job, where it is to run, and whose it is."""
        hook = TonyHook(self.conn_id, self.cluster)
        asked = self._asked(context, hook)
        identity = Identity.of(context["ti"], self.retries or 0, self.durable, hook.place.namespace)
        return asked, hook.place.address(asked.settings, self.cluster), identity

    def _asked(self, context: Context, hook: TonyHook) -> Asked:
        instance = context["ti"]
        mapped = f".{instance.map_index}" if instance.map_index >= 0 else ""
        for value in self.secrets.values() if isinstance(self.secrets, Mapping) else ():
            mask_secret(value)
        job_file = self._rendered_job_file(context)
        asking = Asking(
            title=f"{instance.dag_id}.{instance.task_id}{mapped}",
            folder=self._folders[0],
            values={name: getattr(self, name) for name in PARAMETERS},
            settings=self.settings or {},
            script=self.script,
            script_args=self.script_args,
            job_file=job_file.path if job_file is not None else None,
            job_document=job_file.document if job_file is not None else None,
        )
        return asked_by(asking, hook.place)

    # The job file ---------------------------------------------------------------------------------------------

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """As Airflow has it, with the job file's text in the place of its path."""
        self._load_job_file()
        super().render_template_fields(context, jinja_env)

    def _load_job_file(self) -> bool:
        """Put the text of the job file, if it can be read, into the place of its path."""
        found = JobFile.found(self.job_file.strip(), self._folders) if is_path(self.job_file) else None
        if found is not None:
            self.job_file, self._job_path = found.document, found.path
        return found is not None

    def _rendered_job_file(self, context: Context) -> JobFile | None:
        """The job file. A path that was a template itself, or came from another task, is read only now."""
        if self._load_job_file():
            self.job_file = self.render_template(self.job_file, context)
        if is_path(self.job_file):  # it could not be read; whoever reads it again says why
            return JobFile(self._folders[0] / self.job_file, None)
        return JobFile(self._job_path or INLINE, self.job_file) if self.job_file else None

    @property
    def _folders(self) -> Sequence[Path]:
        """Where relative paths start, and where else a job file is looked for."""
        if not self.has_dag():
            return (Path.cwd(),)
        searched: Any = self.dag.template_searchpath or ()
        more = (searched,) if isinstance(searched, str) else searched
        return (Path(self.dag.folder), *(Path(folder) for folder in more))

    # Waiting and ending ---------------------------------------------------------------------------------------

    def _to_the_end(self, context: Context, address: Address, application_id: str, attached: bool) -> Any:
        outcome, tracking_url = self._waited(context, address, application_id)
        self._order = None
        if attached and not self._killed and outcome.message == ENDED_WITH_TASK:
            self.log.info("%s was being ended when it was found; submitting anew", application_id)
            self._publish(context, address, application_id)  # fails in a process that Airflow has lost
            return self._run(context)
        return self._finished(application_id, outcome, tracking_url)

    def _waited(self, context: Context, address: Address, application_id: str) -> tuple[Outcome, str]:
        """Look at the job until it has ended; how, and its tracking URL. No JVM lives meanwhile."""
        hook = TonyHook(conn_id=None, address=address)
        with (
            contextlib.closing(hook.get_conn()) as cluster,
            contextlib.closing(JobHandle(application_id, cluster)) as handle,
        ):
            watch = Watch(handle)
            while (outcome := watch.look()) is None:
                self._tell(watch.lines)
                if watch.urls:
                    self._publish(context, address, application_id, watch.urls)
                self._pause()
            self._tell(watch.lines)
            with contextlib.suppress(TonyError):
                return outcome, handle.report().tracking_url
            return outcome, ""

    def _tell(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(line)

    def _say(self, line: str) -> None:
        self.log.info("%s", line)

    def _pause(self) -> None:
        """Until the next look; a signal's handler cannot wake a sleep, so none is long."""
        until = time.monotonic() + self.poll_interval
        while True:
            if self._killed:
                raise AirflowException("the task was ended")
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_SLEEP_S, left_s))

    def _finished(self, application_id: str, outcome: Outcome, tracking_url: str) -> dict[str, Any]:
        record = client.record_of(application_id)
        if outcome.state is JobState.SUCCEEDED:
            self._tell(story(application_id, outcome, record))
            return document_of(application_id, outcome, record, tracking_url)
        for line in story(application_id, outcome, record):
            self.log.error("%s", line)
        if self._killed:
            raise AirflowException(f"{application_id} was ended with the task")
        raise failure(application_id, outcome, self.retry_on)

    def _publish(
        self, context: Context, address: Address, application_id: str, offered: Mapping[str, str] | None = None
    ) -> None:
        """Leave the id and the links in XCom: at every try, because Airflow clears XCom before each."""
        instance = context["ti"]
        found = links_of(application_id, address, offered or {})
        if self.do_xcom_push and offered is None:
            instance.xcom_push(key="application_id", value=application_id)
        for key, url in found.items():
            if self.links.get(key) != url:
                instance.xcom_push(key=key, value=url)
        self.links.update(found)

    def _order_for(self, address: Address, application_id: str) -> Order:
        return Order(address, application_id, "", ENDED_WITH_TASK, self.kill_grace)

    def _resumed(self, context: Context) -> tuple[Address, str, bool]:
        """The job of a task that comes back from its deferral, and whether it was there before. Raises NoSuchJob.

        From now on it ends with the task again.
        """
        instance = context["ti"]
        kept = instance.xcom_pull(task_ids=self.task_id, key=_DEFERRED, map_indexes=instance.map_index)
        if not kept:
            raise NoSuchJob("the task was deferred, but has left no job")
        address, application_id = Address(**kept["address"]), kept["application_id"]
        self._order = self._order_for(address, application_id)
        return address, application_id, kept["attached"]
