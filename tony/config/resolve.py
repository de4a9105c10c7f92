"""From layers to a `JobSpec`, with every problem of the request found at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tony.config import names
from tony.config.docker import docker_of
from tony.config.files import ARCHIVE_SUFFIXES, parse_files, scheme_of, scheme_problem
from tony.config.layers import Request, Settings, clusters_of, gather
from tony.config.roles import check_each, check_env, roles_of
from tony.config.script import Code, code_of, command_for
from tony.config.secrets import read_secrets
from tony.errors import Problem, UsageError
from tony.spec import (
    ExclusionSpec,
    HangSpec,
    JobSpec,
    OnHang,
    OnInterrupt,
    OnStraggler,
    PythonSpec,
    Resources,
    RestartPolicy,
    RestartSpec,
    RoleSpec,
    SuccessPolicy,
    Times,
)
from tony.units import parse_duration_s

LEAST_HANG_S = 5.0


@dataclass(frozen=True)
class Resolved:
    """What a request comes to: the job, and what the client alone has to know."""

    job: JobSpec
    detach: bool
    on_interrupt: OnInterrupt
    cluster: str | None
    clusters: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...] = ()
    idempotency_key: str | None = None


def resolve(request: Request) -> Resolved:
    """The job of this request. Raises UsageError with all problems; reads files, touches nothing."""
    settings = gather(request)
    resolved = resolve_settings(settings, request)
    if settings.problems:
        raise UsageError(_ordered(settings.problems))
    return resolved


def resolve_settings(settings: Settings, request: Request) -> Resolved:
    """As `resolve`, but problems stay in the settings; what is wrong was replaced by a default."""
    framework = settings.value("framework")
    _folder(settings, "tensorboard")
    roles = roles_of(settings, framework)
    code = code_of(settings, request.folder)
    roles = tuple(dataclasses.replace(role, command=command_for(settings, code, role)) for role in roles)
    env = check_env(settings, "env")
    _check_env_sizes(settings, env, roles)
    secrets = read_secrets(settings, request.environ)
    name = _name(settings, code, roles)
    label, nodes, exclude_nodes = (settings.value(key) for key in ("node_label", "nodes", "exclude_nodes"))
    check_each(settings, "queue", (settings.value("queue"),), names.queue)
    check_each(settings, "tags", settings.value("tags"), names.tag)
    check_each(settings, "node_label", (label,) if label else (), names.label)
    check_each(settings, "nodes", nodes, names.host)
    check_each(settings, "exclude_nodes", exclude_nodes, names.host)
    for users in ("view_users", "modify_users"):
        check_each(settings, users, settings.value(users), names.user)
    job = JobSpec(
        name=name,
        roles=roles,
        framework=framework,
        queue=settings.value("queue"),
        tags=tuple(settings.value("tags")),
        source=code.source,
        exclude=tuple(settings.value("exclude")),
        python=_python(settings),
        env=env,
        secrets=tuple(secrets),
        files=parse_files(settings, "files"),
        node_label=label,
        nodes=tuple(nodes),
        exclude_nodes=tuple(exclude_nodes),
        restart=RestartSpec(
            policy=RestartPolicy(settings.value("restart.policy")),
            max_infrastructure=settings.value("restart.max"),
            max_user=settings.value("restart.max_user"),
            same_failure=settings.value("restart.same_failure"),
        ),
        exclusion=ExclusionSpec(
            failures=settings.value("exclusion.failures"),
            window_s=settings.value("exclusion.window"),
            expiry_s=settings.value("exclusion.expiry"),
            share_percent=settings.value("exclusion.share"),
        ),
        success=SuccessPolicy(settings.value("success")),
        times=_times(settings),
        hang=_hang(settings),
        on_straggler=OnStraggler(settings.value("on_straggler")),
        am_attempts=settings.value("am.attempts"),
        am_resources=Resources(settings.value("am.memory"), settings.value("am.vcores")),
        checkpoint_dir=_folder(settings, "checkpoint_dir"),
        quantize=settings.value("quantize"),
        check_peers=settings.value("check_peers"),
        view_users=tuple(settings.value("view_users")),
        modify_users=tuple(settings.value("modify_users")),
        docker=docker_of(settings, roles),
    )
    if job.success is SuccessPolicy.CHIEF and "chief" not in {role.name for role in roles} | _firsts(roles):
        settings.problem("success", "there is no chief. Add --chief, or use all.")
    return Resolved(
        job=job,
        detach=settings.value("detach"),
        on_interrupt=OnInterrupt(settings.value("on_interrupt")),
        cluster=settings.value("cluster"),
        clusters=clusters_of(settings),
        secrets=secrets,
        warnings=tuple(_warnings(job)),
        idempotency_key=_key(settings),
    )


def _firsts(roles: tuple[RoleSpec, ...]) -> set[str]:
    """Without a chief role, worker:0 is the chief."""
    return {"chief"} if any(role.name == "worker" for role in roles) else set()


def _name(settings: Settings, code: Code, roles: tuple[RoleSpec, ...]) -> str:
    given: str | None = settings.value("name")
    if given is not None:
        problem = names.job_name(given)
        if problem:
            settings.problem("name", problem)
        return given
    if settings.job_file is not None and settings.job_file.stem not in ("job", "tony"):
        name = settings.job_file.stem
    elif settings.job_file is not None:
        name = settings.job_file.absolute().parent.name
    else:
        name = code.title or (Path(roles[0].command[0]).stem if roles and roles[0].command else "job")
    shown = "".join(c if names.unprintable(c) is None else "?" for c in name)
    return shown[: names.MAX_NAME].strip() or "job"


def _key(settings: Settings) -> str | None:
    key: str | None = settings.value("idempotency_key")
    if key is not None:
        check_each(settings, "idempotency_key", (key,), names.idempotency_key)
    return key


def _python(settings: Settings) -> PythonSpec:
    venv, python = settings.get("venv"), settings.get("python")
    interpreter: str | None = None
    if python is not None:
        interpreter = python.value
        if not python.value.startswith("/"):
            settings.problem(
                "python", "must be an absolute path that every node has.", "To ship an environment, use --venv."
            )
        if venv is not None and venv.value not in ("none", "auto"):
            settings.problem(
                "python", "a job has either --python or --venv.", f"--venv is {venv.text} ({venv.origin})."
            )
        return PythonSpec("none", interpreter)
    text: str = settings.value("venv")
    if venv is None or text in ("auto", "none"):
        return PythonSpec(text)
    problem = scheme_problem(text)
    if problem:
        settings.problem("venv", problem)
    elif scheme_of(text) is not None:
        if not text.lower().endswith(ARCHIVE_SUFFIXES):
            settings.problem("venv", f"an archive must end in {', '.join(ARCHIVE_SUFFIXES)}.")
    else:
        path = venv.folder / Path(text).expanduser()
        text = str(path)
        if not path.exists():
            settings.problem("venv", "no such folder or archive.", "tony pack builds an archive from an environment.")
        elif path.is_file() and not path.name.lower().endswith(ARCHIVE_SUFFIXES):
            settings.problem("venv", f"neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)}).")
    return PythonSpec(text)


def _folder(settings: Settings, key: str) -> str | None:
    """A folder that all tasks see, as written: a URL or an absolute path."""
    text: str | None = settings.value(key)
    if text is None:
        return None
    scheme = scheme_of(text)
    if scheme is not None and scheme not in ("hdfs", "webhdfs", "file", "s3", "gs", "viewfs"):
        settings.problem(key, f"the scheme {scheme}:// is not allowed here.")
    if scheme is None and not text.startswith("/"):
        settings.problem(key, "must be a URL or an absolute path: the tasks' working folders go with the job.")
    return text


def _times(settings: Settings) -> Times:
    times = Times(
        queue_s=settings.value("queue_timeout"),
        gang_s=settings.value("gang_timeout"),
        gang_rounds=settings.value("times.gang_rounds"),
        backoff_min_s=settings.value("times.backoff_min"),
        backoff_max_s=settings.value("times.backoff_max"),
        registration_s=settings.value("times.registration"),
        duration_s=settings.value("max_duration"),
        beat_s=settings.value("times.beat"),
        lost_s=settings.value("times.lost"),
        lease_s=settings.value("times.lease"),
        stop_grace_s=settings.value("stop_grace"),
        early_exit_s=settings.value("early_exit"),
        replacement_s=settings.value("times.replacement"),
        growth_s=settings.value("times.growth"),
    )
    for key in ("queue_timeout", "gang_timeout", "times.beat", "times.lost", "times.lease", "times.registration"):
        if settings.value(key) <= 0:
            settings.problem(key, "must be longer than nothing.")
    if times.backoff_min_s > times.backoff_max_s:
        settings.problem("times.backoff_min", "is longer than times.backoff_max.")
    if times.beat_s > 0 and times.lost_s < 2 * times.beat_s:
        settings.problem("times.lost", "must be at least two beats.")
    return times


def _hang(settings: Settings) -> HangSpec:
    text: str = settings.value("hang_timeout")
    action = OnHang(settings.value("on_hang"))
    if text in ("off", "auto"):
        return HangSpec(learned=text == "auto", action=action)
    try:
        limit_s = parse_duration_s(text)
    except ValueError as error:
        settings.problem("hang_timeout", f"neither off nor auto, and {error}")
        return HangSpec()
    if limit_s < LEAST_HANG_S:
        settings.problem("hang_timeout", f"must be at least {LEAST_HANG_S:.0f}s: progress is measured every 5 s.")
    return HangSpec(limit_s, action=action)


def _check_env_sizes(settings: Settings, env: Mapping[str, str], roles: tuple[RoleSpec, ...]) -> None:
    """Bounds of what one task gets, named where they can be changed."""
    for role in roles:
        key = f"roles.{role.name}.env" if role.env else "env"
        whole = {**env, **role.env}
        if len(whole) >= names.MAX_ENV_VARIABLES:
            _bound(settings, key, f"has {len(whole)} variables; fewer than {names.MAX_ENV_VARIABLES} are allowed.")
        size = sum(len(name) + len(value.encode("utf-8", "surrogateescape")) + 2 for name, value in whole.items())
        if size > names.MAX_ENV_BYTES:
            _bound(settings, key, f"has {size} bytes; at most {names.MAX_ENV_BYTES} are allowed. Use --files.")
        words = sum(len(word.encode("utf-8", "surrogateescape")) + 1 for word in role.command)
        if words > names.MAX_ENV_BYTES or any(
            len(w.encode("utf-8", "surrogateescape")) > names.MAX_ENV_VALUE_BYTES for w in role.command
        ):
            _bound(settings, f"roles.{role.name}.command", "is too long for the operating system. Use --files.")


def _bound(settings: Settings, key: str, message: str) -> None:
    given = settings.get(key)
    problem = Problem(key, message, None, given.origin if given else None)
    if problem not in settings.problems:
        settings.problems.append(problem)


def _warnings(job: JobSpec) -> list[str]:
    found = []
    for role in job.roles:
        for word in role.command[1:]:
            if "{{ " in word or "{% " in word:
                found.append(f"role {role.name}: the argument {word!r} looks like a template that was not rendered")
    return found


def _ordered(problems: list[Problem]) -> list[Problem]:
    """Without repetitions, in the order of discovery."""
    return list(dict.fromkeys(problems))
