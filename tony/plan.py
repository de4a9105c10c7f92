"""What a submit will do, as a value that can be printed before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tony.spec import JobRecord, JobSpec, Upload


@dataclass(frozen=True)
class PlannedUpload:
    """An archive that lies at `path` on this machine and goes to shared storage unless it is there already."""

    upload: Upload
    path: str
    what: str


@dataclass(frozen=True)
class Plan:
    """A job, the archives it needs, and where it will run. Nothing of it has left this machine."""

    job: JobSpec
    cluster: str
    record: JobRecord
    uploads: tuple[PlannedUpload, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobSecrets:
    """What must never be in a command line, an environment, a log or the history.

    PEM texts of the application's certificate and key, the key that the job's owner shows, and the user's
    secrets by name. Reaches the application master as a file of its container only.
    """

    certificate: str
    private_key: str
    owner_key: str
    secrets: Mapping[str, str] = field(default_factory=dict)
