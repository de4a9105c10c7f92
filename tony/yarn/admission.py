"""What of a job this cluster could never run, said before anything is submitted.

An ask above the scheduler's maximum, or for a label that does not exist, ends skein's whole master; a size that no
node offers waits for ever. Pure: what the cluster offers comes in as values.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from tony.capacity import GPU, Node, Queue, Scheduler, Size
from tony.errors import Problem
from tony.spec import JobSpec, Resources, RoleSpec
from tony.units import format_memory

_MAX_NAMES = 8
_BASE_TYPES = ("memory-mb", "vcores")
_AM = "am"
_PARTS: tuple[tuple[str, Callable[[Size], int]], ...] = (
    ("memory", lambda size: size.memory_mb),
    ("vcores", lambda size: size.vcores),
    ("gpus", lambda size: size.gpus),
)


def job_problems(
    job: JobSpec,
    nodes: Sequence[Node],
    scheduler: Scheduler,
    declared: Sequence[str] = (),
    labels: Mapping[str, bool] = MappingProxyType({}),
) -> list[Problem]:
    """Everything that cannot work.

    `declared` are the resource types in the client's own configuration; `labels` tells of each node label whether
    it is exclusive: nodes of one that is not also take tasks that ask for no label.
    """
    usable = [node for node in nodes if node.usable]
    if not usable:
        return [
            Problem(
                "cluster",
                f"none of its {len(nodes)} node(s) is running.",
                hint="For a cluster on this machine: tony cluster status",
            )
        ]
    queue, found = _queue(job, scheduler)
    found += _excluded(job, nodes)
    job = away_from_excluded(job, nodes)
    types = scheduler.resource_types or (*_BASE_TYPES, *declared)
    usable = [node if labels.get(_label(node), True) else _open(node) for node in usable]
    # A queue that may use labels by name tells of labels that no running node has at this moment.
    known_labels = {label for one in scheduler.queues for label in (one.labels or ()) if label != "*"}
    known_labels |= {*labels, *(label for node in nodes for label in node.labels)}
    roles = [RoleSpec(_AM, (), resources=job.am_resources, node_label=job.node_label), *job.roles]
    for role in roles:
        key = _AM if role.name == _AM and role is roles[0] else f"roles.{role.name}"
        label = role.node_label or job.node_label or ""
        names = role.nodes if role is roles[0] else role.nodes or job.nodes
        where = list(_placement(key, label, names, nodes, known_labels, queue))
        sizes = list(_unknown_types(key, role.resources, types))
        found += where + sizes
        if not where and not sizes:
            fitting = _places(usable, label, names)
            found += _size_problems(key, role, fitting, label, scheduler, queue)
    if not found:
        found += _stage_problems(job, usable, scheduler, queue)
    return found


def _queue(job: JobSpec, scheduler: Scheduler) -> tuple[Queue | None, list[Problem]]:
    queue = scheduler.queue(job.queue)
    leaves = [one.name for one in scheduler.queues if one.leaf]
    if queue is None:
        return None, [Problem("queue", "no such queue.", job.queue, hint=_near(job.queue, leaves, "Queues"))]
    if not queue.leaf:
        below = [one.path for one in scheduler.queues if one.leaf and one.path.startswith(f"{queue.path}.")]
        return queue, [Problem("queue", "has queues below it; name one of them.", job.queue, hint=_names(below))]
    if not queue.running:
        hint = f"Queues that run: {_names([one.name for one in scheduler.queues if one.leaf and one.running])}."
        return queue, [Problem("queue", "is stopped and takes no jobs.", job.queue, hint=hint)]
    return queue, []


def away_from_excluded(job: JobSpec, nodes: Sequence[Node]) -> JobSpec:
    """The job with excluded nodes turned into those that remain: skein can name hosts, but not leave one out."""
    if not job.exclude_nodes:
        return job
    remaining = sorted({node.host for node in nodes if node.usable and node.host not in job.exclude_nodes})
    kept = [host for host in job.nodes if host not in job.exclude_nodes] or remaining
    roles = (replace(role, nodes=tuple(role.nodes or kept)) for role in job.roles)
    return replace(job, roles=tuple(roles), nodes=tuple(kept))


def _excluded(job: JobSpec, nodes: Sequence[Node]) -> Iterable[Problem]:
    hosts = sorted({node.host for node in nodes})
    for name in job.exclude_nodes:
        if name not in hosts:
            yield Problem("exclude_nodes", "no such node.", name, hint=_near(name, hosts, "Nodes"))
    if job.exclude_nodes and not {node.host for node in nodes if node.usable} - set(job.exclude_nodes):
        yield Problem("exclude_nodes", "no running node remains.", ",".join(job.exclude_nodes))


def _placement(
    key: str, label: str, names: Sequence[str], nodes: Sequence[Node], labels: set[str], queue: Queue | None
) -> Iterable[Problem]:
    if label and label not in labels:
        told = f"Labels: {_names(sorted(labels))}." if labels else "This cluster has no node labels."
        yield Problem(f"{key}.node_label", "no such node label.", label, hint=told)
    elif label and queue is not None and queue.labels is not None and not {label, "*"} & set(queue.labels):
        yield Problem(f"{key}.node_label", f"queue {queue.name} may not use nodes of this label.", label)
    if label and names:
        both = "YARN takes either node names (to keep to or away from) or a node label, not both."
        yield Problem(f"{key}.nodes", both, ",".join(names[:_MAX_NAMES]))
    hosts = {node.host: node for node in nodes}
    for name in names:
        if name not in hosts:
            yield Problem(f"{key}.nodes", "no such node.", name, hint=_near(name, sorted(hosts), "Nodes"))
        elif not any(node.usable for node in nodes if node.host == name):
            yield Problem(f"{key}.nodes", f"is {hosts[name].state.lower()}. {hosts[name].health}".strip(), name)


def _unknown_types(key: str, size: Resources, types: Sequence[str]) -> Iterable[Problem]:
    if size.gpus and GPU not in types:
        message = f"this cluster does not count GPUs. Its resource types: {_names(types)}."
        hint = "Ask for none, or have an administrator declare yarn.io/gpu in resource-types.xml."
        yield Problem(f"{key}.gpus", message, str(size.gpus), hint=hint)
    for name, count in size.other.items():
        if name == GPU:
            yield Problem(f"{key}.resources", "ask for GPUs with gpus.", f"{name}={count}")
        elif name not in types:
            told = f"Its resource types: {_names(types)}."
            yield Problem(f"{key}.resources", "this cluster has no such resource type.", f"{name}={count}", hint=told)
        else:
            # skein asks for nothing else: its one further type, FPGAs, is broken in it.
            message = "this cluster counts it, but only memory, vcores and GPUs can be asked for."
            hint = "A node label or names of nodes lead there too: --node-label, --nodes."
            yield Problem(f"{key}.resources", message, f"{name}={count}", hint=hint)


def _size_problems(
    key: str, role: RoleSpec, nodes: Sequence[Node], label: str, scheduler: Scheduler, queue: Queue | None
) -> Iterable[Problem]:
    """A container that is larger than the scheduler's maximum, or than every node it may run on."""
    if not nodes:
        which = f"with label {label}" if label else "without a label"
        yield Problem(f"{key}.node_label", f"no node {which} is running.", label or None)
        return
    limits = [size for size in (scheduler.largest, queue.largest if queue else None) if size is not None]
    asked = _asked(role.resources, scheduler)
    alone = True
    for name, of in _PARTS:
        want = of(asked)
        most_allowed = min([of(size) for size in limits if name != "gpus" or GPU in size.other], default=want)
        most_here = max(of(node.total) for node in nodes) if _counted(name, scheduler) else most_allowed
        most = min(most_here, most_allowed)
        if want > most:
            alone = False
            why = "the largest node has" if most_here <= most_allowed else "the scheduler allows at most"
            written = format_memory(role.resources.memory_mb) if name == "memory" else str(want)
            yield Problem(f"{key}.{name}", f"{why} {_shown(name, most)}.", written, hint=_at_most(name, most))
    if alone and not any(_slots(node.total, asked, scheduler) for node in nodes):
        yield Problem(key, f"no node has {role.resources} together.", str(role.resources))


def _stage_problems(
    job: JobSpec, nodes: Sequence[Node], scheduler: Scheduler, queue: Queue | None
) -> Iterable[Problem]:
    """Roles that run together but do not fit together, on an empty cluster."""
    master = _asked(job.am_resources, scheduler)
    for stage in stages(job):
        fits_alone = True
        for role in stage:
            label, names = role.node_label or job.node_label or "", role.nodes or job.nodes
            places = _places(nodes, label, names)
            most = sum(_slots(node.total, _asked(role.resources, scheduler), scheduler) for node in places)
            if role.least > most:
                fits_alone = False
                yield Problem(
                    f"roles.{role.name}.instances",
                    f"the whole cluster has room for {most} of {role.resources} each.",
                    str(role.least),
                    hint=f"Ask for at most {most}, or for smaller tasks.",
                )
        if fits_alone:
            for label in dict.fromkeys(role.node_label or job.node_label or "" for role in stage):
                there = [role for role in stage if (role.node_label or job.node_label or "") == label]
                with_master = master if label == (job.node_label or "") else Size(0, 0)
                # The queue's share is that of the nodes without a label.
                share = queue.max_share if queue is not None and not label else 1.0
                yield from _total_problems(there, with_master, _places(nodes, label, ()), scheduler, queue, share)


def _total_problems(
    roles: Sequence[RoleSpec],
    master: Size,
    nodes: Sequence[Node],
    scheduler: Scheduler,
    queue: Queue | None,
    share: float,
) -> Iterable[Problem]:
    asked = [(role.least, _asked(role.resources, scheduler)) for role in roles]
    who = ", ".join(f"{role.least} {role.name}" for role in roles)
    who += " and the application master" if master.memory_mb else ""
    place = f"queue {queue.name} may use" if queue is not None and share < 1 else "the whole cluster has"
    for name, of in _PARTS:
        want = of(master) + sum(count * of(size) for count, size in asked)
        have = int(sum(of(node.total) for node in nodes) * share)
        if want > have and _counted(name, scheduler):
            message = f"{who} need {_shown(name, want)} together; {place} {_shown(name, have)}."
            yield Problem("roles", message, hint="Ask for fewer or smaller tasks.")


def _label(node: Node) -> str:
    return node.labels[0] if node.labels else ""


def _open(node: Node) -> Node:
    """A node of a label that others may use: it counts as one with the label and as one without."""
    return replace(node, labels=(*node.labels, ""))


def _places(nodes: Sequence[Node], label: str, names: Sequence[str]) -> list[Node]:
    """Where a task with that label and those node names may run."""
    return [node for node in nodes if label in (node.labels or ("",)) and (not names or node.host in names)]


def stages(job: JobSpec) -> list[list[RoleSpec]]:
    """Roles that run at the same time: those with the same `depends_on`. An unknown or circular one stays alone."""
    groups: dict[frozenset[str], list[RoleSpec]] = {}
    for role in job.roles:
        groups.setdefault(frozenset(role.depends_on), []).append(role)
    return list(groups.values())


def _asked(size: Resources, scheduler: Scheduler) -> Size:
    """What the scheduler will make of it: memory is rounded up to a multiple of its smallest container."""
    step = scheduler.smallest.memory_mb if scheduler.smallest and scheduler.smallest.memory_mb > 0 else 1
    return Size(-(-size.memory_mb // step) * step, size.vcores, {GPU: size.gpus} if size.gpus else {})


def _slots(node: Size, size: Size, scheduler: Scheduler) -> int:
    """How many such containers an empty node holds."""
    return min(of(node) // of(size) for name, of in _PARTS if of(size) and _counted(name, scheduler))


def _counted(name: str, scheduler: Scheduler) -> bool:
    """Whether the scheduler minds this part. Vcores only with the calculator that other resource types need.

    The stock calculator looks at memory alone; which one is used, REST does not say.
    """
    return name != "vcores" or any(one not in _BASE_TYPES for one in scheduler.resource_types or ())


def _shown(name: str, amount: int) -> str:
    if name == "memory":
        return format_memory(amount)
    return f"{amount} {name if name == 'vcores' else 'GPUs'}"


def _at_most(name: str, amount: int) -> str:
    return f"Ask for at most {_shown(name, amount)}." if amount else f"Ask for no {_shown(name, amount)[2:]}."


def _near(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f'Did you mean "{near[0]}"?' if near else f"{what}: {_names(known)}."


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown}, … ({len(names)} in all)" if len(names) > _MAX_NAMES else shown or "none"
