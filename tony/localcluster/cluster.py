"""The local cluster as one object: start, stop, status, logs."""

from __future__ import annotations

import fcntl
import getpass
import grp
import os
import pwd
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tony.errors import Refused, TonyError, UsageError
from tony.localcluster import conf, daemons, engine, jars, leftovers, namenode, record, rest, shim
from tony.localcluster.daemons import Pid
from tony.localcluster.java import Java, find_java
from tony.localcluster.launch import wait_healthy
from tony.localcluster.ports import Ports, choose, listening_ports
from tony.localcluster.record import ClusterRecord
from tony.localcluster.settings import ClusterSettings
from tony.localcluster.status import ClusterStatus, DaemonStatus, StopReport
from tony.paths import private_folder, state_dir

STOP_GRACE_S = 15.0
_ABANDON_GRACE_S = 4.0  # a start that failed: there is nothing to save
LEFTOVER_GRACE_S = 5.0
_NAMED_SAFELY = re.compile(r"/[A-Za-z0-9_./@+=-]*")

__all__ = ["ClusterSettings", "ClusterStatus", "DaemonStatus", "LocalCluster", "StopReport"]

Progress = Callable[[str], None]


class LocalCluster:
    """A one-machine Hadoop whose data, configuration and logs live in `home`.

    Any number of them can exist, each with its own home and ports. All methods may be called from any process of
    the user; `start`, `stop` and `delete` exclude each other by a lock in the home.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()

    @classmethod
    def default(cls) -> LocalCluster:
        """The user's own cluster."""
        return cls(state_dir() / "cluster")

    @property
    def conf_dir(self) -> Path:
        """A HADOOP_CONF_DIR for clients."""
        return self.home / "conf"

    @property
    def bin_dir(self) -> Path:
        """Holds the commands `yarn`, `hdfs`, `hadoop`."""
        return self.home / "bin"

    @property
    def jars_dir(self) -> Path:
        known = record.read(self.home)
        return known.jars_dir if known else jars.jars_folder()

    @property
    def rm_url(self) -> str:
        """The ResourceManager's web address. Raises TonyError if this cluster was never started."""
        return self._known().rm_url

    @property
    def webhdfs_url(self) -> str:
        """The NameNode's web address, with WebHDFS below ``/webhdfs/v1``. Raises TonyError as `rm_url` does."""
        return self._known().webhdfs_url

    @property
    def hdfs_url(self) -> str:
        """The file system's address, ``hdfs://…``. Raises TonyError if this cluster was never started."""
        return self._known().hdfs_url

    def start(self, settings: ClusterSettings, progress: Progress | None = None) -> ClusterStatus:
        """Bring the cluster up and wait until it is healthy; daemons that died are replaced, living ones stay.

        Blocks: about ten seconds, the first time as long as Maven takes. Raises UsageError for impossible settings,
        Refused when it runs already with other settings or something is missing on this machine, TonyError when a
        daemon dies or takes too long; then everything that this call started has been ended.
        """
        tell = progress or _silence
        problems = settings.problems()
        if problems:
            raise UsageError(problems)
        self._check_paths()
        began = time.monotonic()
        with self._lock():
            known = record.read(self.home)
            living = {name: pid for name, pid in known.pids.items() if pid.alive()} if known else {}
            if known and living:
                different = known.settings.differences(settings)
                if different:
                    raise Refused(
                        f"the local cluster is running with other settings: {', '.join(different)}",
                        "stop it first: tony cluster stop",
                    )
                if len(living) == len(daemons.daemon_names(settings.nodes)):
                    wait_healthy(self.home, known.ports, known.pids, {}, tell)
                    tell(f"already running: {known.settings.summary()}")
                    return self.status()
                tell("replacing " + ", ".join(sorted(set(daemons.daemon_names(settings.nodes)) - set(living))))
            if settings.docker:
                engine.check()
            java = find_java()
            folder = jars.fetch(java.home, tell)
            self._end_unknown_daemons(living)
            ports = known.ports if known and living else self._choose_ports(settings, known, tell)
            fresh = ClusterRecord(
                settings=settings,
                port_base=ports.base,
                jars_dir=folder,
                java_home=java.home,
                hadoop_version=jars.hadoop_version(),
                started_at=known.started_at if known and living else time.time(),
                pids=MappingProxyType(living),
            )
            self._write_files(fresh, java)
            namenode.format_once(self.home, folder, java, tell)
            self._launch(fresh, java, tell)
            tell(f"healthy in {time.monotonic() - began:.1f} s: {settings.summary()}")
        return self.status()

    def stop(self, progress: Progress | None = None) -> StopReport:
        """End all daemons, containers first, and every stray process of them. Data stays. May be called twice.

        Blocks about four seconds, at most about forty.
        """
        tell = progress or _silence
        if not self.home.is_dir():
            return StopReport(0, 0)
        with self._lock():
            known = record.read(self.home)
            living = {name: pid for name, pid in known.pids.items() if pid.alive()} if known else {}
            self._warn_of_applications(known, living, tell)
            nodes = [pid for name, pid in living.items() if name.startswith("nodemanager")]
            if living:
                tell("stopping " + ", ".join(living))
            # NodeManagers first: they end their containers and upload the logs, for which HDFS must be up.
            daemons.end(nodes, STOP_GRACE_S)
            daemons.end([pid for pid in living.values() if pid not in nodes], STOP_GRACE_S)
            if known and known.settings.docker and (left := engine.remove_containers(self.home)):
                tell(f"removed {left} Docker container(s) of this cluster")
            strays = leftovers.find(self.home)
            if strays:
                tell(f"ending {len(strays)} stray process(es) of this cluster")
                daemons.end(strays, LEFTOVER_GRACE_S)
            if known:
                record.write(self.home, replace(known, pids=MappingProxyType({})))
        return StopReport(len(living), len(strays))

    def delete(self, progress: Progress | None = None) -> StopReport:
        """Stop, and remove everything that the cluster holds: HDFS, finished applications, logs, configuration."""
        report = self.stop(progress)
        if self.home.is_dir():
            with self._lock():
                for name in ("data", "logs", "conf", "bin"):
                    shutil.rmtree(self.home / name, ignore_errors=True)
                (self.home / record.FILE).unlink(missing_ok=True)
        return report

    def status(self) -> ClusterStatus:
        """What is known now. Takes milliseconds, a few seconds when a daemon hangs; never starts anything."""
        known = record.read(self.home)
        if known is None:
            return ClusterStatus(False, self.home, self.conf_dir, self.bin_dir)
        found = tuple(DaemonStatus.of(name, pid) for name, pid in known.pids.items())
        alive = {daemon.name for daemon in found if daemon.alive}
        # Ask only when our own daemon sits on the port: another cluster may have it by now.
        manager = known.pids.get("resourcemanager")
        ours = manager is not None and manager.alive() and known.ports.rm_http in listening_ports(manager.pid)
        health = rest.health(known.ports) if ours else None
        return ClusterStatus(
            running=bool(found) and len(alive) == len(daemons.daemon_names(known.settings.nodes)),
            home=self.home,
            conf_dir=self.conf_dir,
            bin_dir=self.bin_dir,
            settings=known.settings,
            rm_url=known.rm_url,
            webhdfs_url=known.webhdfs_url,
            hdfs_url=known.hdfs_url,
            daemons=found,
            active_nodes=health.active_nodes if health else None,
            running_applications=health.running_applications if health else None,
            started_at=known.started_at if found else None,
        )

    def logs(self, name: str, lines: int = 50) -> list[str]:
        """The last lines of a daemon's log. Raises UsageError for a daemon that this cluster does not have."""
        return daemons.last_lines(self.log_file(name), lines)

    def log_file(self, name: str) -> Path:
        """Where a daemon logs; what the JVM itself printed, if its log does not exist. Raises UsageError."""
        names = self.daemon_names()
        if name not in names:
            raise UsageError(f"no daemon {name!r} in this cluster", f"there are: {', '.join(names)}")
        log = daemons.log_file(self.home, name)
        return log if log.exists() else daemons.out_file(self.home, name)

    def daemon_names(self) -> tuple[str, ...]:
        """The daemons that this cluster has (or had, when it is stopped)."""
        known = record.read(self.home)
        return daemons.daemon_names(known.settings.nodes) if known else ()

    def earlier_settings(self) -> ClusterSettings | None:
        """The settings of the last start, None before the first."""
        known = record.read(self.home)
        return known.settings if known else None

    def _known(self) -> ClusterRecord:
        known = record.read(self.home)
        if known is None:
            raise TonyError("the local cluster was never started", "start it: tony cluster start")
        return known

    def _check_paths(self) -> None:
        for what, path, variable in (
            ("state folder", self.home, "TONY_STATE_DIR"),
            ("cache folder", jars.jars_folder(), "TONY_CACHE_DIR"),
        ):
            if not _NAMED_SAFELY.fullmatch(str(path)):
                raise Refused(
                    f"Hadoop cannot use the {what} {path}: only letters, digits and _ . / @ + = - may be in its path",
                    f"choose another place with {variable}",
                )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or stop at a time. The kernel frees the lock when its holder dies."""
        private_folder(self.home)
        with (self.home / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip()
                raise Refused(
                    "another start or stop of this cluster is in progress" + (f" (pid {pid})" if pid else ""),
                    "wait for it, then look: tony cluster status",
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)

    def _choose_ports(self, settings: ClusterSettings, known: ClusterRecord | None, tell: Progress) -> Ports:
        remembered = known.port_base if known else None
        ports = choose(self.home, settings.nodes, wanted=settings.port_base, remembered=remembered)
        if remembered is not None and settings.port_base is None and ports.base != remembered:
            tell(f"the ports of the last start are taken now; using {ports.base} and up instead of {remembered}")
        return ports

    def _end_unknown_daemons(self, living: dict[str, Pid]) -> None:
        """Daemons of this home that no record names hold its ports and data. Containers stay: they are recovered."""
        recorded = {pid.pid for pid in living.values()}
        strays = leftovers.find(self.home, daemons_only=True)
        daemons.end([pid for pid in strays if pid.pid not in recorded], LEFTOVER_GRACE_S)

    def _write_files(self, fresh: ClusterRecord, java: Java) -> None:
        for folder in (self.conf_dir, self.home / "logs", self.home / "data" / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        user = user_name()
        extra: dict[str, str] = {}
        if fresh.settings.docker:
            policy = fresh.settings.docker_policy
            engine.install(self.bin_dir, self.home, Path(policy) if policy else None)
            extra = engine.properties(self.bin_dir, user, _group_name(), os.getuid())
        texts = conf.files(
            self.home, fresh.jars_dir, fresh.ports, fresh.settings, user=user, user_home=str(Path.home()), yarn=extra
        )
        conf.write(self.conf_dir, texts)
        tmp = self.home / "data" / "tmp"
        shim.write(self.bin_dir, conf=self.conf_dir, jars=fresh.jars_dir, java=java.command, tmp=tmp)

    def _launch(self, fresh: ClusterRecord, java: Java, tell: Progress) -> None:
        """Start what is missing and wait for health; on any failure end what was started here."""
        missing = [name for name in daemons.daemon_names(fresh.settings.nodes) if name not in fresh.pids]
        before = dict(fresh.pids)
        pids = dict(before)
        tell(f"starting {', '.join(missing)}")
        env = daemons.environment(self.home, java.home, os.environ)
        offsets = {name: _size(daemons.log_file(self.home, name)) for name in missing}
        try:
            for name in missing:
                line = daemons.command(java.command, self.home, fresh.jars_dir, fresh.ports, name)
                pids[name] = daemons.spawn(line, self.home, name, env)
                # Recorded at once: if we die now, the next command still finds it.
                record.write(self.home, replace(fresh, pids=MappingProxyType(_ordered(pids, fresh.settings.nodes))))
            wait_healthy(self.home, fresh.ports, pids, offsets, tell)
            user = user_name()
            rest.make_folder(fresh.ports, "/tmp", "1777", user)
            rest.make_folder(fresh.ports, f"/user/{user}", "755", user)
            rest.set_labels(fresh.ports, dict(fresh.settings.labels), fresh.settings.nodes)
        except BaseException:
            daemons.end([pids[name] for name in missing if name in pids], _ABANDON_GRACE_S)
            record.write(self.home, replace(fresh, pids=MappingProxyType(before)))
            raise

    def _warn_of_applications(self, known: ClusterRecord | None, living: dict[str, Pid], tell: Progress) -> None:
        if known and "resourcemanager" in living:
            count = rest.health(known.ports).running_applications
            if count:
                tell(f"{count} application(s) still running: they end with the cluster")


def user_name() -> str:
    """The name that Hadoop's Java sees: the account's, whatever USER or LOGNAME say."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()


def _group_name() -> str:
    try:
        return grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        return str(os.getgid())


def _ordered(pids: dict[str, Pid], nodes: int) -> dict[str, Pid]:
    return {name: pids[name] for name in daemons.daemon_names(nodes) if name in pids}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _silence(line: str) -> None:
    """Where progress goes when nobody watches."""
