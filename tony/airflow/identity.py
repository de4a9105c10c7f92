"""Which task instance an application belongs to: what survives its tries, and the death of every process.

Both the tag and the key are made of what Airflow says of the task instance, so each try finds them again by itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tony.idempotency import tag_of


@dataclass(frozen=True)
class Identity:
    """`tag` stands on every application of the task instance; `key` admits one application (`tony.idempotency`)."""

    tag: str
    key: str

    @classmethod
    def of(cls, instance: Any, retries: int, durable: bool = True, namespace: str = "") -> Identity:
        """The identity of Airflow's task instance.

        The key is the same in all tries up to the next time that somebody clears the task: then Airflow raises
        `max_tries`, and `max_tries - retries` with it. Not `durable`: every try has a key of its own.
        """
        names = [namespace, instance.dag_id, instance.task_id, instance.run_id, instance.map_index]
        tries = f"try {instance.try_number}" if not durable else f"after {max(0, instance.max_tries - retries)}"
        return cls(f"tony-task-{_hash(names)}", _text([*names, tries]))

    @property
    def key_tag(self) -> str:
        """The tag by which the cluster finds the key."""
        return tag_of(self.key)


def _text(words: list[Any]) -> str:
    """ASCII without ambiguity, whatever the names hold."""
    return json.dumps(words)


def _hash(words: list[Any]) -> str:
    return hashlib.sha256(_text(words).encode()).hexdigest()[:32]
