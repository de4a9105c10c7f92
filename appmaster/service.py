"""gRPC in → stimuli; the machine's words to executors out; what clients may see and ask."""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
import zlib
from collections.abc import AsyncIterator, Callable, Mapping

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.history import History
from appmaster.machine import JobMachine
from appmaster.meeting import Addresses, Meeting
from appmaster.relay import OutputRelay
from appmaster.stacks import StackRequests
from appmaster.view import snapshot
from tony.clock import Clock
from tony.containers import Identity
from tony.errors import NotPermitted
from tony.events import Event
from tony.frameworks import peers, task_environment
from tony.protocol import messages
from tony.protocol.messages import FromExecutor, OutputChunk, TaskStacks, ToExecutor
from tony.protocol.server import TaskPeer
from tony.snapshot import JobSnapshot
from tony.spec import JobRecord, TaskId, Upload

_LONG_VALUE = 4_000
"""Characters from which on a variable travels compressed."""

_log = logging.getLogger(__name__)


class Service:
    """Implements the handlers of `tony.protocol.server`. Lives in the loop's thread; `feed` takes stimuli."""

    def __init__(
        self,
        machine: JobMachine,
        record: JobRecord,
        history: History,
        clock: Clock,
        feed: Callable[[on.Stimulus], None],
        token_key: str,
        secrets: Mapping[str, str],
        checkpoint_dir: str,
    ) -> None:
        self._machine = machine
        self._record = record
        self._history = history
        self._clock = clock
        self._feed = feed
        self._token_key = token_key.encode()
        self._secrets = dict(secrets)
        self._checkpoint_dir = checkpoint_dir
        self._peers: dict[Identity, TaskPeer] = {}
        self.addresses = Addresses(machine.tasks)
        self.meeting: Meeting | None = None
        self.relay = OutputRelay(self._send_output)
        self._stacks = StackRequests(self._send)

    # Executors ------------------------------------------------------------------------------------------------

    def arrived(self, peer: TaskPeer, message: FromExecutor) -> None:
        kind = message.WhichOneof("message")
        if kind == "hello":
            self._greet(peer, message.hello)
            return
        identity = _identity(peer)
        if self._peers.get(identity) is not peer:
            return
        if kind == "stacks" and message.stacks.request_id:
            self._stacks.arrived(identity, message.stacks)
            return
        stimulus = _STIMULI[kind](identity, getattr(message, kind)) if kind in _STIMULI else None
        if stimulus is not None:
            self._feed(stimulus)

    def gone(self, peer: TaskPeer) -> None:
        identity = _identity(peer)
        if self._peers.get(identity) is peer:
            del self._peers[identity]
            self.relay.departed(peer.task, peer.incarnation)
            self._feed(on.StreamClosed(identity))

    async def output(self, peer: TaskPeer, request_id: str, chunks: AsyncIterator[OutputChunk]) -> None:
        identity = _identity(peer)
        if not hmac.compare_digest(peer.token, self._token(identity)):
            raise NotPermitted("wrong token")
        await self.relay.carry(peer.task, peer.incarnation, request_id, chunks)

    def _greet(self, peer: TaskPeer, hello: messages.Hello) -> None:
        identity = _identity(peer)
        said = (hello.application_id, hello.role, hello.index, hello.incarnation)
        task = identity.task
        if said != (self._machine.application_id, task.role, task.index, identity.incarnation):
            raise NotPermitted("Hello and metadata disagree")
        if not self._machine.may_greet(identity):
            self._refuse(peer, "this incarnation is no longer wanted")
            return
        known = hmac.compare_digest(peer.token, self._token(identity))
        if peer.token and not known:
            raise NotPermitted("wrong token")
        before = self._peers.get(identity)
        if before is not None and not known:
            raise NotPermitted(f"{task} is already attended")
        self._peers[identity] = peer
        self.addresses.learn(identity, peer.address)
        if before is not None:
            before.close()
        self._feed(
            on.Greeted(
                identity,
                host=hello.host,
                container_id=hello.container_id,
                generation=hello.generation,
                user_running=hello.user_running,
                result=_report(hello.result) if hello.HasField("result") else None,
                ports=_ports(hello.ready) if hello.HasField("ready") else None,
                gpus=tuple(hello.gpus),
                stood_still_s=hello.stood_still_s,
            )
        )

    # The machine's words --------------------------------------------------------------------------------------

    def obey(self, command: do.Command) -> None:
        """Carry one command to the executor it concerns; without a connection it is dropped (Hello repeats all)."""
        if isinstance(command, do.SayWelcome):
            self._send(command.identity, ToExecutor(welcome=self._welcome(command)))
            self.relay.arrived(str(command.identity.task), command.identity.incarnation)
        elif isinstance(command, do.SayRelease):
            self._send(command.identity, ToExecutor(release=self._release(command)))
        elif isinstance(command, do.SayStopUser):
            stop = messages.StopUser(
                generation=command.generation,
                next_generation=command.next_generation,
                grace_s=command.grace_s,
                reason=command.reason,
            )
            self._send(command.identity, ToExecutor(stop_user=stop))
        elif isinstance(command, do.SayLiveOn):
            live_on = messages.LiveOn(
                generation=command.generation,
                next_generation=command.next_generation,
                grace_s=command.grace_s,
                reason=command.reason,
            )
            self._send(command.identity, ToExecutor(live_on=live_on))
        elif isinstance(command, do.SayLeave):
            leave = messages.Leave(grace_s=command.grace_s, reason=command.reason)
            self._send(command.identity, ToExecutor(leave=leave))
        elif isinstance(command, do.SayResultAck):
            ack = messages.ResultAck(generation=command.generation)
            self._send(command.identity, ToExecutor(result_ack=ack))
        elif isinstance(command, do.SayBeatNow):
            self._send(command.identity, ToExecutor(beat_now=messages.BeatNow()))
        elif isinstance(command, do.SayDumpStacks):
            self._send(command.identity, ToExecutor(dump_stacks=messages.DumpStacks()))
        elif isinstance(command, do.SayRefused):
            peer = self._peers.pop(command.identity, None)
            if peer is not None:
                self._refuse(peer, command.reason)
        elif isinstance(command, do.DropStream):
            peer = self._peers.pop(command.identity, None)
            if peer is not None:
                peer.close()

    def _refuse(self, peer: TaskPeer, reason: str) -> None:
        peer.send(ToExecutor(refused=messages.Refused(reason=reason)))
        peer.close()

    def _send(self, identity: Identity, message: ToExecutor) -> None:
        peer = self._peers.get(identity)
        if peer is not None:
            peer.send(message)

    def _send_output(self, task: str, incarnation: int, message: messages.SendOutput) -> None:
        self._send(Identity(TaskId.parse(task), incarnation), ToExecutor(send_output=message))

    def _welcome(self, command: do.SayWelcome) -> messages.Welcome:
        record, times = self._record, self._machine.job.times
        role = command.identity.task.role
        files = (*record.files, *record.role_files.get(role, ()))
        environment, inside = record.environment_of(role), record.images.get(role)
        workspace = messages.Workspace(
            environment=_archive(environment) if environment else None,
            source=_archive(record.source) if record.source else None,
            files=[_archive(upload) for upload in files],
            user_python=inside.user_python if inside is not None else record.user_python,
        )
        return messages.Welcome(
            token=self._token(command.identity),
            beat_s=self._machine.beat_s,
            lease_s=times.lease_s,
            lost_s=times.lost_s,
            workspace=workspace,
            generation=command.generation,
        )

    def _release(self, command: do.SayRelease) -> messages.Release:
        job, task = self._machine.job, command.identity.task
        role = job.role(task.role)
        record = self._machine.tasks[task]
        extra = {
            "application_id": self._machine.application_id,
            "generation": str(command.cluster.generation),
            "incarnation": str(command.identity.incarnation),
            "attempt": str(self._machine.attempt),
            "checkpoint_dir": self._checkpoint_dir,
            "tensorboard_port": str(record.ports.tensorboard_port if record.ports else 0),
            **(self.meeting.invite(task, command.cluster) if self.meeting is not None else {}),
        }
        environment = {
            **job.env,
            **role.env,
            **self._secrets,
            **task_environment(task, command.cluster, job, extra),
        }
        long = {name for name, value in environment.items() if len(value) > _LONG_VALUE}
        return messages.Release(
            generation=command.cluster.generation,
            command=role.command,
            processes=role.procs_per_task,
            environment={name: value for name, value in environment.items() if name not in long},
            packed_environment={name: _packed(environment[name]) for name in long},
            hold_ports=command.hold_ports,
            peers=peers(task, command.cluster, job),
            stop_grace_s=job.times.stop_grace_s,
        )

    def _token(self, identity: Identity) -> str:
        """Derived, so that an application master that was started again accepts the same ones."""
        text = f"task {identity.task} {identity.incarnation}".encode()
        return hmac.new(self._token_key, text, hashlib.sha256).hexdigest()

    # Clients --------------------------------------------------------------------------------------------------

    def snapshot(self) -> JobSnapshot:
        return snapshot(self._machine, self._clock.monotonic(), self._history.last_number)

    def events(self, since: int) -> AsyncIterator[Event]:
        return self._history.follow(since)

    def follow(self, tasks: list[str], stream: str, tail_lines: int, follow: bool) -> AsyncIterator[OutputChunk]:
        return self.relay.follow(tasks, stream, tail_lines, follow)

    def stacks(self, tasks: list[str]) -> AsyncIterator[TaskStacks]:
        chosen = [r for r in self._machine.tasks.values() if r.connected and (not tasks or str(r.task) in tasks)]
        return self._stacks.gather([(record.identity, record.host) for record in chosen])

    def stop(self, reason: str, grace_s: float, by: str) -> str:
        self._feed(on.StopAsked(by=by, reason=reason, grace_s=max(0.0, min(grace_s, 3600.0))))
        return self._machine.state.value

    def resize(self, size: int, by: str) -> str:
        problem = self._machine.resize_problem(size)
        if not problem:
            self._feed(on.ResizeAsked(by=by, size=size))
        return problem


@functools.lru_cache(maxsize=4)
def _packed(value: str) -> bytes:
    """Compressed once where all tasks get the same: a thousand releases of a thousand addresses are 3 MB, not 90."""
    return zlib.compress(value.encode(), 1)


def _identity(peer: TaskPeer) -> Identity:
    try:
        return Identity(TaskId.parse(peer.task), peer.incarnation)
    except ValueError as error:
        raise NotPermitted(str(error)) from None


def _archive(upload: Upload) -> messages.Archive:
    return messages.Archive(
        name=upload.name,
        sha256=upload.sha256,
        size=upload.size,
        target=upload.target,
        unpack=upload.unpack,
    )


def _ports(ready: messages.Ready) -> on.Ports:
    return on.Ports(ready.generation, ready.port, ready.tensorboard_port, ready.kept)


def _report(result: messages.Result) -> on.ExitReport:
    return on.ExitReport(
        generation=result.generation,
        phase=messages.Result.Phase.Name(result.phase),
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
        message=result.message,
        tail=tuple(result.tail),
        traceback=result.traceback,
        seconds=result.seconds,
    )


_STIMULI: dict[str, Callable[[Identity, object], on.Stimulus]] = {
    "ready": lambda who, said: on.Prepared(who, _ports(said)),  # type: ignore[arg-type]
    "beat": lambda who, said: on.Beaten(who, said.metrics, said.progress),  # type: ignore[attr-defined]
    "started": lambda who, said: on.UserStarted(who, said.generation),  # type: ignore[attr-defined]
    "result": lambda who, said: on.UserEnded(who, _report(said)),  # type: ignore[arg-type]
    "user_stopped": lambda who, said: on.UserStopped(who, said.generation),  # type: ignore[attr-defined]
    "url": lambda who, said: on.PageOffered(who, said.kind, said.url),  # type: ignore[attr-defined]
    "note": lambda who, said: on.Remark(who, said.text[:1000], said.reason),  # type: ignore[attr-defined]
    "defect": lambda who, said: on.Confessed(who, said.message[:500], said.traceback[:16_000]),  # type: ignore[attr-defined]
    "stacks": lambda who, said: on.StacksTaken(who, said.text),  # type: ignore[attr-defined]
    "left": lambda who, said: on.Departed(who),
}
