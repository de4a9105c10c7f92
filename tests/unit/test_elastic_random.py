"""An elastic job under whatever may happen to it, drawn by chance: what holds at every moment, and that it ends."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from machine_driver import job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.machine import JobMachine
from tony.containers import EndCause, HandleState, Identity, Phase
from tony.spec import ExclusionSpec, RestartSpec, RoleSpec, Times
from tony.state import JobState, TaskState

LEAST, ASKED, MOST = 2, 4, 6
TIMES = Times(gang_s=40.0, backoff_min_s=2.0, backoff_max_s=9.0, gang_rounds=1000, replacement_s=8.0, growth_s=30.0)
ROLE = RoleSpec("worker", ("t.py",), instances=ASKED, min_instances=LEAST, max_instances=MOST)
HURT_S, END_S = 1000.0, 4000.0


class Chance:
    """A cluster of three nodes with two slots each, executors that answer late, and trouble.

    `lively`: user processes say that they can live on, and most of them do.
    """

    def __init__(self, seed: int, lively: bool = False) -> None:
        self.random = random.Random(seed)
        self.lively = lively
        self.now = 0.0
        spec = job(
            roles=(ROLE,),
            times=TIMES,
            restart=RestartSpec(max_infrastructure=10**6, same_failure=10**6),
            exclusion=ExclusionSpec(share_percent=50, expiry_s=200.0),
        )
        self.machine = JobMachine(spec, "application_1_0001", "a", now=0.0, wall=0.0, node_count=3, seed=seed)
        self.waiting: list[Identity] = []
        self.node: dict[Identity, int] = {}
        self.silent: dict[Identity, float] = {}
        self.seen: Counter[str] = Counter()
        self.running: dict[Identity, int] = {}
        self.due: list[tuple[float, on.Stimulus]] = []
        self.feed(on.Begin())

    def later(self, fact: on.Stimulus, within_s: float = 3.0) -> None:
        self.due.append((self.now + self.random.uniform(0.0, within_s), fact))

    def feed(self, fact: on.Stimulus) -> None:
        commands = self.machine.handle(fact, self.now)
        self.seen.update(one.kind.value for one in commands if isinstance(one, do.RecordEvent))
        released = [one for one in commands if isinstance(one, do.SayRelease)]
        if released:
            self.check_release(released)
        for command in commands:
            if isinstance(command, do.RequestContainer):
                self.waiting.append(command.identity)
                self.feed(on.ContainerAsked(command.identity, str(command.identity)))
            elif isinstance(command, do.StopContainer):
                self.end(command.identity, EndCause.KILLED_BY_US)
            elif isinstance(command, do.SayWelcome):
                self.answer(on.Prepared(command.identity, on.Ports(command.generation, 7000)))
            elif isinstance(command, do.SayStopUser):
                self.running.pop(command.identity, None)
                self.answer(on.UserStopped(command.identity, command.generation))
                self.answer(on.Prepared(command.identity, on.Ports(command.next_generation, 7000)))
            elif isinstance(command, do.SayLiveOn):
                kept = command.identity in self.running and self.random.random() < 0.8
                if kept:
                    self.seen["lived on"] += 1
                    self.running[command.identity] = command.next_generation
                else:
                    self.running.pop(command.identity, None)
                self.answer(on.Prepared(command.identity, on.Ports(command.next_generation, 7000, kept=kept)))
            elif isinstance(command, (do.SayLeave, do.SayRefused)) and command.identity not in self.silent:
                self.feed_later_leave(command.identity)
            elif isinstance(command, do.SayRelease):
                self.running[command.identity] = command.cluster.generation
                if self.lively:
                    self.answer(on.CanLiveOn(command.identity, 0, 5000, "ab"))

    def answer(self, fact: on.Prepared | on.UserStopped | on.CanLiveOn) -> None:
        if fact.identity not in self.silent:
            self.later(fact)

    def feed_later_leave(self, who: Identity) -> None:
        self.running.pop(who, None)
        self.later(on.Departed(who))
        self.later(on.ContainerSeen(who, self.state(who, Phase.ENDED, EndCause.EXITED)), 6.0)

    def check_release(self, released: list[do.SayRelease]) -> None:
        """All of a generation are told one world, whose size the user has allowed; nobody is in two."""
        worlds = {one.cluster.tasks for one in released}
        assert len(worlds) == 1
        (world,) = worlds
        assert LEAST <= len(world) <= MOST
        assert {one.identity.task for one in released} == set(world)
        for who, generation in list(self.running.items()):
            in_world = any(one.identity == who for one in released)
            if who in self.silent and not in_world:
                # Nobody knows what it does; by its lease at the latest it has stopped.
                assert self.now >= self.silent[who] + TIMES.lease_s - 1.0, who
                del self.running[who]
                continue
            assert in_world or generation < released[0].cluster.generation

    def state(self, who: Identity, phase: Phase, cause: EndCause | None = None) -> HandleState:
        return HandleState(str(who), phase, f"c-{who}", f"n{self.node.get(who, 0)}", cause)

    def end(self, who: Identity, cause: EndCause) -> None:
        if who in self.waiting:
            self.waiting.remove(who)
        if who in self.node:
            state = self.state(who, Phase.ENDED, cause)
            del self.node[who]
            if who not in self.silent or cause is EndCause.EXITED:
                self.running.pop(who, None)
            self.later(on.ContainerSeen(who, state))

    def pass_time(self) -> None:
        self.now += 0.5
        due = [fact for at, fact in self.due if at <= self.now]
        self.due = [(at, fact) for at, fact in self.due if at > self.now]
        for fact in due:
            if isinstance(fact, on.ContainerSeen):
                self.node.pop(fact.identity, None)
            self.feed(fact)
        if self.waiting and self.random.random() < 0.5:
            free = [node for node in range(3) if list(self.node.values()).count(node) < 2]
            if free:
                who = self.waiting.pop(0)
                self.node[who] = self.random.choice(free)
                self.feed(on.ContainerSeen(who, self.state(who, Phase.HELD)))
                self.later(on.Greeted(who, f"n{self.node[who]}"))
        for record in list(self.machine.tasks.values()):
            if record.connected and record.identity not in self.silent:
                self.feed(on.Beaten(record.identity))
        self.feed(on.Tick())

    def trouble(self) -> None:
        """Once in a minute or so."""
        if self.random.random() > 0.5 / 60:
            return
        held = list(self.node)
        who = self.random.choice(held) if held else None
        what = self.random.choice(("resize", "resize", "end", "silence", "kill", "gpu"))
        if what == "resize":
            self.feed(on.ResizeAsked("a", self.random.randint(LEAST, MOST)))
        elif who is None or self.machine.state.ended:
            return
        elif what == "end":
            self.end(who, EndCause.EXITED)
        elif what == "silence":
            self.silent[who] = self.now
        elif who in self.running:
            reason = "GPU_FAULT" if what == "gpu" else ""
            report = on.ExitReport(
                self.running.pop(who), exit_code=1, signal="" if reason else "SIGKILL", reason=reason
            )
            self.feed(on.UserEnded(who, report))


@pytest.mark.parametrize("lively", [False, True], ids=["started anew", "living on"])
@pytest.mark.parametrize("seed", range(12))
def test_an_elastic_job_survives_whatever_happens_and_has_an_allowed_size(seed: int, lively: bool) -> None:
    chance = Chance(seed, lively)
    machine = chance.machine
    while chance.now < HURT_S:
        chance.trouble()
        chance.pass_time()
    assert machine.generation > 3 and machine.verdict is None, machine.verdict
    assert bool(chance.seen["lived on"]) is lively
    while machine.state is not JobState.RUNNING or machine.incident is not None:
        chance.pass_time()
        assert chance.now < END_S, machine.waiting_for
    while machine.verdict is None:
        for record in machine.tasks.values():
            if record.wanted and record.state is TaskState.RUNNING and record.identity in chance.running:
                generation = chance.running.pop(record.identity)
                chance.feed(on.UserEnded(record.identity, on.ExitReport(generation)))
        chance.pass_time()
        assert chance.now < END_S, machine.waiting_for
    assert machine.verdict.state is JobState.SUCCEEDED
    while not machine.finished:
        chance.pass_time()
        assert chance.now < END_S
