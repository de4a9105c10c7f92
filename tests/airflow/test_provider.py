"""What Airflow finds of the provider, and what its connection means."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from tony.airflow import get_provider_info
from tony.airflow.hook import Place, TonyHook
from tony.clusters import LOCAL
from tony.config.layers import Request, gather
from tony.errors import UsageError


def test_the_entry_point_leads_to_the_description() -> None:
    (found,) = (one for one in entry_points(group="apache_airflow_provider") if one.value.startswith("tony."))
    assert found.load() is get_provider_info


def test_the_description_obeys_airflows_schema() -> None:
    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(get_provider_info())), schema)


def class_paths(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [path for one in value.values() for path in class_paths(one)]
    if isinstance(value, list):
        return [path for one in value for path in class_paths(one)]
    return [value] if isinstance(value, str) and value.startswith("tony.airflow") else []


def test_everything_that_the_description_names_is_there() -> None:
    paths = class_paths(get_provider_info())
    assert len(paths) == 9
    for path in paths:
        module, _, name = path.rpartition(".")
        if name in ("hook", "operator", "sensor", "trigger"):
            importlib.import_module(path)
        else:
            assert callable(getattr(importlib.import_module(module), name))


def test_neither_the_description_nor_the_client_loads_airflow() -> None:
    code = (
        "import sys, tony.airflow, tony.client, tony.airflow.reaper, tony.cli.main; tony.airflow.get_provider_info();"
        "sys.exit('airflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_field_of_the_form_is_one_that_the_hook_reads() -> None:
    (kind,) = get_provider_info()["connection-types"]
    extra = dict.fromkeys(kind["conn-fields"], "x")
    place = Place.of(Connection(conn_id="c", conn_type="tony", host="local", extra=json.dumps(extra)))
    assert place == Place("connection c", "local", *["x"] * 6)


def test_a_field_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        Place.of(Connection(conn_id="c", conn_type="tony", extra='{"quene": "a"}'))
    (problem,) = caught.value.problems
    assert (problem.key, problem.origin, problem.hint) == ("quene", "connection c", "Did you mean 'queue'?")


def test_a_uri_is_enough_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TONY_DEFAULT", "tony://local?queue=research&namespace=staging")
    hook = TonyHook()
    assert (hook.place.queue, hook.place.namespace, hook.address) == ("research", "staging", LOCAL)


def test_a_connection_may_bring_its_hadoop_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PROD", "tony://?conf_dir=%2Fetc%2Fprod&storage=hdfs%3A%2F%2Fnn%2Fx")
    address = TonyHook("prod").address
    assert (address.called, address.conf_dir, address.storage) == ("connection prod", "/etc/prod", "hdfs://nn/x")


def test_what_a_task_or_its_job_file_names_comes_before_the_connection() -> None:
    settings = gather(Request(flags={"cluster": ["local"]}))
    assert Place("connection c", conf_dir="/etc/prod").address(settings) == LOCAL
    assert Place("connection c", conf_dir="/etc/prod").address(gather(Request()), "local") == LOCAL


def test_only_the_default_connection_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: None
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert TonyHook().address.conf_dir == str(tmp_path)
    with pytest.raises(AirflowNotFoundException, match="no_such"):
        _ = TonyHook("no_such").place


def test_the_button_that_tests_a_connection_asks_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: None
) -> None:
    monkeypatch.setenv("TONY_STATE_DIR", str(tmp_path))
    assert TonyHook(cluster="local").test_connection() == (True, "local answers; 1 nodes are up")
    good, said = TonyHook(cluster="nowhere").test_connection()
    assert not good and "no such cluster" in said
