"""The commands `yarn`, `hdfs` and `hadoop` of the local cluster: small shell scripts in its bin folder.

skein's driver asks ``yarn classpath --glob``; people and tests want logs, application, node, rmadmin and dfs.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from tony.localcluster.conf import write_whole

NAMES = ("yarn", "hdfs", "hadoop")

_SCRIPT = """\
#!/bin/sh
# Written by `tony cluster start`; the next start overwrites it.
conf={conf}
jars={jars}
java={java}
tmp={tmp}
run() {{
    HADOOP_CONF_DIR="$conf" exec "$java" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m \\
        -Djava.net.preferIPv4Stack=true -Djava.io.tmpdir="$tmp" -cp "$conf:$jars/*" "$@"
}}
name=${{0##*/}}
command=$1
[ $# -gt 0 ] && shift
case $command in
classpath) echo "$conf:$jars/*" ;;
logs) run org.apache.hadoop.yarn.client.cli.LogsCLI "$@" ;;
application|app|applicationattempt|container)
    run org.apache.hadoop.yarn.client.cli.ApplicationCLI "$command" "$@" ;;
node) run org.apache.hadoop.yarn.client.cli.NodeCLI "$@" ;;
queue) run org.apache.hadoop.yarn.client.cli.QueueCLI "$@" ;;
cluster) run org.apache.hadoop.yarn.client.cli.ClusterCLI "$@" ;;
rmadmin) run org.apache.hadoop.yarn.client.cli.RMAdminCLI "$@" ;;
dfs|fs) run org.apache.hadoop.fs.FsShell "$@" ;;
dfsadmin) run org.apache.hadoop.hdfs.tools.DFSAdmin "$@" ;;
fsck) run org.apache.hadoop.hdfs.tools.DFSck "$@" ;;
version) run org.apache.hadoop.util.VersionInfo "$@" ;;
*)
    echo "$name: use classpath, logs, application, container, node, queue, cluster, rmadmin, dfs, dfsadmin, fsck" >&2
    exit 2 ;;
esac
"""


def write(bin_dir: Path, *, conf: Path, jars: Path, java: Path, tmp: Path) -> None:
    """Write the commands, executable by their owner."""
    bin_dir.mkdir(parents=True, exist_ok=True)
    places = {"conf": conf, "jars": jars, "java": java, "tmp": tmp}
    text = _SCRIPT.format(**{name: shlex.quote(str(path)) for name, path in places.items()})
    for name in NAMES:
        write_whole(bin_dir / name, text, mode=0o755)
