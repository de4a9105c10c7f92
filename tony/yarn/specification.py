"""A plan as skein's application specification: plain dicts, lists and strings, made without skein or a cluster.

Everything that YARN passes through bash is checked here: launch environments stand unescaped in a script, and a
service's name in a command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tony.docker import job_problems as docker_problems
from tony.errors import Problem, TonyError, UsageError
from tony.plan import JobSecrets, Plan
from tony.spec import JobRecord, Resources, RoleSpec, Upload
from tony.yarn.docker import docker_environment
from tony.yarn.scripts import LAUNCHER, executor_script, image_script, master_script

TAG = "tony"
"""On every application of ours, so that lists show no others."""
CERTIFICATE, PRIVATE_KEY = ".skein.crt", ".skein.pem"
JOB_FILE, SECRETS_FILE = "tony-job.json", "tony-secrets.json"

# The first two make a short-lived JVM cheap; without the third skein's web pages fail on Java 17.
_JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC --add-opens=java.base/java.util=ALL-UNNAMED"
_MANY_TASKS = 2000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,-]{0,32768}")
_SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_MAX_TAGS, _MAX_TAG_LENGTH = 10, 100


def application_spec(
    plan: Plan,
    secrets: JobSecrets,
    launcher: Path,
    master_files: Mapping[str, Path],
    *,
    tags: Sequence[str] = (),
    runtime_path: Sequence[str] = (),
) -> dict[str, Any]:
    """What skein submits for the plan.

    `launcher` is the local file that starts our processes, for every container; `master_files` are further local
    files for the master's container alone, by their name there. `tags` come beside the job's own. Without a runtime
    bundle in the plan, `runtime_path` names folders that exist on every node.
    Raises UsageError for what YARN or bash would not take.
    """
    record = plan.record
    job = record.spec
    problems = [*_job_problems(record), *docker_problems(job), *_upload_problems(record, {LAUNCHER, *master_files})]
    if problems:
        raise UsageError(problems)
    environment = _environment(record.runtime, runtime_path)
    master_environment = {**environment, "JDK_JAVA_OPTIONS": _JAVA_OPTIONS}
    if len(job.possible_tasks()) > _MANY_TASKS:
        # skein fixes the heap at 128 MB; only this variable is read after that.
        master_environment["_JAVA_OPTIONS"] = "-Xmx512m"
    own = {name: _file(str(path.absolute())) for name, path in master_files.items()}
    start = {LAUNCHER: _file(str(launcher.absolute()))}
    return {
        "name": job.name,
        "queue": job.queue,
        "tags": sorted({TAG, *tags, *job.tags}),
        "node_label": job.node_label or "",
        "max_attempts": job.am_attempts,
        "acls": {
            "enable": True,
            "view_users": list(job.view_users),
            "modify_users": list(job.modify_users),
            "ui_users": list(job.view_users),
        },
        "master": {
            "resources": _resources(job.am_resources),
            "script": master_script(record.python),
            "env": master_environment,
            "files": {**start, **own, **_uploads([record.runtime, record.jar])},
            "security": {"cert_bytes": secrets.certificate, "key_bytes": secrets.private_key},
        },
        "services": {role.name: _service(record, role, start, runtime_path) for role in job.roles},
    }


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment itself, if bash cannot misread it. Raises TonyError."""
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or not _PLAIN.fullmatch(value):
            raise TonyError(f"the environment variable {name!r} holds characters that cannot pass through YARN.")
    return dict(environment)


def _service(
    record: JobRecord, role: RoleSpec, start: Mapping[str, dict[str, str]], runtime_path: Sequence[str]
) -> dict[str, Any]:
    """A role. No instance is started by skein, none restarted, and no failure ends the application: we do that."""
    runtime = record.runtime_of(role.name)
    environment = _environment(runtime, runtime_path) | docker_environment(record.spec, role)
    inside = record.images.get(role.name)
    uploads = [
        runtime,
        record.environment_of(role.name),
        record.source,
        *record.files,
        *record.role_files.get(role.name, ()),
    ]
    return {
        "instances": 0,
        "max_restarts": 0,
        "allow_failures": True,
        "resources": _resources(role.resources),
        "script": image_script(inside.python) if inside is not None else executor_script(record.python),
        "env": plain_environment(environment),
        "files": {**start, **_uploads(uploads)},
        "node_label": role.node_label or record.spec.node_label or "",
        "nodes": list(role.nodes or record.spec.nodes),
    }


def _environment(runtime: Upload | None, runtime_path: Sequence[str]) -> dict[str, str]:
    environment = {
        "TONY_BACKEND": "yarn",
        "TONY_CERTIFICATE": CERTIFICATE,
        "TONY_PRIVATE_KEY": PRIVATE_KEY,
        "LANG": "C.UTF-8",
    }
    if runtime is not None:
        environment["TONY_RUNTIME"] = runtime.name
    elif runtime_path:
        environment["TONY_RUNTIME_PATH"] = ":".join(runtime_path)
    return plain_environment(environment)


def _resources(size: Resources) -> dict[str, int]:
    return {"memory": size.memory_mb, "vcores": size.vcores, "gpus": size.gpus}


def _file(source: str, visibility: str = "APPLICATION") -> dict[str, str]:
    # Never ARCHIVE: YARN unpacks zips without their symbolic links, and forks a chmod for every file.
    return {"source": source, "type": "FILE", "visibility": visibility}


def _uploads(uploads: Iterable[Upload | None]) -> dict[str, dict[str, str]]:
    """PRIVATE: kept on the node for the user's next job."""
    return {upload.name: _file(upload.url, "PRIVATE") for upload in uploads if upload is not None}


def _job_problems(record: JobRecord) -> Iterable[Problem]:
    job = record.spec
    if not record.python.startswith("/") or not record.python.isprintable():
        yield Problem("python", "must be the absolute path of an interpreter on the nodes.", record.python)
    for role in job.roles:
        if (role.image is None) != (role.name not in record.images):
            yield Problem(f"roles.{role.name}.image", "the plan says nothing of its Python.", role.image)
        if not _SERVICE.fullmatch(role.name):
            yield Problem(
                f"roles.{role.name}", "not a role name: a letter, then letters, digits, - and _.", role.name
            )
    for tag in job.tags:
        if not tag.isascii() or not tag.isprintable() or not 0 < len(tag) <= _MAX_TAG_LENGTH or "," in tag:
            yield Problem("tags", f"not a tag: at most {_MAX_TAG_LENGTH} plain characters, no comma.", tag)
    if len(set(job.tags)) > _MAX_TAGS - 2:
        yield Problem("tags", f"at most {_MAX_TAGS - 2} tags; YARN keeps {_MAX_TAGS} and two are tony's own.")
    for key, users in (("view_users", job.view_users), ("modify_users", job.modify_users)):
        for user in users:
            if not user or any(character in ", " or not character.isprintable() for character in user):
                yield Problem(key, "not a user name: no blank, no comma.", user)


def _upload_problems(record: JobRecord, own: Set[str]) -> Iterable[Problem]:
    for role in record.spec.roles:
        taken = set(own)
        shared = (record.runtime_of(role.name), record.environment_of(role.name), record.source)
        common = [upload for upload in shared if upload is not None]
        for upload in [*common, *record.files, *record.role_files.get(role.name, ())]:
            if not _FILE_NAME.fullmatch(upload.name):
                yield Problem("files", "not a name for a file in a container.", upload.name)
            elif upload.name in taken:
                yield Problem("files", f"is given twice to the tasks of role {role.name}.", upload.name)
            if not urlsplit(upload.url).scheme or urlsplit(upload.url).scheme == "file":
                yield Problem("files", "nodes cannot read it; it must lie on shared storage.", upload.url)
            taken.add(upload.name)
