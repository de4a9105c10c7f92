"""A Hadoop configuration folder as a value: what core-site, hdfs-site, yarn-site and resource-types say.

Read without Java: properties with `${…}` expanded, the default file system, and where the resource manager and
the name nodes answer over HTTP, with high availability or without.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from tony.errors import UsageError

_SITES = ("core-site.xml", "hdfs-site.xml", "yarn-site.xml", "resource-types.xml")
_VARIABLE = re.compile(r"\$\{([^${}\s]+)\}")
_MAX_EXPANSIONS = 20
_MAX_FILE_BYTES = 8 * 1024 * 1024
_MAX_INCLUDES = 8
_WILDCARDS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class HadoopConf:
    """The properties of one configuration folder, unexpanded; `get` expands."""

    folder: Path
    properties: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: Path | str) -> HadoopConf:
        """Read the folder's site files; those that are absent count as empty.

        Raises UsageError when the folder has neither core-site.xml nor yarn-site.xml, or a file cannot be read.
        """
        folder = Path(folder)
        present = [folder / name for name in _SITES if (folder / name).is_file()]
        if not any(path.name in ("core-site.xml", "yarn-site.xml") for path in present):
            raise UsageError(
                f"{folder} is not a Hadoop configuration folder: it has neither core-site.xml nor yarn-site.xml.",
                hint="Set HADOOP_CONF_DIR to the folder that holds them, or start a cluster with: tony cluster start",
            )
        properties: dict[str, str] = {}
        final: set[str] = set()
        for path in present:
            _read_properties(path, properties, final)
        return cls(folder.absolute(), properties, dict(os.environ))

    @classmethod
    def find(cls) -> HadoopConf | None:
        """The configuration that HADOOP_CONF_DIR, else YARN_CONF_DIR names; None when neither is set."""
        for variable in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
            if os.environ.get(variable):
                return cls.load(os.environ[variable])
        return None

    def get(self, name: str, default: str | None = None) -> str | None:
        """The property with its `${…}` expanded (other properties, ``env.X``, ``user.name``, ``user.home``)."""
        raw = self.properties.get(name)
        if raw is None:
            return default
        for _ in range(_MAX_EXPANSIONS):
            expanded = _VARIABLE.sub(self._variable, raw)
            if expanded == raw:
                break
            raw = expanded
        return raw.strip()

    def flag(self, name: str, default: bool = False) -> bool:
        """The property as a truth value; anything but true and false is the default."""
        return {"true": True, "false": False}.get((self.get(name) or "").lower(), default)

    def names(self, name: str) -> tuple[str, ...]:
        """The property as a comma-separated list."""
        return tuple(part.strip() for part in (self.get(name) or "").split(",") if part.strip())

    def site(self, name: str) -> dict[str, str]:
        """The properties of one file of the folder alone, unexpanded; empty when it is absent."""
        found: dict[str, str] = {}
        if (self.folder / name).is_file():
            _read_properties(self.folder / name, found, set())
        return found

    @property
    def default_fs(self) -> str:
        """``hdfs://host:port`` or ``hdfs://nameservice``, without a trailing slash; ``file://`` when not set."""
        value = self.get("fs.defaultFS") or self.get("fs.default.name") or "file:///"
        return value.rstrip("/") if urlsplit(value).netloc else "file://"

    @property
    def secure(self) -> bool:
        """Whether the cluster asks for Kerberos tickets."""
        return (self.get("hadoop.security.authentication") or "simple").lower() == "kerberos"

    @property
    def resource_types(self) -> tuple[str, ...]:
        """The declared resource types beside memory and vcores, such as ``yarn.io/gpu``."""
        return self.names("yarn.resource-types")

    def rm_web_addresses(self) -> tuple[str, ...]:
        """Base URLs of the resource manager's REST, ``http://host:port``, one per resource manager."""
        https = (self.get("yarn.http.policy") or "").upper() == "HTTPS_ONLY"
        scheme, key, port = ("https", "webapp.https.address", 8090) if https else ("http", "webapp.address", 8088)
        suffixes: tuple[str, ...] = ("",)
        if self.flag("yarn.resourcemanager.ha.enabled"):
            suffixes = tuple(f".{rm}" for rm in self.names("yarn.resourcemanager.ha.rm-ids")) or ("",)
        found = []
        for suffix in suffixes:
            host = self.get(f"yarn.resourcemanager.hostname{suffix}") or ""
            rpc = self.get(f"yarn.resourcemanager.address{suffix}") or ""
            known = host if host not in _WILDCARDS else _host(rpc)
            address = self.get(f"yarn.resourcemanager.{key}{suffix}")
            found.append(f"{scheme}://{_complete(address, known or 'localhost', port)}")
        return tuple(dict.fromkeys(found))

    def webhdfs_addresses(self, file_system: str | None = None) -> tuple[str, ...]:
        """``host:port`` of WebHDFS for each name node of an ``hdfs://`` file system (default: the default one).

        Empty for file systems that are not HDFS.
        """
        url = urlsplit(file_system or self.default_fs)
        if url.scheme not in ("hdfs", "webhdfs", "swebhdfs") or not url.netloc:
            return ()
        if url.scheme != "hdfs":
            return (url.netloc,)
        key, port = ("https-address", 9871) if self.webhdfs_secure else ("http-address", 9870)
        service = url.netloc
        if service in self.names("dfs.nameservices"):
            nodes = self.names(f"dfs.ha.namenodes.{service}")
            suffixes = tuple(f".{service}.{node}" for node in nodes) or (f".{service}",)
        else:
            suffixes = ("",)
        found = []
        for suffix in suffixes:
            rpc = self.get(f"dfs.namenode.rpc-address{suffix}") if suffix else service
            address = self.get(f"dfs.namenode.{key}{suffix}")
            if not suffix and file_system and file_system.rstrip("/") != self.default_fs:
                address = None
            found.append(_complete(address, _host(rpc or "") or "localhost", port))
        return tuple(dict.fromkeys(found))

    @property
    def webhdfs_secure(self) -> bool:
        """Whether WebHDFS is spoken over TLS only."""
        return (self.get("dfs.http.policy") or "").upper() == "HTTPS_ONLY"

    def home(self, user: str) -> str:
        """The user's home folder on HDFS, as a path."""
        prefix = self.get("dfs.user.home.dir.prefix") or "/user"
        return f"{prefix.rstrip('/')}/{user}"

    def storage_base(self, user: str) -> str:
        """Base URL of the user's folder on the default file system, complete without this configuration.

        ``webhdfs://host:port[,host:port]/user/NAME/.tony?fs=hdfs://authority``. Raises UsageError when the
        default file system is neither HDFS nor one that is named by a URL of its own.
        """
        addresses = self.webhdfs_addresses()
        if addresses:
            scheme = "swebhdfs" if self.webhdfs_secure else "webhdfs"
            return f"{scheme}://{','.join(addresses)}{self.home(user)}/.tony?fs={self.default_fs}"
        if self.default_fs == "file://":
            raise UsageError(
                f"fs.defaultFS is not set in {self.folder}, so there is no storage that all nodes can read.",
                hint="Set fs.defaultFS in core-site.xml, or give tony.storage.base.",
            )
        return f"{self.default_fs}{self.home(user)}/.tony"

    def _variable(self, match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("env."):
            variable, separator, default = name[4:].partition(":-" if ":-" in name else "-")
            return self.environment.get(variable) or (default if separator else "")
        system = {
            "user.name": _user_name,
            "user.home": lambda: str(Path.home()),
            "java.io.tmpdir": tempfile.gettempdir,
        }
        if name in system:
            return system[name]()
        return self.properties.get(name, match[0])


def _user_name() -> str:
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


def _host(address: str) -> str:
    """The host of ``host:port``, ``[v6]:port`` or ``host``; empty for a wildcard."""
    host = address.rpartition(":")[0] if re.search(r":\d+$", address) else address
    return "" if host.strip("[]") in _WILDCARDS else host


def _complete(address: str | None, host: str, port: int) -> str:
    """``host:port`` of an address that may lack its port or be bound to all interfaces."""
    given = re.search(r":(\d+)$", address or "")
    return f"{_host(address or '') or host}:{given[1] if given else port}"


def _read_properties(path: Path, properties: dict[str, str], final: set[str], depth: int = 0) -> None:
    """Add the file's properties; a name that an earlier file called final keeps its value."""
    for element in _parse(path):
        if element.tag.rpartition(":")[2] == "include":
            target = path.parent / element.get("href", "")
            if depth >= _MAX_INCLUDES or not target.is_file():
                raise UsageError(f"{path} includes {element.get('href')!r}, which cannot be read from here.")
            _read_properties(target, properties, final, depth + 1)
        elif element.tag == "property":
            values = {child.tag: (child.text or "") for child in element} | dict(element.attrib)
            name = values.get("name", "").strip()
            if name and "value" in values and name not in final:
                properties[name] = values["value"]
                if values.get("final", "").strip().lower() == "true":
                    final.add(name)


def _parse(path: Path) -> Element:
    """The root element. Entity declarations are refused: no site file needs them, and they can hide a bomb."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise UsageError(f"{path} declares an XML entity, which is not read.")

    parser.EntityDeclHandler = refuse
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than any Hadoop configuration file.")
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise UsageError(f"{path} is not well-formed XML: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    return builder.close()
