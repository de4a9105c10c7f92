"""Kill Airflow's workers and cancel its tasks: ``build/airflow/bin/python -m tests.airflow.kills --runs 20``.

Starts a YARN, an HDFS and an Airflow of its own. Each run is a job of one task
that sleeps for some seconds. A run draws its instant from a seed that is printed; at that instant SIGKILL goes to the
task's process, or to its worker and the process, or Airflow is told to end the task. What came of it is read from the
resource manager. Nothing in the product helps: the instants are found by watching the storage and the resource
manager. A run that came too early or too late for its step says so and is drawn again with the next seed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.airflow.standing import Airflow, Task, airflow, settings
from tests.airflow.world import Application, World, identity, wait_for
from tony.localcluster.cluster import LocalCluster

RETRIES = 3
SECONDS = 5
CANCELLED_SECONDS = 60
"""A job that is not ended by its cancel must not end by itself meanwhile."""
END_S = 400.0
AFTERWARDS_S = 20.0
"""A submit that was interrupted has brought about by then what it ever will."""
_LOOKED_AT = re.compile(r"application_\w+ is [A-Z]+")
MOST_DRAWS = 4
"""How many seeds a run may take to come at its step."""


@dataclass(frozen=True)
class Result:
    """One run: what was hurt and when, and what is wrong with what came of it (empty: nothing)."""

    step: str
    seed: int
    victim: str
    reached: bool
    seconds: float
    applications: tuple[str, ...] = ()
    wrong: str = ""

    def __str__(self) -> str:
        end = self.wrong or ("ok" if self.reached else "not at this step")
        apps = " ".join(self.applications) or "no application"
        return f"{self.step:<22} seed {self.seed:<4} {self.victim:<14} {self.seconds:5.1f} s  {apps}  {end}"


class Scene:
    """One run that is about to be hurt."""

    def __init__(
        self, airflow: Airflow, world: World, dag: str, name: str, seed: int, retries: int, seconds: int = SECONDS
    ) -> None:
        self.rng = random.Random(f"{name} {seed}")
        self.airflow, self.world, self.dag, self.seed = airflow, world, dag, seed
        self.run = f"{name}-{seed}-{time.time_ns():x}"
        self.identity = identity(dag, self.run, retries)
        self.task: Task = airflow.trigger(dag, self.run, seconds=seconds)
        self._processes: tuple[psutil.Process, psutil.Process] | None = None

    def applications(self) -> list[Application]:
        """All of the task's applications."""
        return self.world.applications(self.identity.tag)

    # Instants -------------------------------------------------------------------------------------------------

    def started(self) -> bool:
        """The task's process is there. It is remembered: at the instant itself there is no time to ask for it."""
        self._processes = self.task.processes() if self.task.state == "running" else None
        return self._processes is not None

    def claimed(self) -> bool:
        """The submit has begun."""
        return self.world.claimed(self.identity.key_tag)

    def accepted(self) -> bool:
        """The resource manager has the application."""
        return bool(self.applications())

    def running(self) -> bool:
        """It has its containers, and Airflow knows its id."""
        return any(app.state == "RUNNING" for app in self.applications()) and self.noted()

    def ended(self) -> bool:
        """The job has its verdict, or the resource manager calls it finished."""
        return any(app.ended or self.world.verdict(app.id) for app in self.applications())

    def noted(self) -> bool:
        """Airflow has the application's id."""
        return self.task.xcom("application_id") is not None

    def returned(self) -> bool:
        """Airflow has the result."""
        return self.task.xcom() is not None

    # Hurting --------------------------------------------------------------------------------------------------

    def kill(self) -> str:
        """SIGKILL to the task's process, to its worker, or to both; an orphaned task goes on meanwhile."""
        assert self._processes is not None
        worker, own = self._processes
        name, victims = self.rng.choice((("task", [own]), ("worker", [worker]), ("both", [worker, own])))
        gone = 0
        for victim in victims:
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                gone += 1
        return name if gone < len(victims) else "nobody"


@dataclass(frozen=True)
class Step:
    """When to kill: `within_s` at most after `instant`; afterwards `still` must hold, or the run came too late."""

    name: str
    instant: Callable[[Scene], bool]
    within_s: float
    still: Callable[[Scene], bool]


STEPS = (
    Step("before the submit", lambda _: True, 0.5, lambda scene: not scene.claimed() and not scene.accepted()),
    Step("while claiming", Scene.claimed, 0.3, lambda scene: not scene.noted()),
    Step("before it is noted", Scene.accepted, 0.02, lambda scene: not scene.noted()),
    Step("in mid-poll", Scene.running, SECONDS / 2, lambda scene: scene.noted() and not scene.ended()),
    Step("before the result", Scene.ended, 0.1, lambda scene: not scene.returned()),
)


def kill_at(step: Step, airflow: Airflow, world: World, seed: int) -> Result:
    """Kill at that step; then the scheduler tries again, and there must be one application, which succeeded."""
    began = time.monotonic()
    scene = Scene(airflow, world, "waits", step.name.replace(" ", "-"), seed, RETRIES)
    wait_for(scene.started, "the task's process", END_S, 0.1)
    wait_for(lambda: step.instant(scene), step.name, END_S, 0.03)
    time.sleep(scene.rng.uniform(0, step.within_s))
    victim = scene.kill()
    before = {app.id for app in scene.applications()}
    reached = victim != "nobody" and step.still(scene)
    wait_for(lambda: scene.task.state in ("success", "failed"), "the end of the run", END_S, 0.5)
    task, apps = scene.task.now(), scene.applications()
    wrong = []
    if task["state"] != "success":
        wrong.append(f"the task is {task['state']}")
    if len(apps) != 1:
        wrong.append(f"{len(apps)} applications")
    if not before <= {app.id for app in apps}:
        wrong.append(f"{before} is gone")
    told = (scene.task.xcom() or {}).get("application_id")
    if [told] != [app.id for app in apps]:
        wrong.append(f"the result names {told}")
    if reached and task["try_number"] < 2:
        wrong.append("there was no second try")
    return Result(
        step.name,
        seed,
        victim,
        reached,
        time.monotonic() - began,
        tuple(app.id for app in apps),
        "; ".join(wrong),
    )


@dataclass(frozen=True)
class Cancel:
    """How a task is ended by somebody, in a DAG whose task has no second try."""

    name: str
    dag: str
    instant: Callable[[Scene], bool]
    within_s: float
    act: Callable[[Scene], None]


def terminate(scene: Scene) -> None:
    """SIGTERM to the task's process, as when its worker shuts down."""
    found = scene.task.processes()
    if found is not None:
        found[1].send_signal(signal.SIGTERM)


def mark_failed(scene: Scene) -> None:
    """The button; Airflow then signals the task's process group, and kills it 5 s later."""
    scene.task.mark("failed")


def deferred(scene: Scene) -> bool:
    """The triggerer waits for the job: the trigger has told of it. Before that Airflow has nobody to tell."""
    return scene.task.state == "deferred" and _LOOKED_AT.search(scene.task.log(1)) is not None


CANCELS = (
    Cancel("SIGTERM at any time", "waits_once", Scene.started, 9.0, terminate),
    Cancel("marked failed", "waits_once", Scene.started, 9.0, mark_failed),
    Cancel("marked, deferred", "defers_once", deferred, 4.0, mark_failed),
)


def cancel(how: Cancel, airflow: Airflow, world: World, seed: int) -> Result:
    """End the task; afterwards no application of it lives, and none comes up later."""
    began = time.monotonic()
    scene = Scene(airflow, world, how.dag, how.name.replace(" ", "-").replace(",", ""), seed, 0, CANCELLED_SECONDS)
    wait_for(lambda: how.instant(scene), how.name, END_S, 0.2)
    time.sleep(scene.rng.uniform(0, how.within_s))
    before = scene.applications()
    at = ",".join(app.state.lower() for app in before) or "no application"
    too_late = any(app.ended for app in before)
    how.act(scene)
    acted = time.monotonic()
    wait_for(lambda: scene.task.state in ("success", "failed"), "the end of the task", END_S, 0.5)
    wait_for(lambda: all(app.ended for app in scene.applications()), "the end of its applications", END_S, 0.1)
    took = time.monotonic() - acted
    late = []
    while time.monotonic() < acted + AFTERWARDS_S:
        late = [app.id for app in scene.applications() if not app.ended]
        if late:
            break
        time.sleep(0.5)
    apps, wrong = scene.applications(), []
    if late:
        wrong.append(f"{late} came up afterwards")
    if len(apps) > 1:
        wrong.append(f"{len(apps)} applications")
    if not too_late and any(app.final == "SUCCEEDED" for app in apps):
        wrong.append("the job went on and succeeded")
    return Result(
        how.name,
        seed,
        f"at {at}, {took:.1f} s",
        not too_late,
        time.monotonic() - began,
        tuple(app.id for app in apps),
        "; ".join(wrong),
    )


def until_reached(one: Callable[[int], Result], seeds: Iterator[int], say: Callable[[str], None]) -> list[Result]:
    """A run that came at its step, after those that did not; at most `MOST_DRAWS` in all."""
    drawn: list[Result] = []
    for seed in itertools.islice(seeds, MOST_DRAWS):
        try:
            drawn.append(one(seed))
        except Exception as error:  # noqa: BLE001 - one run that could not be made does not end the walk
            drawn.append(Result("", seed, "", False, 0.0, (), f"{type(error).__name__}: {error}"))
        say(str(drawn[-1]))
        if drawn[-1].reached or drawn[-1].wrong:
            break
    return drawn


def summary(name: str, results: list[Result]) -> str:
    """One row of the table."""
    reached = [one for one in results if one.reached]
    right = [one for one in reached if not one.wrong]
    wrong = [one for one in results if one.wrong]
    return f"| {name} | {len(right)} of {len(reached)} | {len(results) - len(reached)} | {len(wrong)} |"


def acts(standing: Airflow, world: World) -> dict[str, Callable[[int], Result]]:
    """Every step and every way to cancel, by name; each takes a seed."""
    kills = {step.name: partial(kill_at, step, standing, world) for step in STEPS}
    return {**kills, **{how.name: partial(cancel, how, standing, world) for how in CANCELS}}


def main() -> int:
    """Walk the steps in turns; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="of each step")
    parser.add_argument("--seed", type=int, default=1, help="the first one of each step")
    parser.add_argument("--only", default="", help="steps, by a part of their name")
    parser.add_argument("--wide", type=int, default=3, help="runs at a time")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no run after that")
    given = parser.parse_args()
    results: dict[str, list[Result]] = {}
    lock = threading.Lock()
    with ExitStack() as stack:
        standing, world = stand(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tony-airflow-"))))
        chosen = {name: act for name, act in acts(standing, world).items() if given.only in name}
        seeds = {name: itertools.count(given.seed) for name in chosen}
        until = time.monotonic() + 60 * given.minutes

        def one(name: str) -> None:
            if time.monotonic() < until:
                drawn = until_reached(chosen[name], seeds[name], lambda line: print(line, flush=True))
                with lock:
                    results.setdefault(name, []).extend(drawn)

        with ThreadPoolExecutor(given.wide) as pool:
            list(pool.map(one, [*chosen] * given.runs))
    print("\n| step | right | not at the step | wrong |\n| --- | --- | --- | --- |")
    print("\n".join(summary(name, done) for name, done in results.items()))
    return 1 if any(one.wrong for done in results.values() for one in done) else 0


def stand(stack: ExitStack, folder: Path) -> tuple[Airflow, World]:
    """A YARN, an HDFS and an Airflow below `folder`, ended with the stack."""
    from tests.conftest import YARN_SETTINGS
    from tony.yarn import start_driver, stop_driver

    cluster = LocalCluster(folder / "yarn")
    stack.callback(cluster.stop)
    cluster.start(YARN_SETTINGS)
    os.environ["TONY_STATE_DIR"] = str(folder / "state")
    start_driver(cluster.conf_dir, cluster.bin_dir, folder / "state" / "driver")
    stack.callback(stop_driver)
    (folder / "airflow").mkdir()
    environment = {**os.environ, **user_of(cluster), **settings(folder / "airflow")}
    assert airflow("db", "migrate", environment=environment).returncode == 0
    standing = Airflow(folder / "airflow", environment)
    stack.callback(standing.stop)
    standing.start()
    world = World(cluster.conf_dir)
    stack.callback(world.close)
    wait_for(lambda: standing.knows("waits_once"), "the DAGs", 60.0, 0.2)
    return standing, world


def user_of(cluster: LocalCluster) -> dict[str, str]:
    """Variables of a user of the cluster, and of the test DAGs."""
    return {
        "HADOOP_CONF_DIR": str(cluster.conf_dir),
        "PATH": f"{cluster.bin_dir}:{os.environ['PATH']}",
        "TONY_TEST_JOBS": str(Path(__file__).parents[1] / "jobs"),
    }


if __name__ == "__main__":
    sys.exit(main())
