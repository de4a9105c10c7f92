"""Every setting, once: its name in files, its type, default and meaning, its flag and its variable.

Flags, job files, ``TONY_*`` variables, ``conf/tony-default.yaml`` and the documentation are made from this table.
``python -m tony.config.document`` prints ``conf/tony-default.yaml``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace

from tony.config.dockerkeys import DOCKER_KEYS
from tony.config.key import Key, Kind
from tony.config.rolekeys import MAX_TASKS, MAX_VCORES, ROLE_FLAGS, ROLE_KEYS
from tony.spec import (
    ExclusionSpec,
    JobSpec,
    OnHang,
    OnInterrupt,
    OnStraggler,
    PythonSpec,
    RestartPolicy,
    RestartSpec,
    SuccessPolicy,
    Times,
)
from tony.units import format_duration, format_memory

QUANTIZE = ("2", "4", "8", "auto", "none")

_TIMES = Times()
_RESTART = RestartSpec()
_EXCLUSION = ExclusionSpec()
_JOB = JobSpec("", ())


GROUPS = {
    "shape": "Shape of the job",
    "size": "Size of each task",
    "code": "Code and Python",
    "environment": "Environment of the user process",
    "docker": "Docker",
    "placement": "Placement and names",
    "life": "Life of the job",
    "extras": "Extras",
    "site": "The cluster",
    "times": "Times of the protocol",
}

KEYS: tuple[Key, ...] = (
    # shape
    Key(
        "framework",
        Kind.CHOICE,
        "whose environment the tasks get; auto: TensorFlow's, PyTorch's and Horovod's at once",
        _JOB.framework,
        "--framework",
        "shape",
        choices=("auto", "tensorflow", "pytorch", "horovod", "mxnet", "standalone"),
    ),
    Key("command", Kind.WORDS, "argv of the roles that have none of their own", group="shape", literal=True),
    Key("role", Kind.WORDS, "a role: NAME:N[:memory[:gpus]]", (), "--role", "shape", "SPEC"),
    # code
    Key("src", Kind.TEXT, "folder with the code, or none; auto: the script's folder", "auto", "--src", "code", "DIR"),
    Key("exclude", Kind.WORDS, "left out of the source archive", (), "--exclude", "code", "PATTERN"),
    Key(
        "venv",
        Kind.TEXT,
        "Python environment: auto (the active one), none, a folder, .zip, .tar.gz or hdfs:// URL",
        PythonSpec().environment,
        "--venv",
        "code",
        "ENV",
    ),
    Key(
        "python", Kind.TEXT, "an interpreter that every node has, instead of --venv", None, "--python", "code", "PATH"
    ),
    Key("files", Kind.WORDS, "file for the working directory: SRC[::NAME][#archive]", (), "--files", "code", "SRC"),
    # environment
    Key(
        "env",
        Kind.PAIRS,
        "variable of the user process",
        {},
        "--env",
        "environment",
        "K=V",
        literal=True,
    ),
    Key(
        "secrets",
        Kind.WORDS,
        "variable that is never shown; from this environment, or from a file",
        (),
        "--secret",
        "environment",
        "NAME[=FILE]",
    ),
    *DOCKER_KEYS,
    # placement
    Key("name", Kind.TEXT, "name of the job; default: the script's or the folder's", None, "--name", "placement"),
    Key("queue", Kind.TEXT, "queue to submit to", _JOB.queue, "--queue", "placement"),
    Key("node_label", Kind.TEXT, "node label to run on", None, "--node-label", "placement", "LABEL"),
    Key("nodes", Kind.WORDS, "host to run on", (), "--nodes", "placement", "HOST"),
    Key("exclude_nodes", Kind.WORDS, "host to keep away from", (), "--exclude-node", "placement", "HOST"),
    Key(
        "exclusion.failures",
        Kind.INTEGER,
        "failures of the platform's making after which a node is kept away from; 0: never",
        _EXCLUSION.failures,
        group="placement",
        high=1000,
    ),
    Key(
        "exclusion.window",
        Kind.DURATION,
        "within which they are counted",
        format_duration(_EXCLUSION.window_s),
        group="placement",
    ),
    Key(
        "exclusion.expiry",
        Kind.DURATION,
        "after which the node is let in again",
        format_duration(_EXCLUSION.expiry_s),
        group="placement",
    ),
    Key(
        "exclusion.share",
        Kind.INTEGER,
        "percent of the cluster's nodes that may be excluded at once",
        _EXCLUSION.share_percent,
        group="placement",
        high=100,
    ),
    Key("tags", Kind.WORDS, "tag that tony ls can look for", (), "--tag", "placement", "TAG"),
    Key("view_users", Kind.WORDS, "users who may see the job, beside its owner", (), group="placement"),
    Key("modify_users", Kind.WORDS, "users who may end the job, beside its owner", (), group="placement"),
    # life
    Key(
        "restart.policy",
        Kind.CHOICE,
        "what is started again after a failure that allows it",
        _RESTART.policy.value,
        "--restart",
        choices=tuple(policy.value for policy in RestartPolicy),
    ),
    Key(
        "restart.max",
        Kind.INTEGER,
        "restarts for infrastructure reasons; preemption is not counted",
        _RESTART.max_infrastructure,
        "--max-restarts",
        high=1000,
    ),
    Key("restart.max_user", Kind.INTEGER, "restarts for failures of the user's code", _RESTART.max_user, high=1000),
    Key(
        "restart.same_failure",
        Kind.INTEGER,
        "give up after the same failure so many times without progress",
        _RESTART.same_failure,
        low=1,
        high=1000,
    ),
    Key(
        "am.memory",
        Kind.SIZE,
        "memory of the application master's container",
        format_memory(_JOB.am_resources.memory_mb),
        "--am-memory",
    ),
    Key(
        "am.vcores",
        Kind.INTEGER,
        "virtual cores of the application master's container",
        _JOB.am_resources.vcores,
        low=1,
        high=MAX_VCORES,
    ),
    Key(
        "am.attempts",
        Kind.INTEGER,
        "attempts of the application master's container",
        _JOB.am_attempts,
        "--am-attempts",
        low=1,
        high=2,
    ),
    Key("max_duration", Kind.DURATION, "end the job after this long; 0s: never", "0s", "--max-duration"),
    Key(
        "queue_timeout",
        Kind.DURATION,
        "how long to wait for the first container",
        format_duration(_TIMES.queue_s),
        "--queue-timeout",
    ),
    Key(
        "gang_timeout",
        Kind.DURATION,
        "how long to hold an incomplete gang before giving it back",
        format_duration(_TIMES.gang_s),
        "--gang-timeout",
    ),
    Key(
        "success",
        Kind.CHOICE,
        "whose exit 0 makes the job a success",
        _JOB.success.value,
        "--success",
        choices=tuple(policy.value for policy in SuccessPolicy),
    ),
    Key(
        "hang_timeout",
        Kind.TEXT,
        "no progress for this long is a hang: a duration, off, or auto (5 × the slowest step, at least 10m)",
        "off",
        "--hang-timeout",
    ),
    Key(
        "on_hang",
        Kind.CHOICE,
        "what follows a hang, after the stacks of all tasks are in their logs",
        OnHang.WARN.value,
        "--on-hang",
        choices=tuple(choice.value for choice in OnHang),
    ),
    Key(
        "on_straggler",
        Kind.CHOICE,
        "what follows when a task is much slower than its peers, beside the warning",
        OnStraggler.WARN.value,
        "--on-straggler",
        choices=tuple(choice.value for choice in OnStraggler),
    ),
    Key(
        "early_exit",
        Kind.DURATION,
        "fail when ranks stand still for this long after one of them has ended with 0; 0s: never",
        format_duration(_TIMES.early_exit_s),
    ),
    Key(
        "stop_grace",
        Kind.DURATION,
        "time between asking a user process to end and ending it",
        format_duration(_TIMES.stop_grace_s),
    ),
    Key(
        "on_interrupt",
        Kind.CHOICE,
        "what Ctrl-C does to the job that is followed",
        OnInterrupt.KILL.value,
        "--on-interrupt",
        choices=tuple(choice.value for choice in OnInterrupt),
    ),
    Key(
        "idempotency_key",
        Kind.TEXT,
        "attach to the job with this key if it lives or has succeeded, instead of submitting another",
        None,
        "--idempotency-key",
        metavar="KEY",
    ),
    Key(
        "check_peers",
        Kind.SWITCH,
        "fail with UNREACHABLE_PEER when a task cannot reach the first or the next rank at its start",
        _JOB.check_peers,
    ),
    Key("detach", Kind.SWITCH, "return when the job is accepted", False, "--detach"),
    # extras
    Key(
        "checkpoint_dir",
        Kind.TEXT,
        "folder or URL for checkpoints; default: in the job's folder on the cluster's storage",
        None,
        "--checkpoint-dir",
        "extras",
        "DIR",
    ),
    Key(
        "tensorboard",
        Kind.TEXT,
        "show this folder of event files in a TensorBoard beside the job",
        None,
        "--tensorboard",
        "extras",
        "DIR",
    ),
    Key(
        "quantize",
        Kind.CHOICE,
        "bits for each element of a gradient on the wire, in scripts that use tony.gradients",
        None,
        "--quantize",
        "extras",
        choices=QUANTIZE,
    ),
    # site
    Key(
        "cluster",
        Kind.TEXT,
        "where to run: a name of the site file, local or yarn",
        None,
        "--cluster",
        "site",
        "NAME",
    ),
    Key(
        "clusters",
        Kind.CLUSTERS,
        "clusters by name: conf_dir and bin_dir of Hadoop, storage, node_python",
        group="site",
    ),
    Key(
        "storage",
        Kind.TEXT,
        "base URL of the user's folder on shared storage; default: .tony in the home",
        group="site",
    ),
    Key("node_python", Kind.TEXT, "interpreter of the nodes for our own processes; default: as here", group="site"),
    Key("limits.tasks", Kind.INTEGER, "most tasks that a job may have", low=1, high=MAX_TASKS, group="site"),
    Key("limits.memory", Kind.SIZE, "most memory that the tasks of a job may have together", group="site"),
    Key("limits.vcores", Kind.INTEGER, "most virtual cores of a job's tasks", low=1, high=10**7, group="site"),
    Key("limits.gpus", Kind.INTEGER, "most GPUs of a job's tasks", low=0, high=10**7, group="site"),
    Key("fast_beat", Kind.SWITCH, "ask for containers twice a second instead of every 5 s", True, group="site"),
    # times
    Key(
        "times.gang_rounds",
        Kind.INTEGER,
        "tries to gather a gang",
        _TIMES.gang_rounds,
        group="times",
        low=1,
        high=100,
    ),
    Key(
        "times.backoff_min",
        Kind.DURATION,
        "least pause between two tries",
        format_duration(_TIMES.backoff_min_s),
        group="times",
    ),
    Key(
        "times.backoff_max",
        Kind.DURATION,
        "longest pause between two tries",
        format_duration(_TIMES.backoff_max_s),
        group="times",
    ),
    Key(
        "times.registration",
        Kind.DURATION,
        "from an allocated container to its executor's first word",
        format_duration(_TIMES.registration_s),
        group="times",
    ),
    Key(
        "times.beat", Kind.DURATION, "between two beats of an executor", format_duration(_TIMES.beat_s), group="times"
    ),
    Key(
        "times.lost",
        Kind.DURATION,
        "silence after which a task is lost",
        format_duration(_TIMES.lost_s),
        group="times",
    ),
    Key(
        "times.replacement",
        Kind.DURATION,
        "how long an elastic job waits for a lost task's successor before it goes on without",
        format_duration(_TIMES.replacement_s),
        group="times",
    ),
    Key(
        "times.growth",
        Kind.DURATION,
        "least time between a release and a restart that takes in further tasks",
        format_duration(_TIMES.growth_s),
        group="times",
    ),
    Key(
        "times.lease",
        Kind.DURATION,
        "an executor without contact stops its user process after this long",
        format_duration(_TIMES.lease_s),
        group="times",
    ),
)


_BY_NAME = {key.name: key for key in KEYS}
_ROLE_BY_NAME = {key.name: key for key in ROLE_KEYS}
_SECTIONS = frozenset(key.name.split(".")[0] for key in KEYS if "." in key.name) | {"roles"}


def flags() -> tuple[Key, ...]:
    """Every key that has a flag, in the order of `GROUPS`."""
    having = [key for key in (*KEYS, *ROLE_FLAGS) if key.flag]
    order = list(GROUPS)
    return tuple(sorted(having, key=lambda key: order.index(key.group)))


def find(name: str) -> Key | None:
    """The key of that dotted name; of any role for ``roles.<role>.<key>``. None when there is no such key."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    parts = name.split(".")
    if len(parts) == 3 and parts[0] == "roles" and parts[2] in _ROLE_BY_NAME:
        return replace(_ROLE_BY_NAME[parts[2]], name=name)
    return None


def is_section(name: str) -> bool:
    """Whether keys lie below this name: ``restart``, ``roles``, ``roles.worker``."""
    parts = name.split(".")
    return name in _SECTIONS or (len(parts) == 2 and parts[0] == "roles")


def nearest(name: str, within: Iterable[str] | None = None) -> str | None:
    """The known name that this one was probably meant to be."""
    parent, _, last = name.rpartition(".")
    if within is None and parent.startswith("roles."):
        within = _ROLE_BY_NAME
    elif within is None and parent:
        within = [key.name.rpartition(".")[2] for key in KEYS if key.name.startswith(parent + ".")]
    if within is not None:
        found = difflib.get_close_matches(last, list(within), 1)
        return found[0] if found else None
    asides = {
        "workers": "roles.worker.instances",
        "memory": "roles.worker.memory",
        "gpus": "roles.worker.gpus",
    }
    asides |= {"vcores": "roles.worker.vcores", "ps": "roles.ps.instances", "tag": "tags", "secret": "secrets"}
    if name in asides:
        return asides[name] or None
    found = difflib.get_close_matches(name, [*_BY_NAME, *_SECTIONS], 1)
    return found[0] if found else None
