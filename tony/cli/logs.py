"""``tony logs``: the tasks' output, from the executors while they run, from what was kept afterwards."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.jobs import cluster_option, opened
from tony.cli.lines import Lines, prefixed
from tony.errors import Problem, UsageError
from tony.jobhandle import JobHandle
from tony.snapshot import JobSnapshot
from tony.spec import TaskId
from tony.text import safe

SCHEMA = "tony.log/1"
_STREAMS = {"out": "stdout", "err": "stderr", "system": "system"}
_MOST_RANKS = 10_000

LogText = tuple[str, str, str]
"""Task (or container), stream, text."""


@click.command(cls=TonyCommand)
@click.argument("job", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written until the job has ended.")
@click.option("--rank", metavar="LIST", help="Only these, like 0,3-5: indexes of the role, or ranks without --role.")
@click.option("--role", metavar="ROLE", help="Only tasks of this role.")
@click.option(
    "--stream", type=click.Choice(sorted(_STREAMS)), help="Only this stream; system: tony's own logs, afterwards."
)
@click.option(
    "--tail", metavar="N", type=click.IntRange(0, 1_000_000), help="Begin with the last N lines of each task."
)
@click.option("--grep", metavar="RE", help="Only lines in which this regular expression is found.")
@click.option("--raw", is_flag=True, help="Pass colours and control characters on to the terminal.")
@cluster_option()
@click.pass_obj
def logs(
    invocation: Invocation,
    job: str | None,
    follow: bool,
    rank: str | None,
    role: str | None,
    stream: str | None,
    tail: int | None,
    grep: str | None,
    raw: bool,
    cluster_name: str | None,
) -> int:
    """Output of a job's tasks, each line with its task in front. Default: the job submitted last."""
    output = invocation.output
    wanted_ranks = ranks_of(rank)
    matches = _pattern(grep)
    wanted_stream = _STREAMS[stream] if stream else ""
    with opened(invocation, job, cluster_name) as handle:
        snapshot = handle.snapshot()
        tasks = chosen_tasks(snapshot, role, wanted_ranks)
        if wanted_stream == "system" or snapshot.state.ended:
            lines = _kept(handle, tasks, wanted_stream, tail, raw)
        else:
            lines = _live(handle, tasks, wanted_stream, tail, follow, raw)
        for task, source, text in lines:
            if not matches(text):
                continue
            if output.json:
                output.document({"schema": SCHEMA, "task": task, "stream": source, "text": text}, lines=True)
            else:
                output.data(prefixed(task, text))
    return 0


def chosen_tasks(snapshot: JobSnapshot, role: str | None, ranks: frozenset[int] | None) -> tuple[str, ...]:
    """The names of the tasks that are meant; none at all means every task. Raises UsageError when none fits."""
    if role is None and ranks is None:
        return ()
    names = [task.task for task in snapshot.tasks]
    if not names:
        # Nothing is known of the tasks yet: roles and indexes are enough to name them.
        if role is not None and ranks is not None:
            return tuple(f"{role}:{index}" for index in sorted(ranks))
        raise UsageError(
            [Problem("--role" if role else "--rank", "the job's tasks are not known yet. Try again later.")]
        )
    roles = list(dict.fromkeys(TaskId.parse(name).role for name in names))
    if role is not None and role not in roles:
        raise UsageError([Problem("--role", "no such role.", role, hint=f"Roles: {', '.join(roles)}.")])
    if role is not None:
        names = [name for name in names if TaskId.parse(name).role == role]
        found = [name for name in names if ranks is None or TaskId.parse(name).index in ranks]
    else:
        assert ranks is not None
        found = [name for place, name in enumerate(_by_rank(snapshot)) if place in ranks]
    if not found:
        raise UsageError([Problem("--rank", "no task has such a rank.", hint=f"There are {len(names)} tasks.")])
    return tuple(found)


def _by_rank(snapshot: JobSnapshot) -> list[str]:
    """Task names by the rank that their scripts see: chief, workers, then other tracked roles."""
    from tony.frameworks.layout import AUXILIARY

    training = [
        task.task for task in snapshot.tasks if task.tracked and TaskId.parse(task.task).role not in AUXILIARY
    ]
    first = {"chief": 0, "worker": 1}
    return sorted(training, key=lambda name: first.get(TaskId.parse(name).role, 2))


def _live(
    handle: JobHandle, tasks: tuple[str, ...], stream: str, tail: int | None, follow: bool, raw: bool
) -> Iterator[LogText]:
    lines, heard = Lines(raw), False
    for chunk in handle.output(tasks, stream, -1 if tail is None else tail, follow):
        heard = True
        yield from lines.feed(chunk.task, chunk.stream, chunk.data, chunk.dropped)
    yield from lines.end()
    if not heard and handle.snapshot().state.ended:
        # It ended before its executors could be heard.
        yield from _kept(handle, tasks, stream, tail, raw)


def _kept(handle: JobHandle, tasks: tuple[str, ...], stream: str, tail: int | None, raw: bool) -> Iterator[LogText]:
    found = kept_lines(handle, tasks, stream, raw)
    if tail is None:
        yield from found
        return
    last: dict[str, deque[LogText]] = {}
    for line in found:
        last.setdefault(line[0], deque(maxlen=tail)).append(line)
    for ends in last.values():
        yield from ends


def kept_lines(
    handle: JobHandle, tasks: tuple[str, ...] = (), stream: str = "", raw: bool = False
) -> Iterator[LogText]:
    """The kept output of a finished job, by task where that is known."""
    carried = handle.containers()
    for line in handle.logs():
        source = next((name for name in ("stdout", "stderr") if line.stream.startswith(f"{name}.log")), "system")
        task = carried.get(line.container_id)
        if source != (stream or source) or (source == "system" and stream != "system"):
            continue
        if tasks and task not in tasks:
            continue
        text = line.text if raw else safe(line.text)
        name = task or line.container_id
        yield (f"{name} {line.stream}" if source == "system" else name), source, text


def ranks_of(text: str | None) -> frozenset[int] | None:
    """``0,3-5`` → {0, 3, 4, 5}. Raises UsageError."""
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})(?:-([0-9]{1,6}))?\s*", part)
        if match is None or (match[2] is not None and int(match[2]) - int(match[1]) > _MOST_RANKS):
            raise UsageError([Problem("--rank", "must be a list like 0,3-5.", text)])
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def _pattern(text: str | None) -> Callable[[str], bool]:
    if text is None:
        return lambda _: True
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError([Problem("--grep", f"not a regular expression: {error}.", text)]) from error
    return lambda line: pattern.search(line) is not None
