"""The configuration folder of the local cluster: one for daemons, submit driver, application masters and CLI.

`files` is pure: settings in, file name → text out. Why a value differs from Hadoop's own stands beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from xml.sax.saxutils import escape

from tony.localcluster.ports import LOOPBACK, Ports
from tony.localcluster.settings import MEMORY_STEP_MB, ClusterSettings

GPU = "yarn.io/gpu"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCHEDULER = "org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler"
_STORE = "org.apache.hadoop.yarn.server.resourcemanager.recovery.LeveldbRMStateStore"
_CALCULATOR = "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"

# Hadoop's web servers refuse to start without these folders on the class path; the pages themselves
# are not in the published jars.
WEB_FOLDERS = ("webapps/hdfs", "webapps/datanode")


def files(
    home: Path,
    jars: Path,
    ports: Ports,
    settings: ClusterSettings,
    *,
    user: str,
    user_home: str,
    yarn: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Every file of the configuration folder, name → text. `yarn` are more properties of yarn-site.xml."""
    conf, data = home / "conf", home / "data"
    named = {
        "core-site.xml": _core(data, ports, user),
        "hdfs-site.xml": _hdfs(data, ports),
        "yarn-site.xml": {**_yarn(conf, data, jars, ports, settings, user_home), **yarn},
        "capacity-scheduler.xml": _queues(settings),
        "resource-types.xml": {"yarn.resource-types": GPU},
        "node-resources.xml": {f"yarn.nodemanager.resource-type.{GPU}": str(settings.node_gpus)},
    }
    texts = {name: site_xml(properties) for name, properties in named.items()}
    texts["log4j.properties"] = _CONSOLE_LOG
    texts["daemon-log4j.properties"] = _DAEMON_LOG
    return texts


def site_xml(properties: dict[str, str]) -> str:
    """A Hadoop site file."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<configuration>"]
    for name, value in properties.items():
        lines.append(f"  <property><name>{escape(name)}</name><value>{escape(value)}</value></property>")
    lines.append("</configuration>")
    return "\n".join(lines) + "\n"


def write(conf: Path, texts: dict[str, str]) -> None:
    """Write the folder; each file appears whole or not at all."""
    for folder in WEB_FOLDERS:
        (conf / folder).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(conf / name, text)


def write_whole(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` in one step, so that a reader never meets half a file."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _core(data: Path, ports: Ports, user: str) -> dict[str, str]:
    return {
        "fs.defaultFS": f"hdfs://{LOOPBACK}:{ports.namenode_rpc}",
        "hadoop.tmp.dir": f"{data}/tmp",
        # Requests to the web interfaces act as the user who owns the cluster.
        "hadoop.http.staticuser.user": user,
    }


def _hdfs(data: Path, ports: Ports) -> dict[str, str]:
    return {
        "dfs.replication": "1",
        "dfs.namenode.name.dir": f"file://{data}/nn",
        "dfs.datanode.data.dir": f"file://{data}/dn",
        "dfs.namenode.rpc-address": f"{LOOPBACK}:{ports.namenode_rpc}",
        "dfs.namenode.http-address": f"{LOOPBACK}:{ports.namenode_http}",
        "dfs.datanode.address": f"{LOOPBACK}:{ports.datanode_data}",
        "dfs.datanode.http.address": f"{LOOPBACK}:{ports.datanode_http}",
        "dfs.datanode.ipc.address": f"{LOOPBACK}:{ports.datanode_ipc}",
        "dfs.datanode.hostname": LOOPBACK,
        "dfs.namenode.safemode.extension": "0",
        "dfs.namenode.safemode.min.datanodes": "1",
        # Stock 100 MB: below it the NameNode goes read-only.
        "dfs.namenode.resource.du.reserved": str(10 * 1024 * 1024),
        "dfs.namenode.handler.count": "4",
        "dfs.datanode.handler.count": "4",
        # Stock 400 ms is paid at the close of most small files.
        "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "20",
    }


def _yarn(
    conf: Path, data: Path, jars: Path, ports: Ports, settings: ClusterSettings, user_home: str
) -> dict[str, str]:
    memory_mb, vcores = str(settings.node_memory_mb), str(settings.node_vcores)
    return {
        "yarn.resourcemanager.hostname": LOOPBACK,
        "yarn.resourcemanager.address": f"{LOOPBACK}:{ports.rm_client}",
        "yarn.resourcemanager.scheduler.address": f"{LOOPBACK}:{ports.rm_scheduler}",
        "yarn.resourcemanager.resource-tracker.address": f"{LOOPBACK}:{ports.rm_tracker}",
        "yarn.resourcemanager.admin.address": f"{LOOPBACK}:{ports.rm_admin}",
        "yarn.resourcemanager.webapp.address": f"{LOOPBACK}:{ports.rm_http}",
        "yarn.resourcemanager.scheduler.class": _SCHEDULER,
        "yarn.resourcemanager.recovery.enabled": "true",
        "yarn.resourcemanager.store.class": _STORE,
        "yarn.resourcemanager.leveldb-state-store.path": f"{data}/rm",
        # Stock 10 s without any allocation after each start.
        "yarn.resourcemanager.work-preserving-recovery.scheduling-wait-ms": "0",
        # Stock 1000: the floor of every allocation and every exit.
        "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": "250",
        # Stock 30 s: a NodeManager that is up before the ResourceManager would lose them.
        "yarn.resourcemanager.connect.retry-interval.ms": "1000",
        # Stock 600 s until a lost node is noticed.
        "yarn.nm.liveness-monitor.expiry-interval-ms": "20000",
        "yarn.client.application-client-protocol.poll-interval-ms": "50",
        "yarn.nodemanager.hostname": LOOPBACK,
        "yarn.nodemanager.resource.memory-mb": memory_mb,
        "yarn.nodemanager.resource.cpu-vcores": vcores,
        "yarn.scheduler.minimum-allocation-mb": str(MEMORY_STEP_MB),
        "yarn.scheduler.maximum-allocation-mb": memory_mb,
        "yarn.scheduler.maximum-allocation-vcores": vcores,
        "yarn.nodemanager.vmem-check-enabled": "false",
        # "enforced" leaves memory limits to cgroups, which this executor does not use: without this line
        # nothing is ever killed for its memory.
        "yarn.nodemanager.resource.memory.enforced": "false",
        # Stock 250 ms between TERM and KILL: too short to save anything.
        "yarn.nodemanager.sleep-delay-before-sigkill.ms": "5000",
        "yarn.nodemanager.recovery.enabled": "true",
        # Stock: containers get HOME=/home/
        "yarn.nodemanager.user-home-dir": user_home,
        # Stock 90: a well filled laptop disk would make the node unhealthy.
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
        "yarn.nodemanager.env-whitelist": "JAVA_HOME,HADOOP_CONF_DIR,HADOOP_HOME,LANG,TZ",
        # A whitelisted PATH never arrives, because bash has one of its own before it would be taken. So the programs
        # that whoever starts the cluster has come after those of the system.
        "yarn.nodemanager.admin-env": f"MALLOC_ARENA_MAX=$MALLOC_ARENA_MAX,PATH={SYSTEM_PATH}:$PATH",
        "yarn.log-aggregation-enable": "true",
        "yarn.nodemanager.remote-app-log-dir": "/app-logs",
        "yarn.node-labels.enabled": "true",
        "yarn.node-labels.fs-store.root-dir": f"file://{data}/labels",
        "yarn.application.classpath": f"{conf},{jars}/*",
    }


def _queues(settings: ClusterSettings) -> dict[str, str]:
    scheduler = "yarn.scheduler.capacity"
    properties = {
        # The stock calculator counts memory alone: GPUs and vcores would be given away without end.
        f"{scheduler}.resource-calculator": _CALCULATOR,
        # Stock 0.1: on a small cluster the second application master would wait for ever.
        f"{scheduler}.maximum-am-resource-percent": "1.0",
        f"{scheduler}.node-locality-delay": "-1",
        # Stock 1: one container per node and heartbeat.
        f"{scheduler}.per-node-heartbeat.maximum-offswitch-assignments": "100",
        f"{scheduler}.root.queues": ",".join(settings.queues),
        f"{scheduler}.root.accessible-node-labels": "*",
    }
    for label in settings.label_names:
        # Without capacities for the label a request for it is accepted and waits for ever.
        properties[f"{scheduler}.root.accessible-node-labels.{label}.capacity"] = "100"
    for queue, share in zip(settings.queues, shares(len(settings.queues)), strict=True):
        name = f"{scheduler}.root.{queue}"
        properties[f"{name}.capacity"] = share
        properties[f"{name}.maximum-capacity"] = "100"
        properties[f"{name}.user-limit-factor"] = "100"
        properties[f"{name}.state"] = "RUNNING"
        properties[f"{name}.accessible-node-labels"] = "*"
        for label in settings.label_names:
            properties[f"{name}.accessible-node-labels.{label}.capacity"] = share
            properties[f"{name}.accessible-node-labels.{label}.maximum-capacity"] = "100"
    return properties


def shares(count: int) -> list[str]:
    """Equal percentages that sum to exactly 100.00, as the CapacityScheduler demands."""
    hundredths = [10000 // count] * count
    hundredths[0] += 10000 - sum(hundredths)
    return [f"{value / 100:g}" for value in hundredths]


_QUIET = """\
log4j.logger.org.apache.hadoop.util.NativeCodeLoader=ERROR
"""

_CONSOLE_LOG = (
    """\
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{yy/MM/dd HH:mm:ss} %p %c{2}: %m%n
"""
    + _QUIET
)

_DAEMON_LOG = (
    """\
log4j.rootLogger=INFO,file
log4j.appender.file=org.apache.log4j.RollingFileAppender
log4j.appender.file.File=${daemon.log}
log4j.appender.file.MaxFileSize=20MB
log4j.appender.file.MaxBackupIndex=2
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=%d{ISO8601} %p %c: %m%n
# A thousand lines at every start: one per folder of the empty block store.
log4j.logger.org.apache.hadoop.hdfs.server.datanode.fsdataset.impl.FsDatasetImpl=WARN
# One line per web request and per file operation: every status call would write some.
log4j.logger.http.requests=WARN
log4j.logger.org.apache.hadoop.hdfs.server.namenode.FSNamesystem.audit=WARN
"""
    + _QUIET
)
