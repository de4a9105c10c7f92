"""Jobs as tasks of Apache Airflow: hook, operator, sensors, trigger, links, ``@task.tony``.

`get_provider_info` is what Airflow reads to know of them; nothing of Airflow is imported for it.
"""

from __future__ import annotations

from typing import Any

from tony import __version__

__all__ = ["get_provider_info"]

_TEXT = {"type": ["string", "null"]}


def _field(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": _TEXT}


def get_provider_info() -> dict[str, Any]:
    """The provider's description, as Airflow's schema for it wants it."""
    parts = {"integration-name": "TonY"}
    return {
        "package-name": "tony-yarn",
        "name": "TonY",
        "description": "Distributed deep-learning training as a Hadoop YARN application",
        "versions": [__version__],
        "integrations": [parts],
        "hooks": [parts | {"python-modules": ["tony.airflow.hook"]}],
        "operators": [parts | {"python-modules": ["tony.airflow.operator"]}],
        "sensors": [parts | {"python-modules": ["tony.airflow.sensor"]}],
        "triggers": [parts | {"python-modules": ["tony.airflow.trigger"]}],
        "extra-links": [
            "tony.airflow.link.TonyYarnLink",
            "tony.airflow.link.TonyLogsLink",
            "tony.airflow.link.TonyBoardLink",
        ],
        "task-decorators": [{"name": "tony", "class-name": "tony.airflow.decorator.tony_task"}],
        "connection-types": [
            {
                "connection-type": "tony",
                "hook-class-name": "tony.airflow.hook.TonyHook",
                "hook-name": "TonY",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "password", "port", "extra"],
                    "relabeling": {"host": "Cluster"},
                    "placeholders": {
                        "host": "yarn, local, or a name of the site file; empty: as the fields below say"
                    },
                },
                "conn-fields": {
                    "conf_dir": _field(
                        "Hadoop configuration", "folder with yarn-site.xml, on workers and triggerers"
                    ),
                    "bin_dir": _field("Hadoop commands", "folder with the command yarn, where it is not on PATH"),
                    "storage": _field("Storage", "base URL of the user's folder; empty: .tony in the home on HDFS"),
                    "node_python": _field("Python of the nodes", "interpreter for tony's own processes"),
                    "queue": _field("Queue", "for tasks and job files that name none"),
                    "namespace": _field(
                        "Namespace", "tells Airflow installations apart that share dags and a user of the cluster"
                    ),
                },
            }
        ],
    }
