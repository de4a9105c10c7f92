"""What a job is: frozen values that every part of the program shares. No I/O.

A `JobSpec` is the whole request after flags, job file, site and defaults are merged; it says nothing about
how archives are built or where they lie. A `JobRecord` is what the application master gets: the specification
and the names of the files that were uploaded for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class RestartPolicy(str, Enum):
    """What is started again when a tracked task fails for a reason that allows it."""

    GANG = "gang"
    """Every user process of the stage is stopped and released again with a new cluster spec."""
    TASK = "task"
    """Only the failed task; for strategies that tolerate it."""
    NEVER = "never"
    """Nothing: the first failure decides."""


class SuccessPolicy(str, Enum):
    """Whose exit 0 makes the job a success."""

    ALL = "all"
    CHIEF = "chief"
    ANY = "any"


class OnInterrupt(str, Enum):
    """What Ctrl-C in a following client does to the job."""

    KILL = "kill"
    DETACH = "detach"
    ASK = "ask"


class OnHang(str, Enum):
    """What follows when the tasks make no progress any more. Their stacks are kept in any case."""

    WARN = "warn"
    RESTART = "restart"
    KILL = "kill"


class OnStraggler(str, Enum):
    """What follows when a task is much slower than its peers. It is named in any case."""

    WARN = "warn"
    REPLACE = "replace"


@dataclass(frozen=True, order=True)
class TaskId:
    """A task's name, written ``worker:0``."""

    role: str
    index: int

    def __str__(self) -> str:
        return f"{self.role}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """The inverse of `str`. Raises ValueError."""
        role, separator, index = text.rpartition(":")
        if not separator or not role or not index.isascii() or not index.isdigit():
            raise ValueError(f"not a task: {text!r}. Tasks are written role:index, like worker:0.")
        return cls(role, int(index))


@dataclass(frozen=True)
class Endpoint:
    """Where a task's framework listens: a host as its peers must name it, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Resources:
    """The size of one container, as YARN counts: MiB, virtual cores, GPUs, other named resource types."""

    memory_mb: int = 2048
    vcores: int = 1
    gpus: int = 0
    other: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        from tony.units import format_memory

        parts = [format_memory(self.memory_mb), f"{self.vcores} vcore" + ("s" if self.vcores != 1 else "")]
        if self.gpus:
            parts.append(f"{self.gpus} GPU" + ("s" if self.gpus != 1 else ""))
        parts += [f"{count} {name}" for name, count in sorted(self.other.items())]
        return ", ".join(parts)


@dataclass(frozen=True)
class RoleSpec:
    """A kind of task. A role is *tracked* (its tasks count towards the result) unless `untracked` or `sidecar`.

    `command` is an argv list; a first word that ends in ``.py`` runs with the job's Python.
    `untracked` tasks (a parameter server) are not waited for, but their failure fails the job;
    `sidecar` tasks are neither waited for nor able to fail it.
    `procs_per_task` user processes run in each task, each with a rank of its own.
    `stop_on_failure`: the job fails at once, without restart, when a task of this role fails.
    `image`: the Docker image that its tasks run in; None: on the nodes as they are.
    An elastic role may have from `min_instances` to `max_instances` tasks (None: as many as `instances`).
    """

    name: str
    command: tuple[str, ...]
    instances: int = 1
    resources: Resources = Resources()
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileSpec, ...] = ()
    node_label: str | None = None
    nodes: tuple[str, ...] = ()
    untracked: bool = False
    sidecar: bool = False
    stop_on_failure: bool = False
    depends_on: tuple[str, ...] = ()
    image: str | None = None
    min_instances: int | None = None
    max_instances: int | None = None

    @property
    def least(self) -> int:
        """How many tasks are enough."""
        return self.instances if self.min_instances is None else self.min_instances

    @property
    def most(self) -> int:
        """How many tasks there may be."""
        return self.instances if self.max_instances is None else self.max_instances

    @property
    def elastic(self) -> bool:
        """Whether the number of tasks may change."""
        return self.least < self.most

    procs_per_task: int = 1

    @property
    def tracked(self) -> bool:
        """Whether the tasks of this role count towards the job's result."""
        return not (self.untracked or self.sidecar)


@dataclass(frozen=True)
class FileSpec:
    """A file for the working directory of the user process: ``SRC[::NAME][#archive]``.

    `source` is a local path or a URL on shared storage; `name` a relative path below the working directory;
    an `archive` is unpacked into a folder of that name.
    """

    source: str
    name: str
    archive: bool = False


@dataclass(frozen=True)
class PythonSpec:
    """Which Python runs the user's code: exactly one of a packed environment or an interpreter of the nodes.

    `environment`: ``auto`` (the active virtual environment), a directory, a ``.zip`` or ``.tar.gz`` archive, a
    URL on shared storage, or ``none``. `interpreter`: an absolute path that exists on every node.
    """

    environment: str = "auto"
    interpreter: str | None = None


@dataclass(frozen=True)
class Mount:
    """A file or folder of the nodes at a place in Docker containers; both paths are absolute."""

    source: str
    target: str
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{'rw' if self.writable else 'ro'}"


DOCKER_SHM_MB = 64
"""Shared memory that Docker gives by itself, MiB."""


@dataclass(frozen=True)
class DockerSpec:
    """What all Docker containers of a job have in common; the image is a matter of each role.

    `python` is the images' interpreter: an absolute path, a minor version like ``3.11``, or None: to be found out.
    `shm_mb` is the least shared memory, MiB. `user_names`: the nodes' list of users is visible inside.
    `client_config` is the URL of a Docker client's configuration with the credentials of a registry.
    """

    mounts: tuple[Mount, ...] = ()
    network: str = "host"
    shm_mb: int = DOCKER_SHM_MB
    user_names: bool = False
    client_config: str | None = None
    python: str | None = None


@dataclass(frozen=True)
class RestartSpec:
    """How often what is started again, and for whose fault."""

    policy: RestartPolicy = RestartPolicy.GANG
    max_infrastructure: int = 3
    max_user: int = 0
    same_failure: int = 3


@dataclass(frozen=True)
class ExclusionSpec:
    """When a node is kept away from: after so many failures of the platform's making within a window (0: never).

    At most `share_percent` of the cluster's nodes are excluded at once.
    """

    failures: int = 2
    window_s: float = 3600.0
    expiry_s: float = 3600.0
    share_percent: int = 30


@dataclass(frozen=True)
class HangSpec:
    """How long no task may make progress: `limit_s`, or if `learned` a multiple of the slowest step. 0 is off."""

    limit_s: float = 0.0
    learned: bool = False
    action: OnHang = OnHang.WARN


@dataclass(frozen=True)
class Times:
    """Every time of a job's life, in seconds; the reasons are in docs/architecture.md."""

    queue_s: float = 24 * 3600.0
    gang_s: float = 15 * 60.0
    gang_rounds: int = 3
    backoff_min_s: float = 30.0
    backoff_max_s: float = 120.0
    registration_s: float = 15 * 60.0
    duration_s: float = 0.0
    beat_s: float = 1.0
    suspect_beats: int = 3
    lost_s: float = 10.0
    lease_s: float = 60.0
    report_grace_s: float = 3.0
    root_cause_s: float = 3.0
    stop_grace_s: float = 30.0
    early_exit_s: float = 5 * 60.0
    replacement_s: float = 60.0
    growth_s: float = 600.0


@dataclass(frozen=True)
class JobSpec:
    """One submission, complete. `roles` keep the order in which they were written; names are unique."""

    name: str
    roles: tuple[RoleSpec, ...]
    framework: str = "auto"
    queue: str = "default"
    tags: tuple[str, ...] = ()
    source: str | None = None
    exclude: tuple[str, ...] = ()
    python: PythonSpec = PythonSpec()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    files: tuple[FileSpec, ...] = ()
    node_label: str | None = None
    nodes: tuple[str, ...] = ()
    exclude_nodes: tuple[str, ...] = ()
    restart: RestartSpec = RestartSpec()
    exclusion: ExclusionSpec = ExclusionSpec()
    success: SuccessPolicy = SuccessPolicy.ALL
    times: Times = Times()
    hang: HangSpec = HangSpec()
    on_straggler: OnStraggler = OnStraggler.WARN
    am_attempts: int = 1
    am_resources: Resources = Resources()
    checkpoint_dir: str | None = None
    check_peers: bool = True
    quantize: str | None = None
    view_users: tuple[str, ...] = ()
    modify_users: tuple[str, ...] = ()
    docker: DockerSpec = DockerSpec()

    @property
    def images(self) -> tuple[str, ...]:
        """The Docker images of its roles, each once."""
        return tuple(dict.fromkeys(role.image for role in self.roles if role.image is not None))

    def role(self, name: str) -> RoleSpec:
        """The role of that name. Raises KeyError."""
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(name)

    def tasks(self) -> tuple[TaskId, ...]:
        """Every task, in rank order: roles as written, indexes ascending."""
        return tuple(TaskId(role.name, index) for role in self.roles for index in range(role.instances))

    def possible_tasks(self) -> tuple[TaskId, ...]:
        """Every task that there may ever be: of elastic roles the largest number."""
        return tuple(TaskId(role.name, index) for role in self.roles for index in range(role.most))


@dataclass(frozen=True)
class Upload:
    """A file on shared storage that containers get: the name in the container, its URL, and what to do with it.

    `name` holds only letters, digits, ``.``, ``_`` and ``-``. `target` is the path below the user's working
    directory (empty for files that are not the user's); `unpack` says that it is an archive.
    """

    name: str
    url: str
    sha256: str
    size: int
    target: str = ""
    unpack: bool = False


@dataclass(frozen=True)
class ImagePython:
    """What runs the tasks of a role in Docker: `python` of the image starts the executor, from the bundle `runtime`.

    `user_python` is as in `JobRecord`; a name without a path is looked up in the image's PATH.
    """

    python: str
    user_python: str
    runtime: Upload


@dataclass(frozen=True)
class JobRecord:
    """What the application master is given, and what stays in the job folder as ``spec.json``. Holds no secret.

    `storage` is the base URL of the cluster's storage for this user; `python` the interpreter for AM and executor;
    `user_python` the argv prefix of the user's interpreter: absolute, or ``{environment}/bin/python``, where
    ``{environment}`` is the folder into which a node unpacks the environment archive. `jar` is the Java part of the
    application master, where it has one. `images` says for each role in Docker what differs there.
    """

    spec: JobSpec
    user: str
    storage: str
    python: str
    user_python: str
    runtime: Upload | None = None
    environment: Upload | None = None
    source: Upload | None = None
    files: tuple[Upload, ...] = ()
    role_files: Mapping[str, tuple[Upload, ...]] = field(default_factory=dict)
    node_count: int = 1
    jar: Upload | None = None
    images: Mapping[str, ImagePython] = field(default_factory=dict)
    version: str = ""
    submitted_at: float = 0.0

    def environment_of(self, role: str) -> Upload | None:
        """The environment archive that tasks of the role need: none where an image brings its own Python."""
        inside = self.images.get(role)
        return None if inside is not None and "{environment}" not in inside.user_python else self.environment

    def runtime_of(self, role: str) -> Upload | None:
        """The runtime bundle for the Python that starts the role's executors."""
        inside = self.images.get(role)
        return inside.runtime if inside is not None else self.runtime


@dataclass(frozen=True)
class ClusterSpec:
    """What the tasks of one stage are told of each other: who is where, in rank order.

    `started` names the generation in which the user process of a task was started, for those whose process lives on
    from an earlier one.
    """

    generation: int
    endpoints: Mapping[TaskId, Endpoint]
    started: Mapping[TaskId, int] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """The tasks in rank order."""
        return tuple(self.endpoints)

    def since(self, task: TaskId) -> int:
        """The generation in which the user process of that task was, or is, started."""
        return self.started.get(task, self.generation)

    def rank(self, task: TaskId) -> int:
        """The place of the task among all tasks of its stage. Raises ValueError."""
        return self.tasks.index(task)

    def addresses(self, role: str) -> list[str]:
        """``host:port`` of each task of the role, by index."""
        return [str(endpoint) for task, endpoint in self.endpoints.items() if task.role == role]
