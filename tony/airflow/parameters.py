"""From the operator's parameters to a request, as the command line makes one of its flags."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tony.airflow.hook import Place
from tony.asked import Asked, asked_in
from tony.config import names
from tony.config.key import Key, Kind
from tony.config.keys import flags
from tony.config.layers import Given, Layer, Request, Settings, gather
from tony.errors import Problem, UsageError

_CALLED = {"tags": "tag", "roles": "role", "secrets": "secret", "yarn_queue": "queue"}
"""Parameters that are called otherwise than their flag: several values, or a name that Airflow uses itself."""
_KEYS = {key.parameter: key for key in flags()}
PARAMETERS = (
    *("framework", "workers", "ps", "chief", "evaluator", "roles", "min_workers", "max_workers", "procs_per_task"),
    *("memory", "vcores", "gpus", "am_memory"),
    *("src", "exclude", "venv", "python", "files", "image", "env", "secrets"),
    *("name", "yarn_queue", "node_label", "tags"),
    *("restart", "max_restarts", "am_attempts", "max_duration", "queue_timeout", "gang_timeout", "hang_timeout"),
    *("on_hang", "success", "checkpoint_dir", "tensorboard", "quantize"),
)
"""The parameters that are flags of ``tony submit``."""


@dataclass(frozen=True)
class Asking:
    """A task's job: `values` by parameter, and where relative paths start.

    `job_file` is the path as the dag names it; `job_document` what stands in it, rendered, or plain values.
    """

    title: str
    folder: Path
    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    script: str | None = None
    script_args: Sequence[Any] = ()
    job_file: Path | None = None
    job_document: str | Mapping[str, Any] | None = None


def asked_by(asking: Asking, place: Place) -> Asked:
    """The job. Raises UsageError with every problem.

    The connection stands where the user's own file stands on the command line. A task that says nothing of its
    Python gets that of the nodes: the environment of Airflow is not one to train in.
    """
    values = {name: value for name, value in asking.values.items() if value is not None}
    secrets = values.pop("secrets", None)
    environ: Mapping[str, str] = os.environ
    if isinstance(secrets, Mapping):
        environ = {**os.environ, **{str(name): str(value) for name, value in secrets.items()}}
    if secrets:
        values["secrets"] = secrets if isinstance(secrets, str) else list(secrets)
    request = Request(
        flags={_key(name).name: texts for name, value in values.items() if (texts := texts_of(_key(name), value))},
        sets=[f"{name}={_written(value)}" for name, value in asking.settings.items()],
        job_file=asking.job_file,
        job_document=asking.job_document,
        script=asking.script or None,
        arguments=_arguments(asking.script_args),
        environ=environ,
        folder=asking.folder,
        caller=f"of the task {asking.title}",
    )
    settings = gather(request)
    for key in ("queue", "storage", "node_python"):
        if text := getattr(place, key):
            settings.add(key, Given(text, text, place.called, Layer.USER, asking.folder))
    if settings.get("venv") is None and settings.get("python") is None:
        _default(settings, "venv", "none", asking.folder)
    if settings.get("name") is None:
        visible = "".join(c if names.unprintable(c) is None else "?" for c in asking.title)
        _default(settings, "name", visible[: names.MAX_NAME], asking.folder)
    return asked_in(settings, request)


def texts_of(key: Key, value: Any) -> list[str]:
    """A parameter's value as the words that a flag would have; none for a switch that is off."""
    if key.constant is not None or key.kind is Kind.SWITCH:
        text = str(value).lower()
        return [] if text in ("false", "0", "") else [key.constant or "true"] if text == "true" else [str(value)]
    if isinstance(value, timedelta):
        return [f"{value.total_seconds():g}s"]
    if not key.repeats:
        return [str(value)]
    if isinstance(value, Mapping):
        words = [f"{name}={one}" for name, one in value.items()]
    else:
        words = [value] if isinstance(value, str) else [str(one) for one in value]
    # A single word that looks like a list of YAML would be read as one.
    return [_written(words)] if len(words) == 1 and words[0].startswith("[") else words


def _key(name: str) -> Key:
    return _KEYS[_CALLED.get(name, name)]


def _written(value: Any) -> str:
    """On one line, as YAML reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (Mapping, list, tuple)) else str(value)


def _arguments(words: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(words, str):
        message = "must be a list of words, as they arrive in sys.argv; nothing splits a text."
        raise UsageError([Problem("script_args", message, words)])
    return tuple(str(word) for word in words)


def _default(settings: Settings, key: str, text: str, folder: Path) -> None:
    settings.add(key, Given(text, text, "default of Airflow tasks", Layer.DEFAULT, folder))
