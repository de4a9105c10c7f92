"""Two jobs that each hold half of what both need: simulated with real machines and a small cluster."""

from __future__ import annotations

import random
from collections import deque

import pytest
from machine_driver import job

from appmaster import commands as do
from appmaster import stimuli as on
from appmaster.machine import JobMachine
from tony.containers import HandleState, Identity, Phase
from tony.spec import Times
from tony.state import JobState

SLOTS = 4
TRAINS_S = 120.0
TICK_S = 2.5


class Cluster:
    """So many equal slots; the job that holds least is served first, as with two queues."""

    def __init__(self, seed: int, jobs: int = 2, workers: int = SLOTS) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.machines = [
            JobMachine(job(workers, times=Times()), f"application_1_{n}", "a", now=0.0, wall=0.0, seed=seed * 7 + n)
            for n in range(jobs)
        ]
        self.waiting: list[deque[Identity]] = [deque() for _ in self.machines]
        self.held: list[dict[Identity, float | None]] = [{} for _ in self.machines]
        self.halves = False
        for number in range(jobs):
            self.feed(number, on.Begin())

    def feed(self, number: int, fact: on.Stimulus) -> None:
        for command in self.machines[number].handle(fact, self.now):
            if isinstance(command, do.RequestContainer):
                self.waiting[number].append(command.identity)
                self.feed(number, on.ContainerAsked(command.identity, str(command.identity)))
            elif isinstance(command, do.StopContainer):
                self.free(number, command.identity)
            elif isinstance(command, do.SayLeave):
                self.free(number, command.identity)
                self.feed(number, on.Departed(command.identity))
            elif isinstance(command, do.SayRelease):
                self.held[number][command.identity] = self.now

    def free(self, number: int, identity: Identity) -> None:
        self.held[number].pop(identity, None)
        if identity in self.waiting[number]:
            self.waiting[number].remove(identity)

    def allocate(self) -> None:
        while sum(map(len, self.held)) < SLOTS:
            asking = [number for number in range(len(self.machines)) if self.waiting[number]]
            if not asking:
                break
            least = min(len(self.held[number]) for number in asking)
            number = self.random.choice([number for number in asking if len(self.held[number]) == least])
            who = self.waiting[number].popleft()
            self.held[number][who] = None
            self.feed(number, on.ContainerSeen(who, HandleState(str(who), Phase.HELD, str(who), "n1")))
            self.feed(number, on.Greeted(who, "n1"))
            self.feed(number, on.Prepared(who, on.Ports(self.machines[number].generation, 7000)))
        states = [machine.state for machine in self.machines]
        self.halves = self.halves or (
            states == [JobState.ALLOCATING] * len(states) and all(0 < len(held) < SLOTS for held in self.held)
        )

    def pass_time(self) -> None:
        self.now += TICK_S
        self.allocate()
        for number, machine in enumerate(self.machines):
            for who, released_at in list(self.held[number].items()):
                self.feed(number, on.Beaten(who))
                if released_at is not None and self.now >= released_at + TRAINS_S:
                    self.held[number][who] = None
                    self.feed(number, on.UserEnded(who, on.ExitReport(machine.generation)))
            if not machine.finished:
                self.feed(number, on.Tick())


@pytest.mark.parametrize("seed", range(100))
def test_both_jobs_finish_although_each_holds_half(seed: int) -> None:
    cluster = Cluster(seed)
    while not all(machine.finished for machine in cluster.machines):
        cluster.pass_time()
        assert cluster.now < 3 * 3600.0, [machine.waiting_for for machine in cluster.machines]
    assert cluster.halves, "the deadlock was there"
    assert [machine.state for machine in cluster.machines] == [JobState.SUCCEEDED] * 2
    assert max(machine.rounds for machine in cluster.machines) <= 3
