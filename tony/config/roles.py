"""The roles of a job from its settings: which exist, how large each is, what it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tony.config import board, keys, names, rolekeys
from tony.config.docker import image_of
from tony.config.files import parse_files
from tony.config.layers import Given, Layer, Settings, default_of
from tony.config.rolekeys import ROLE_KEYS
from tony.errors import Problem
from tony.spec import Resources, RoleSpec
from tony.units import format_memory, parse_memory_mb

_ROLE_KEY = {key.name: key for key in ROLE_KEYS}
_LIKE_WORKER = ("chief", "evaluator")
_SIZES = ("memory", "vcores", "gpus", "resources", "procs_per_task")
_DEFINING = (Layer.FLAG, Layer.VARIABLE, Layer.JOB)


def roles_of(settings: Settings, framework: str) -> tuple[RoleSpec, ...]:
    """The roles in the order in which they were written; one ``worker`` when nothing names a role.

    A role exists when the job file, ``--role`` or a flag like ``--workers`` names it; ``tensorboard`` adds one. Other
    layers and ``-c`` may only change roles that exist. What is wrong is added to the settings' problems.
    """
    own = [board.ROLE] if board.add_board(settings) else []
    shorthand = _shorthand(settings)
    defined = _defined(settings, shorthand, own)
    _check_strangers(settings, defined)
    roles = tuple(_role(settings, name, shorthand, framework) for name in defined)
    _check_links(settings, roles)
    _check_limits(settings, roles)
    total = sum(role.most for role in roles)
    if total > rolekeys.MAX_TASKS:
        settings.problem("roles", f"make {total} tasks together; at most {rolekeys.MAX_TASKS} are allowed.")
    return roles


def _check_limits(settings: Settings, roles: tuple[RoleSpec, ...]) -> None:
    """What a site allows one job to ask for, as the sum over its tasks (an elastic role at its largest)."""
    sums = {
        "tasks": sum(role.most for role in roles),
        "memory": sum(role.most * role.resources.memory_mb for role in roles),
        "vcores": sum(role.most * role.resources.vcores for role in roles),
        "gpus": sum(role.most * role.resources.gpus for role in roles),
    }
    for name, asked in sums.items():
        limit = settings.value(f"limits.{name}")
        if limit is not None and asked > limit:
            shown = [format_memory(amount) if name == "memory" else str(amount) for amount in (limit, asked)]
            settings.problem(f"limits.{name}", f"allows a job {shown[0]}, and this one asks for {shown[1]}.")


def _shorthand(settings: Settings) -> dict[str, dict[str, Given]]:
    """What ``--role NAME:N[:memory[:gpus]]`` says, by role and key."""
    found: dict[str, dict[str, Given]] = {}
    given = settings.get("role")
    for word in given.value if given else ():
        assert given is not None
        one = Given(word, word, given.origin, given.layer, given.folder)
        parts = word.split(":")
        if not 2 <= len(parts) <= 4:
            settings.problem("role", "must be written NAME:N[:memory[:gpus]], like board:1:2g.", given=one)
            continue
        entry: dict[str, Given] = {}
        try:
            entry["instances"] = _count(one, parts[1], "instances")
            if len(parts) > 2 and parts[2]:
                entry["memory"] = Given(parse_memory_mb(parts[2]), parts[2], one.origin, one.layer, one.folder)
            if len(parts) > 3:
                entry["gpus"] = _count(one, parts[3], "gpus")
        except ValueError as error:
            settings.problem("role", str(error), given=one)
            continue
        if parts[0] in found:
            settings.problem("role", f"names the role {parts[0]!r} twice.", given=one)
        found[parts[0]] = entry
    return found


def _count(one: Given, text: str, name: str) -> Given:
    key = _ROLE_KEY[name]
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not key.low <= int(text) <= key.high:
        raise ValueError(f"{name} must be a whole number from {key.low} to {key.high}, not {text!r}.")
    return Given(int(text), text, one.origin, one.layer, one.folder)


def _defined(settings: Settings, shorthand: Mapping[str, Any], own: list[str]) -> list[str]:
    """The names of the roles; `own` are those that we add, last, and that are not a job by themselves."""
    found: dict[str, None] = {}
    from_files = [name for name in settings.names() if name.startswith("roles.") and name.count(".") == 1]
    for name in from_files:
        if any(given.layer is Layer.JOB for given in settings.layers(name)):
            found[name.partition(".")[2]] = None
    for key in rolekeys.ROLE_FLAGS:
        if key.name.endswith(".instances") and any(g.layer in _DEFINING for g in settings.layers(key.name)):
            found[key.name.split(".")[1]] = None
    for name in shorthand:
        found[name] = None
    for name in own:
        found.pop(name, None)
    if not found:
        found["worker"] = None
    for name in found:
        problem = names.role_name(name)
        if problem:
            settings.problem(f"roles.{name}", problem)
    flagged = [name for name in ("chief", "worker", "ps", "evaluator") if name in found]
    in_file = any(settings.layers(f"roles.{name}") for name in found)
    ordered = list(found) if in_file else flagged + [name for name in found if name not in flagged]
    return ordered + own


def _check_strangers(settings: Settings, defined: list[str]) -> None:
    """Settings of roles that do not exist: an error where this job's user wrote them, nothing in site-wide files."""
    for name in settings.names():
        parts = name.split(".")
        if parts[0] != "roles" or len(parts) != 3 or parts[1] in defined:
            continue
        for given in settings.layers(name):
            if given.layer in (Layer.FLAG, Layer.SET):
                near = keys.nearest("roles." + parts[1], defined)
                hint = f'Did you mean "{near}"?' if near else f"The roles of this job: {', '.join(defined)}."
                settings.problem(name, f'no role "{parts[1]}".', hint, given)


def _role(settings: Settings, name: str, shorthand: Mapping[str, Mapping[str, Given]], framework: str) -> RoleSpec:
    def given(key: str) -> Given | None:
        candidates = list(settings.layers(f"roles.{name}.{key}"))
        if key in shorthand.get(name, {}):
            candidates.insert(0, shorthand[name][key])
        return min(candidates, key=lambda one: one.layer) if candidates else None

    def value(key: str) -> Any:
        found = given(key)
        if found is None and key in _SIZES and name in _LIKE_WORKER:
            found = settings.get(f"roles.worker.{key}")
        if found is None:
            return default_of(_ROLE_KEY[key])
        return found.value

    prefix = f"roles.{name}."
    untracked, sidecar = value("untracked"), value("sidecar")
    if given("untracked") is None and name == "ps" and not sidecar:
        untracked = framework in ("auto", "tensorflow")
    elif given("untracked") is None and name in ("server", "scheduler") and framework == "mxnet":
        untracked = not sidecar
    elif untracked and sidecar:
        settings.problem(prefix + "sidecar", "a role is untracked or a sidecar, not both.")
    for other in value("resources") or {}:
        problem = names.resource(other)
        if problem:
            settings.problem(prefix + "resources", f"{other}: {problem}")
    label, nodes = value("node_label"), value("nodes")
    check_each(settings, prefix + "node_label", (label,) if label else (), names.label)
    check_each(settings, prefix + "nodes", nodes, names.host)
    instances, least, most = value("instances"), value("min_instances"), value("max_instances")
    if least is not None and least > instances:
        settings.problem(prefix + "min_instances", f"is more than the {instances} that are asked for.")
    if most is not None and most < instances:
        settings.problem(prefix + "max_instances", f"is less than the {instances} that are asked for.")
    own_command = value("command")
    if own_command is not None and not own_command:
        settings.problem(prefix + "command", "is empty.")
    return RoleSpec(
        name=name,
        command=tuple(own_command or ()),
        instances=instances,
        resources=Resources(value("memory"), value("vcores"), value("gpus"), dict(value("resources") or {})),
        env=check_env(settings, prefix + "env"),
        files=parse_files(settings, prefix + "files"),
        node_label=label,
        nodes=tuple(nodes),
        untracked=untracked,
        sidecar=sidecar,
        stop_on_failure=value("stop_on_failure"),
        depends_on=tuple(value("depends_on")),
        image=image_of(settings, name, given("image")),
        min_instances=least,
        max_instances=most,
        procs_per_task=_procs(settings, prefix, value("procs_per_task"), value("gpus")),
    )


def _procs(settings: Settings, prefix: str, text: str, gpus: int) -> int:
    """A number, or ``auto``: one process for each GPU."""
    if text == "auto":
        return max(1, gpus)
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= rolekeys.MAX_PROCS:
        return int(text)
    settings.problem(prefix + "procs_per_task", f"must be auto or a whole number from 1 to {rolekeys.MAX_PROCS}.")
    return 1


def check_each(settings: Settings, name: str, texts: tuple[str, ...], check: Any) -> None:
    """Add a problem for every text that the check refuses."""
    for text in texts:
        problem = check(text)
        if problem:
            settings.problem(name, f"{text!r}: {problem}" if len(texts) > 1 else problem)


def check_env(settings: Settings, name: str) -> dict[str, str]:
    """The merged variables of a key, checked one by one."""
    entries = settings.merged(name)
    for variable, given in entries.items():
        problem = names.variable(variable) or names.variable_value(variable, given.value)
        if problem:
            shown = Given(
                variable,
                variable if len(variable) <= 60 else variable[:57] + "...",
                given.origin,
                given.layer,
                given.folder,
            )
            settings.problem(name, problem, given=shown)
    return {variable: given.value for variable, given in entries.items()}


def _check_links(settings: Settings, roles: tuple[RoleSpec, ...]) -> None:
    by_name = {role.name: role for role in roles}
    for role in roles:
        for other in role.depends_on:
            key = f"roles.{role.name}.depends_on"
            if other not in by_name:
                near = keys.nearest("roles." + other, by_name)
                settings.problem(key, f'no role "{other}".', f'Did you mean "{near}"?' if near else None)
            elif not by_name[other].tracked:
                settings.problem(
                    key, f'"{other}" is not waited for (untracked or sidecar), so nothing can depend on it.'
                )
    circle = _circle({role.name: [one for one in role.depends_on if one in by_name] for role in roles})
    if circle:
        settings.problem(f"roles.{circle[0]}.depends_on", f"goes in a circle: {' -> '.join(circle)}.")
    elif not any(role.tracked for role in roles):
        settings.problems.append(Problem("roles", "no role is tracked, so nothing would ever end the job."))


def _circle(links: Mapping[str, list[str]]) -> list[str]:
    """One circle of the dependencies, closed; empty when there is none."""
    left = {name: set(others) for name, others in links.items()}
    while left:
        free = [name for name, others in left.items() if not others & left.keys()]
        if not free:
            path = [next(iter(left))]
            while True:
                following = next(iter(sorted(left[path[-1]] & left.keys())))
                if following in path:
                    return path[path.index(following) :] + [following]
                path.append(following)
        for name in free:
            del left[name]
    return []
