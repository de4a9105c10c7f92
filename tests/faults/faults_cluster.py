"""The faults that only a YARN knows: its daemons, queues, limits and file system. See `tests.faults.faults`."""

from __future__ import annotations

import signal
from dataclasses import replace

from tests.faults import actions_cluster as do
from tests.faults.actions import hit
from tests.faults.fault import LONG, NEVER, OWN, SHORT, UNHURT, YARN, Fault, again, refused, trouble
from tests.faults.invariants import Expected

HALF = (
    *SHORT,
    *("--memory", "1g", "--gang-timeout", "10s"),
    *("-c", "times.gang_rounds=30", "-c", "times.backoff_min=2s", "-c", "times.backoff_max=20s"),
)
"""Of 8 GiB two masters leave room for 6 of the 8 tasks."""
MASTER_TOO = (("FAILED", "NODE_LOST", 104), ("FAILED", "AM_LOST", 104))
"""The only attempt of the master may have been on the lost node."""

CLUSTER_FAULTS: tuple[Fault, ...] = (
    Fault(
        8,
        "node lost with its containers",
        Expected(alternatives=MASTER_TOO, files_may_stay=True),
        do.kill_node(with_containers=True),
        where=OWN,
        arguments=LONG,
        limit_s=240.0,
    ),
    Fault(
        8,
        "NodeManager kill -9, its containers live on",
        Expected(alternatives=MASTER_TOO),
        do.kill_node(with_containers=False),
        where=OWN,
        arguments=("--steps", "200"),
        limit_s=240.0,
    ),
    Fault(
        9,
        "NodeManagers restarted",
        UNHURT,
        do.restarted("nodemanager", 3.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        12,
        "ResourceManager restarted",
        UNHURT,
        do.restarted("resourcemanager", 3.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        12,
        "ResourceManager restarted while the job is ended",
        Expected("KILLED", "CANCELLED", 130),
        do.cancelled_while_restarted,
        where=OWN,
        arguments=("--steps", "600"),
        limit_s=240.0,
    ),
    Fault(
        6,
        "container over its virtual memory",
        Expected("FAILED", "OUT_OF_VMEM", 107, cause="OUT_OF_VMEM", message="virtual memory"),
        arguments=trouble("map"),
        where=OWN,
        flags=NEVER,
    ),
    Fault(
        13,
        "ResourceManager restarted without its memory",
        # YARN's staging folder of an application that YARN does not know is left to `tony gc`.
        replace(refused("NoSuchJob", 102, "has lost the job"), files_may_stay=True, gone_s=60.0),
        do.emptied_resource_manager,
        where=OWN,
        arguments=("--steps", "600"),
        submits=False,
        limit_s=240.0,
    ),
    Fault(
        19,
        "two jobs that each hold half of the cluster",
        Expected(),
        do.rival(HALF),
        points=("submit",),
        where=YARN,
        flags=HALF,
        arguments=("--steps", "20"),
        limit_s=300.0,
        workers=4,
    ),
    Fault(
        20,
        "more memory than any node has",
        refused("Refused", 3, "largest node has|allows at most"),
        where=YARN,
        flags=("--memory", "1t"),
        submits=False,
    ),
    Fault(
        20,
        "more tasks than the cluster has room for",
        refused("Refused", 3, "whole cluster has"),
        where=YARN,
        flags=("--memory", "1g", "--workers", "500"),
        submits=False,
    ),
    Fault(
        20, "no such queue", refused("Refused", 3, "no such queue"), where=YARN, flags=("--queue", "x"), submits=False
    ),
    Fault(
        20,
        "no such node label",
        refused("Refused", 3, "no such node label|no node labels"),
        where=YARN,
        flags=("--node-label", "fast"),
        submits=False,
    ),
    Fault(
        21,
        "preempted for another queue",
        Expected(cause="PREEMPTED", root="", message="(?i)preempted"),
        do.crowd,
        where=OWN,
        flags=("--memory", "1500m", *SHORT),
        # So long that the other job, which starts meanwhile, finds this one still there on a slow machine.
        arguments=("--steps", "600"),
        workers=4,
        limit_s=300.0,
    ),
    Fault(
        22,
        "quota of the home on HDFS, before the submit",
        refused("PackagingError", 4, "quota of /user/.* is exceeded.*quota.*consumed"),
        where=OWN,
        prepare=do.quota(1 << 20),
        submits=False,
    ),
    Fault(
        22,
        "quota of the home on HDFS, amid the job",
        # Where nothing can be written there is no verdict that could tell of generations.
        Expected(),
        do.quota(1),
        where=OWN,
        arguments=("--steps", "150"),
    ),
    Fault(
        23,
        "NameNode gone before the submit",
        refused("Unreachable", 5, "HDFS|hdfs|WebHDFS"),
        where=OWN,
        prepare=do.gone("namenode", 0.0),
        submits=False,
    ),
    Fault(23, "safe mode for some seconds at the submit", UNHURT, where=OWN, prepare=do.safe_mode(6.0)),
    Fault(23, "safe mode amid the job", UNHURT, do.safe_mode(10.0), where=OWN, arguments=("--steps", "250")),
    Fault(
        23,
        "NameNode gone for 20 s",
        UNHURT,
        do.restarted("namenode", 20.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        23,
        "NameNode restarted",
        UNHURT,
        do.restarted("namenode", 3.0),
        where=OWN,
        arguments=("--steps", "400"),
        limit_s=240.0,
    ),
    Fault(
        38,
        "tokens of master and nodes rolled, then a new container",
        again("EXECUTOR_LOST", 2.0, 15.0, "Container failed during execution"),
        hit("executor", signal.SIGKILL),
        points=("step:1500",),
        where=OWN,
        arguments=("--steps", "1600"),
        limit_s=330.0,
    ),
)
