"""`tony cluster start|stop|status|logs`: the local Hadoop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.errors import Unreachable
from tony.localcluster.cluster import ClusterStatus, LocalCluster
from tony.localcluster.follow import follow
from tony.localcluster.settings import NO_POLICY, chosen_settings
from tony.units import format_duration, parse_memory_mb
from tony.yarn import running_driver, start_driver, stop_driver

_STATUS_SCHEMA = "tony.cluster.status/1"
_LOG_SCHEMA = "tony.cluster.log/1"
_NOT_RUNNING = 5
_LINES_OF_ALL = 10


@click.group()
def cluster() -> None:
    """A real one-machine YARN and HDFS on this computer, for development and tests.

    It listens on the loopback address only, runs as you and asks nobody for a password: whoever can log in to this
    machine can use it, in your name.
    """


@cluster.command(cls=TonyCommand)
@click.option("--nodes", type=int, metavar="N", help="NodeManagers. Default 1.")
@click.option("--memory", metavar="SIZE", help="Total of all nodes. Default 12g, or 60 % of the machine's memory.")
@click.option("--vcores", type=int, metavar="N", help="Total of all nodes. Default 16 per node.")
@click.option("--gpus", type=int, metavar="N", help="Total of all nodes; counted, not isolated. Default 0.")
@click.option("--queues", metavar="A,B", help="Names of the queues. Default: default.")
@click.option("--label", "labels", multiple=True, metavar="N=NAME", help="Label node N (from 1). Repeat; or: none.")
@click.option("--port-base", type=int, metavar="PORT", help="First of the ports. Default: free ones are chosen.")
@click.option("--docker/--no-docker", default=None, help="Let tasks run in Docker images. See below.")
@click.option("--docker-policy", metavar="FILE", help="What is allowed to images; none: everything.")
def start(
    nodes: int | None,
    memory: str | None,
    vcores: int | None,
    gpus: int | None,
    queues: str | None,
    labels: tuple[str, ...],
    port_base: int | None,
    docker: bool | None,
    docker_policy: str | None,
) -> None:
    """Start the local cluster, or replace daemons of it that have died.

    --memory, --vcores and --gpus are totals, split evenly over the nodes. What is not given stays as it was at the
    last start. GPUs are counted by the scheduler, so that requests for them queue up as on a big cluster; they need
    not exist, and containers are not kept from each other's devices.

    With --docker, YARN's own Docker runtime starts tasks that ask for an image in the Docker engine of this machine.
    The native program that does the last step on a production cluster is replaced by one of ours: users are not
    separated, memory and cores are not limited by cgroups, and whoever may use the Docker engine is as good as root
    here. It is for development on one machine, never for a cluster of several users.

    Needs Java 17 or newer. The first start fetches Hadoop (100 MB) with Maven.
    """
    local = LocalCluster.default()
    settings = chosen_settings(
        nodes=nodes,
        memory_mb=_memory_mb(memory),
        vcores=vcores,
        gpus=gpus,
        queues=tuple(name.strip() for name in queues.split(",")) if queues is not None else None,
        labels=_labels(labels),
        port_base=port_base,
        docker=docker,
        docker_policy=_policy(docker_policy),
        earlier=local.earlier_settings(),
    )
    status = local.start(settings, _tell)
    _keep_driver(local)
    if _json():
        _print_json(status_document(status))
        return
    _tell(f"  web page       {status.rm_url}")
    _tell("  submit a job   tony submit --workers 2 train.py")
    _tell("  look at it     tony cluster status")
    _tell("  end it         tony cluster stop        (files in its HDFS are kept)")


@cluster.command(cls=TonyCommand)
@click.option("--delete-data", is_flag=True, help="Also delete its HDFS, finished applications and logs.")
def stop(delete_data: bool) -> None:
    """Stop the local cluster. Its files and settings are kept for the next start."""
    local = LocalCluster.default()
    began = time.monotonic()
    if running_driver(local.conf_dir) is not None:
        stop_driver()
    report = local.delete(_tell) if delete_data else local.stop(_tell)
    if _json():
        _print_json({"schema": "tony.cluster.stop/1", "daemons": report.daemons, "strays": report.strays})
    elif report.daemons or report.strays:
        _tell(f"stopped in {time.monotonic() - began:.1f} s")
    else:
        _tell("the local cluster was not running")
    if delete_data and not _json():
        _tell(f"deleted what was in {local.home}")


@cluster.command(cls=TonyCommand)
@click.pass_context
def status(context: click.Context) -> None:
    """Show the local cluster. The exit code is 0 when all of it is running, else 5."""
    found = LocalCluster.default().status()
    if _json():
        _print_json(status_document(found))
    else:
        click.echo("\n".join(status_lines(found, time.time())))
    if not found.running:
        context.exit(_NOT_RUNNING)


@cluster.command(cls=TonyCommand)
@click.argument("daemon", required=False)
@click.option("--tail", "lines", type=click.IntRange(0, 100_000), default=50, show_default=True, metavar="N")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what is written from now on.")
def logs(daemon: str | None, lines: int, following: bool) -> None:
    """Show the log of a DAEMON (namenode, resourcemanager, nodemanager-1, ...), or the end of all logs.

    The output of your jobs is elsewhere: tony logs JOB.
    """
    local = LocalCluster.default()
    if daemon is None:
        if following:
            raise click.UsageError("name a daemon to follow: " + ", ".join(local.daemon_names()))
        names = local.daemon_names()
        if not names and not _json():
            _tell("the local cluster was never started; start it: tony cluster start")
        for name in names:
            if not _json():
                click.echo(f"==> {name}: {local.log_file(name)}")
            for line in local.logs(name, min(lines, _LINES_OF_ALL)):
                _print_line(name, line)
        return
    for line in follow(local.log_file(daemon), lines) if following else local.logs(daemon, lines):
        _print_line(daemon, line)


def status_lines(status: ClusterStatus, now: float) -> list[str]:
    """The status for people. `now` is seconds since the epoch."""
    if status.settings is None:
        return ["never started", "  start it   tony cluster start"]
    if not status.daemons:
        return [f"stopped (last: {status.settings.summary()})", "  start it   tony cluster start"]
    age = f" for {format_duration(now - status.started_at)}" if status.started_at else ""
    if status.running:
        head = f"running{age}"
    elif len(status.dead) == len(status.daemons):
        head = "not running, though nobody stopped it"
    else:
        head = f"broken, {', '.join(status.dead) or 'a daemon'} not running"
    lines = [f"{head}: {status.settings.summary()}"]
    for daemon in status.daemons:
        state = f"{daemon.memory_mb:>5} MB" if daemon.alive else "   dead, see: tony cluster logs " + daemon.name
        lines.append(f"  {daemon.name:<16} pid {daemon.pid:<8}{state}")
    if status.active_nodes is not None:
        lines.append(
            f"  {status.active_nodes} of {status.settings.nodes} nodes active, "
            f"{status.running_applications or 0} applications running"
        )
    lines += [
        f"  web page         {status.rm_url}",
        f"  file system      {status.hdfs_url}",
        f"  for other tools  export HADOOP_CONF_DIR={status.conf_dir} PATH={status.bin_dir}:$PATH",
    ]
    if not status.running:
        lines.append("  repair it        tony cluster start")
    return lines


def status_document(status: ClusterStatus) -> dict[str, Any]:
    """The status as one JSON document."""
    return {
        "schema": _STATUS_SCHEMA,
        "running": status.running,
        "settings": status.settings.to_record() if status.settings else None,
        "conf_dir": str(status.conf_dir),
        "bin_dir": str(status.bin_dir),
        "rm_url": status.rm_url,
        "webhdfs_url": status.webhdfs_url,
        "hdfs_url": status.hdfs_url,
        "active_nodes": status.active_nodes,
        "running_applications": status.running_applications,
        "started_at": status.started_at,
        "daemons": [
            {"name": item.name, "pid": item.pid, "alive": item.alive, "memory_mb": item.memory_mb}
            for item in status.daemons
        ],
    }


def _keep_driver(local: LocalCluster) -> None:
    """Keep a submit driver warm, which saves each submit the start of a JVM. Submits work without it too."""
    try:
        start_driver(local.conf_dir, local.bin_dir, local.home / "driver")
    except Unreachable as error:
        _tell(f"  no submit driver is kept ready: {error.message}")


def _memory_mb(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_memory_mb(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is {error}", param_hint="--memory") from None


def _policy(text: str | None) -> str | None:
    return text if text is None or text == NO_POLICY else str(Path(text).absolute())


def _labels(given: tuple[str, ...]) -> tuple[tuple[int, str], ...] | None:
    if not given:
        return None
    if given == ("none",):
        return ()
    pairs = []
    for item in given:
        node, _, name = item.partition("=")
        if not node.isdecimal() or not name:
            raise click.BadParameter(f"{item!r} is not NODE=NAME, like 1=gpu", param_hint="--label")
        pairs.append((int(node), name))
    return tuple(sorted(pairs))


def _invocation() -> Invocation:
    return click.get_current_context().find_object(Invocation) or Invocation()


def _json() -> bool:
    return _invocation().output.json


def _tell(line: str) -> None:
    """Progress and advice: for people, so on stderr."""
    if not _invocation().output.quiet:
        click.echo(line, err=True)


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document))


def _print_line(daemon: str, line: str) -> None:
    if _json():
        _print_json({"schema": _LOG_SCHEMA, "daemon": daemon, "line": line})
    else:
        click.echo(line)
