"""What can be seen from outside of Airflow: the resource manager's list of applications, and the shared storage."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests

from tony.airflow.identity import Identity
from tony.hadoop import HadoopConf
from tony.storage import Storage

ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})


@dataclass(frozen=True)
class Application:
    """As the resource manager tells it."""

    id: str
    state: str
    final: str
    tags: frozenset[str]

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in ENDED


class World:
    """The test's own eyes: nothing here asks Airflow or the provider."""

    def __init__(self, conf_dir: Path | str) -> None:
        conf = HadoopConf.load(conf_dir)
        self._rm = conf.rm_web_addresses()[0]
        self._session = requests.Session()
        self._session.trust_env = False
        self.storage = Storage(conf.storage_base(getpass.getuser()))

    def close(self) -> None:
        """Close connections."""
        self._session.close()
        self.storage.close()

    def applications(self, tag: str | None = None) -> list[Application]:
        """All that the resource manager remembers, or those with the tag."""
        query = {"applicationTags": tag} if tag else {}
        told = self._session.get(f"{self._rm}/ws/v1/cluster/apps", params=query, timeout=10).json()
        apps = (told.get("apps") or {}).get("app") or []
        found = [
            Application(
                app["id"],
                app["state"],
                app["finalStatus"],
                frozenset(str(app.get("applicationTags", "")).split(",")),
            )
            for app in apps
        ]
        return sorted((one for one in found if tag is None or tag in one.tags), key=lambda one: one.id)

    def live(self) -> list[Application]:
        """Those that have not ended."""
        return [one for one in self.applications() if not one.ended]

    def claimed(self, key_tag: str) -> bool:
        """Whether somebody has the claim for that key now."""
        return self.storage.exists(f"keys/{key_tag}")

    def verdict(self, application_id: str) -> bool:
        """Whether the job's own master has said how it ended."""
        return self.storage.exists(f"jobs/{application_id}/verdict.json")


def identity(dag: str, run: str, retries: int) -> Identity:
    """Of the first tries of a task ``job``, before anybody has cleared it."""
    instance: Any = SimpleNamespace(
        dag_id=dag, task_id="job", run_id=run, map_index=-1, try_number=1, max_tries=retries
    )
    return Identity.of(instance, retries)


def wait_for(look: Callable[[], Any], what: str, timeout_s: float = 90.0, pause_s: float = 0.02) -> Any:
    """The first true value of `look`, within a bounded time."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(pause_s)
    return found
