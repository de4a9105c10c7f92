"""Feeds a `JobMachine` as the world would, and reads its commands by kind. Time moves only when told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.machine import JobMachine
from tony.containers import EndCause, HandleState, Identity, Phase
from tony.spec import JobSpec, RoleSpec, TaskId

C = TypeVar("C")


def job(workers: int = 2, **changes: object) -> JobSpec:
    """A job of some workers."""
    roles = changes.pop("roles", (RoleSpec("worker", ("train.py",), instances=workers),))
    return JobSpec("test", roles, **changes)  # type: ignore[arg-type]


class World:
    """One machine, its clock, and everything it has said so far."""

    def __init__(self, spec: JobSpec, node_count: int = 1) -> None:
        self.now = 1000.0
        self.machine = JobMachine(
            spec, "application_1_0001", "alice", now=self.now, wall=5_000.0, node_count=node_count
        )
        self.said: list[do.Command] = []
        self.feed(on.Begin())

    def feed(self, stimulus: on.Stimulus) -> list[do.Command]:
        new = self.machine.handle(stimulus, self.now)
        self.said.extend(new)
        for command in new:
            if isinstance(command, do.RequestContainer):
                identity = command.identity
                self.feed(on.ContainerAsked(identity, f"{identity.task}#{identity.incarnation}"))
        return new

    def pass_time(self, seconds: float, beating: Iterable[str] = (), step: float = 0.5) -> None:
        """Let time go by in ticks; the named tasks send beats."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for name in beating:
                self.feed(on.Beaten(self.who(name)))
            self.feed(on.Tick())

    def who(self, name: str, incarnation: int | None = None) -> Identity:
        task = TaskId.parse(name)
        return Identity(task, incarnation or self.machine.tasks[task].incarnation)

    def hold(self, *names: str, node: str = "node1") -> None:
        for name in names:
            who = self.who(name)
            handle = f"{who.task}#{who.incarnation}"
            container = f"c_{who.task}_{who.incarnation}"
            self.feed(on.ContainerSeen(who, HandleState(handle, Phase.HELD, container, node)))

    def greet(self, *names: str) -> None:
        for name in names:
            self.feed(on.Greeted(self.who(name), host="node1"))

    def prepare(self, *names: str, port: int = 7000) -> None:
        for name in names:
            self.feed(on.Prepared(self.who(name), on.Ports(self.machine.generation, port)))

    def bring_up(self, *names: str) -> None:
        """Held, greeted and ready."""
        self.hold(*names)
        self.greet(*names)
        self.prepare(*names)

    def exit(self, name: str, code: int = 0, signal: str = "", reason: str = "", message: str = "") -> None:
        report = on.ExitReport(self.machine.generation, exit_code=code, signal=signal, reason=reason, message=message)
        self.feed(on.UserEnded(self.who(name), report))

    def end_container(self, name: str, cause: EndCause = EndCause.EXITED, text: str = "") -> None:
        who = self.who(name)
        handle = f"{who.task}#{who.incarnation}"
        state = HandleState(handle, Phase.ENDED, f"c_{handle}", "node1", cause, None, text)
        self.feed(on.ContainerSeen(who, state))

    def leave(self, *names: str) -> None:
        for name in names:
            self.feed(on.Departed(self.who(name)))

    def all(self, kind: type[C]) -> list[C]:
        """Every command of that kind so far, in order."""
        return [command for command in self.said if isinstance(command, kind)]

    def told(self, kind: type[C]) -> list[str]:
        """The tasks that such commands were for."""
        return [str(command.identity.task) for command in self.all(kind)]  # type: ignore[attr-defined]

    def states(self) -> dict[str, str]:
        return {str(task): record.state.value for task, record in self.machine.tasks.items()}
