"""Buttons of a task in Airflow's web interface that lead to its job."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperatorLink

from tony.clusters import Address
from tony.errors import TonyError
from tony.hadoop import HadoopConf

_APPLICATION = re.compile(r"application_(\d+_\d+)")


class _JobLink(BaseOperatorLink):
    """A URL that the task leaves in XCom, from where the web interface takes it; empty until there is one."""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL. Asked by the worker when the task ends or defers, to be stored again."""
        known: Mapping[str, str] = getattr(operator, "links", None) or {}
        return known.get(self.xcom_key, "")


class TonyYarnLink(_JobLink):
    """The application's page in the resource manager."""

    name = "YARN application"


class TonyLogsLink(_JobLink):
    """The page of the application's containers, each with its logs, while it runs and afterwards."""

    name = "Logs"


class TonyBoardLink(_JobLink):
    """TensorBoard, where the job offers one."""

    name = "TensorBoard"


LINKS = (TonyYarnLink(), TonyLogsLink(), TonyBoardLink())


def links_of(application_id: str, address: Address, offered: Mapping[str, str]) -> dict[str, str]:
    """The URLs that are known of a job, by the key under which XCom keeps them. `offered`: its own pages by kind."""
    found = {}
    number = _APPLICATION.fullmatch(application_id)
    manager = _manager(address)
    if number is not None and manager:
        found[TonyYarnLink().xcom_key] = f"{manager}/cluster/app/{application_id}"
        found[TonyLogsLink().xcom_key] = f"{manager}/cluster/appattempt/appattempt_{number[1]}_000001"
    if "tensorboard" in offered:
        found[TonyBoardLink().xcom_key] = offered["tensorboard"]
    return found


def _manager(address: Address) -> str:
    """The resource manager's web address: of several the first, which sends browsers on to the active one."""
    if address.local:
        return ""
    with contextlib.suppress(TonyError, OSError):
        addresses = HadoopConf.load(address.conf_dir).rm_web_addresses()
        return addresses[0].rstrip("/") if addresses else ""
    return ""
