"""The few lines that show a plan, and its document."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tony.asked import Asked
from tony.cli.invocation import Invocation
from tony.containers import Cluster
from tony.plan import Plan
from tony.spec import DOCKER_SHM_MB, DockerSpec
from tony.text import safe
from tony.units import format_bytes, format_memory

SCHEMA = "tony.plan/1"


def show_plan(plan: Plan, asked: Asked, cluster: Cluster, invocation: Invocation, dry: bool = False) -> None:
    """The plan in a few lines; with --json and `dry`, as a document."""
    output = invocation.output
    for warning in (*asked.resolved.warnings, *plan.warnings):
        output.say(output.style(f"warning: {safe(warning)}", "yellow"))
    stored = _stored(plan, cluster)
    if dry and output.json:
        output.document(plan_document(plan, stored))
        return
    write = output.data if dry else output.say
    for name, text in _rows(plan, stored):
        write(f"{name:<10} {safe(text)}")
    if dry:
        output.say("Nothing was uploaded or submitted.")


def _rows(plan: Plan, stored: dict[str, bool]) -> Iterator[tuple[str, str]]:
    job = plan.job
    framework = "" if job.framework == "auto" else f", {job.framework}"
    yield "job", f"{job.name} on {plan.cluster}, queue {job.queue}{framework}"
    for role in job.roles:
        marks = [word for word, on in (("untracked", role.untracked), ("sidecar", role.sidecar)) if on]
        marks += [f"after {', '.join(role.depends_on)}"] if role.depends_on else []
        marks += [f"{role.least} to {role.most}"] if role.elastic else []
        marks += [f"{role.procs_per_task} processes each"] if role.procs_per_task > 1 else []
        note = f" ({'; '.join(marks)})" if marks else ""
        yield "tasks", f"{role.instances} x {role.name}: {role.resources}{note}"
        if role.image is not None:
            inside = plan.record.images.get(role.name)
            yield "  image", role.image + (f", {inside.python}" if inside is not None else "")
        yield "  run", _command(role.command)
    if job.images:
        yield "docker", _docker(job.docker)
    if job.quantize:
        yield "gradients", f"{job.quantize} bits" if job.quantize.isdigit() else job.quantize
    yield "code", job.source or "none"
    yield "python", _python(plan)
    for item in plan.uploads:
        there = " (there already)" if stored.get(item.upload.url) else ""
        yield "upload", f"{item.what}, {format_bytes(item.upload.size)}{there}"


def _command(words: tuple[str, ...]) -> str:
    import shlex

    text = shlex.join(words)
    return text if len(text) <= 66 else f"{text[:40]} ... {text[-21:]}"


def _docker(docker: DockerSpec) -> str:
    parts = [f"network {docker.network}", *(f"mount {mount}" for mount in docker.mounts)]
    parts += [f"shared memory {format_memory(docker.shm_mb)} or more"] if docker.shm_mb > DOCKER_SHM_MB else []
    parts += ["user names of the nodes"] if docker.user_names else []
    parts += [f"registry by {docker.client_config}"] if docker.client_config else []
    return ", ".join(parts)


def _python(plan: Plan) -> str:
    record = plan.record
    users = {inside.user_python for inside in record.images.values()}
    if len(record.images) == len(plan.job.roles) and record.environment is None:
        return f"of the image{'s' if len(users) > 1 else ''}: {', '.join(sorted(users))}"
    if record.environment is not None:
        return f"environment {plan.job.python.environment}"
    return record.user_python


def _stored(plan: Plan, cluster: Cluster) -> dict[str, bool]:
    """Which archives the cluster has already."""
    from tony.storage import Storage

    with contextlib.closing(Storage(cluster.storage)) as storage:
        return {item.upload.url: storage.exists(item.upload.url) for item in plan.uploads}


def plan_document(plan: Plan, stored: dict[str, bool]) -> dict[str, Any]:
    """``tony.plan/1``: the job as it was understood and what would be uploaded. Holds no secret values."""
    from tony.records import plain

    return {
        "schema": SCHEMA,
        "cluster": plan.cluster,
        "job": plain(plan.job),
        "python": plan.record.python,
        "user_python": plan.record.user_python,
        "images": {
            role: {"python": inside.python, "user_python": inside.user_python}
            for role, inside in plan.record.images.items()
        },
        "uploads": [
            {
                "what": item.what,
                "bytes": item.upload.size,
                "sha256": item.upload.sha256,
                "url": item.upload.url,
                "stored": stored.get(item.upload.url, False),
            }
            for item in plan.uploads
        ],
        "warnings": list(plan.warnings),
    }
