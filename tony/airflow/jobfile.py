"""The operator's `job_file`: a path whose file is rendered like a template, YAML text, or plain values.

Airflow's own way, `template_ext`, would read a file for every word of every parameter that ends in ``.yaml``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

Document = str | Mapping[str, Any]

INLINE = Path("job_file")
"""What messages call a job file that is not a file."""
_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class JobFile:
    """`path` where there is a file; `document` what stands in it, None when it could not be read."""

    path: Path
    document: Document | None

    @classmethod
    def found(cls, name: str, folders: Iterable[Path]) -> JobFile | None:
        """The file of that name in the first folder that has it; None when none has."""
        for folder in folders:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                return cls(folder / name, (folder / name).read_text("utf-8-sig"))
        return None


def is_path(given: object) -> TypeGuard[str]:
    """Whether a text names a job file instead of being one."""
    return isinstance(given, str) and "\n" not in given and given.strip().endswith(_ENDINGS)
