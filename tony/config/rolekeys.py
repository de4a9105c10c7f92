"""The settings of a role, and the flags that speak of one role by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tony.config.key import Key, Kind
from tony.spec import Resources, RoleSpec
from tony.units import format_memory

MAX_TASKS = 10_000
MAX_GPUS = 1_024
MAX_VCORES = 1_024
MAX_PROCS = 256

_ROLE = RoleSpec("", ())

ROLE_KEYS: tuple[Key, ...] = (
    Key("instances", Kind.INTEGER, "how many tasks", _ROLE.instances, low=1, high=MAX_TASKS),
    Key(
        "min_instances",
        Kind.INTEGER,
        "how many tasks are enough to start or to go on; default: all",
        low=1,
        high=MAX_TASKS,
    ),
    Key(
        "max_instances",
        Kind.INTEGER,
        "to how many tasks the job may be resized; default: instances",
        low=1,
        high=MAX_TASKS,
    ),
    Key("memory", Kind.SIZE, "memory of each task", format_memory(Resources().memory_mb), group="size"),
    Key(
        "vcores", Kind.INTEGER, "virtual cores of each task", Resources().vcores, low=1, high=MAX_VCORES, group="size"
    ),
    Key("gpus", Kind.INTEGER, "GPUs of each task", Resources().gpus, low=0, high=MAX_GPUS, group="size"),
    Key("resources", Kind.COUNTS, "other resource types of each task", {}, low=0, high=2**31 - 1, group="size"),
    Key("command", Kind.WORDS, "argv; a first word ending in .py runs with the job's Python", literal=True),
    Key("env", Kind.PAIRS, "environment of the user process of this role", {}, literal=True),
    Key("files", Kind.WORDS, "files for the working directory: SRC[::NAME][#archive]", ()),
    Key("node_label", Kind.TEXT, "node label to run on"),
    Key("nodes", Kind.WORDS, "hosts to run on", ()),
    Key("untracked", Kind.SWITCH, "not waited for, but its failure fails the job", False),
    Key("sidecar", Kind.SWITCH, "neither waited for nor able to fail the job", False),
    Key("stop_on_failure", Kind.SWITCH, "the job fails at once when a task of this role fails", False),
    Key(
        "procs_per_task",
        Kind.TEXT,
        "user processes in each task, each with a rank of its own: a number, or auto: one for each of its GPUs",
        "1",
    ),
    Key("depends_on", Kind.WORDS, "roles that must have succeeded before this one starts", ()),
    Key("image", Kind.TEXT, "Docker image of this role; none: on the nodes as they are"),
)


def _role_flags() -> Iterable[Key]:
    """The flags that speak of a role: ``--workers`` is ``roles.worker.instances``."""
    role_keys = {key.name: key for key in ROLE_KEYS}
    instances = replace(role_keys["instances"], group="shape")
    yield replace(instances, name="roles.worker.instances", flag="--workers", help="number of workers", metavar="N")
    yield replace(instances, name="roles.ps.instances", flag="--ps", help="number of parameter servers", metavar="N")
    yield replace(
        instances, name="roles.chief.instances", flag="--chief", help="a chief beside the workers", constant="1"
    )
    yield replace(instances, name="roles.evaluator.instances", flag="--evaluator", help="an evaluator", constant="1")
    for bound, said in (("min", "how many workers are enough"), ("max", "to how many workers it may be resized")):
        key = replace(role_keys[f"{bound}_instances"], group="shape")
        yield replace(key, name=f"roles.worker.{bound}_instances", flag=f"--{bound}-workers", help=said, metavar="N")
    for size in ("memory", "vcores", "gpus"):
        key = role_keys[size]
        yield replace(key, name=f"roles.worker.{size}", flag=f"--{size}", help=key.help.replace("task", "worker"))
        for role in ("chief", "evaluator", "ps"):
            said = key.help.replace("each task", f"the {role}")
            yield replace(key, name=f"roles.{role}.{size}", flag=f"--{role}-{size}", help=said)
    yield replace(
        role_keys["procs_per_task"],
        name="roles.worker.procs_per_task",
        flag="--procs-per-task",
        help="processes in each worker; auto: one for each of its GPUs",
        metavar="N|auto",
        group="shape",
    )
    yield replace(
        role_keys["resources"],
        name="roles.worker.resources",
        flag="--resource",
        help="other resource type of each worker",
        metavar="NAME=N",
    )


ROLE_FLAGS: tuple[Key, ...] = tuple(_role_flags())
