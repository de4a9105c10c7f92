"""The only file that imports skein: its driver and its application master behind typed methods of ours.

skein has no deadlines of its own; every call here has one. Its errors, gRPC's and Java's end here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from tony.containers import AppReport
from tony.errors import NoSuchJob, TonyError, Unreachable
from tony.protocol.credentials import Credentials
from tony.yarn.refusals import refusal


@contextlib.contextmanager
def _without_distutils() -> Iterator[None]:
    """Give skein the one name that it takes from distutils, which Python 3.12 has not, and which loads in 0.15 s.

    It compares grpcio's version with 1.18, in the function that is replaced below.
    """
    stand_in = types.ModuleType("distutils.version")
    stand_in.__dict__["LooseVersion"] = str
    names = {"distutils": types.ModuleType("distutils"), "distutils.version": stand_in}
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


with warnings.catch_warnings(), _without_distutils():
    # datetime.utcnow, from Python 3.12 on.
    warnings.simplefilter("ignore", DeprecationWarning)
    import skein
    from skein.exceptions import ConnectionError as SkeinSilent
    from skein.exceptions import SkeinError
    from skein.exceptions import TimeoutError as SkeinTimeout

# Of use for grpcio before 1.18 only.
skein.core.grpc_fork_support_disabled = contextlib.nullcontext

T = TypeVar("T")

SUBMIT_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 15.0
_CONTAINER_STATES = ("WAITING", "REQUESTED", "RUNNING", "SUCCEEDED", "FAILED", "KILLED")


class Silent(Unreachable):
    """skein's JVM, driver or master, does not answer."""


@dataclass(frozen=True)
class SkeinContainer:
    """A container as skein tells it: `id` is ``role_3``; `state` one of WAITING, REQUESTED, RUNNING, SUCCEEDED,
    FAILED, KILLED, where RUNNING means allocated; `node` is the node's web address."""

    id: str
    state: str
    container_id: str
    node: str
    message: str


class _Deadlines:
    """Gives every skein call a deadline, where skein leaves it to the server."""

    def _call(self, method: str, request: object, timeout: float | None = None) -> Any:
        seconds = timeout or (SUBMIT_TIMEOUT_S if method == "submit" else CALL_TIMEOUT_S)
        return super()._call(method, request, timeout=seconds)  # type: ignore[misc]


class _DriverClient(_Deadlines, skein.Client):  # type: ignore[misc]
    # Its finalizer looks at this even when the constructor has failed before setting it.
    _proc = None


class _MasterClient(_Deadlines, skein.ApplicationClient):  # type: ignore[misc]
    pass


class Driver:
    """A connection to a running submit driver. Raises Unreachable when it does not answer."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        # gRPC would send even a connection to this machine through the shell's proxy.
        os.environ.setdefault("no_grpc_proxy", "127.0.0.1,localhost")
        security = skein.Security(
            cert_bytes=credentials.certificate.encode(), key_bytes=credentials.private_key.encode()
        )
        self._client = _translated("reach the submit driver", lambda: _DriverClient(address, security))

    def submit(self, specification: Mapping[str, Any]) -> str:
        """Upload the specification's local files, submit, and return the id once YARN has accepted it. Blocks."""
        return _translated("submit the application", lambda: str(self._client.submit(_specification(specification))))

    def report(self, application_id: str) -> AppReport:
        """The application, for where REST refuses. Raises NoSuchJob."""
        # Not for the application master, which has no use for HTTP.
        from tony.rm import application_state

        try:
            told = self._client.application_report(application_id)
        except ValueError as error:
            raise NoSuchJob(f"the resource manager tells nothing of {application_id}: {error}") from error
        except (SkeinError, OSError) as error:
            raise _error(error, f"get the report of {application_id}") from error
        return AppReport(
            application_id=told.id,
            name=told.name,
            user=told.user,
            queue=told.queue,
            state=application_state(str(told.state), str(told.final_status)),
            started_at=_seconds(told.start_time),
            finished_at=_seconds(told.finish_time),
            diagnostics=(told.diagnostics or "").strip(),
            tracking_url=told.tracking_url or "",
            tags=tuple(sorted(told.tags)),
            progress=told.progress or 0.0,
            containers=told.usage.num_used_containers if told.usage else 0,
            am_host=told.host or "",
        )

    def kill(self, application_id: str) -> None:
        """Ask YARN to end the application. Returns before it has ended."""
        _translated(f"kill {application_id}", lambda: self._client.kill_application(application_id))

    def close(self) -> None:
        """Close the connection; the driver's process is somebody else's. May be called twice."""
        self._client.close()


class Master:
    """A connection to skein's application master, from inside one of the application's containers."""

    def __init__(self) -> None:
        self._client = _translated("find skein's master from here", _MasterClient.from_current)

    @property
    def application_id(self) -> str:
        return str(self._client.id)

    def add(self, service: str, environment: Mapping[str, str]) -> str:
        """Ask for one container; returns skein's name for it."""
        return _translated(
            f"ask for a container of {service}",
            lambda: str(self._client.add_container(service, dict(environment)).id),
        )

    def kill(self, container: str) -> None:
        """Withdraw or end it. Raises KeyError or ValueError for one that is unknown or has ended."""
        try:
            self._client.kill_container(container)
        except (SkeinError, OSError) as error:
            raise _error(error, f"end {container}") from error

    def containers(self) -> list[SkeinContainer]:
        """All of this attempt, ended ones included."""
        listed = _translated("list containers", lambda: self._client.get_containers(states=_CONTAINER_STATES))
        return [
            SkeinContainer(
                one.id, str(one.state), one.yarn_container_id, one.yarn_node_http_address, one.exit_message
            )
            for one in listed
        ]

    def progress(self, fraction: float) -> None:
        _translated("set the progress", lambda: self._client.set_progress(min(1.0, max(0.0, fraction))))

    def shutdown(self, status: str, diagnostics: str) -> None:
        """End the application; our own process is ended soon after."""
        _translated("end the application", lambda: self._client.shutdown(status, diagnostics))

    def close(self) -> None:
        """May be called twice."""
        self._client.close()


def check_specification(specification: Mapping[str, Any]) -> None:
    """Let skein look at a specification, without a cluster. Raises TonyError."""
    _specification(specification)


def _specification(specification: Mapping[str, Any]) -> Any:
    try:
        return skein.ApplicationSpec.from_dict(dict(specification))
    except (TypeError, ValueError) as error:
        raise TonyError(f"skein does not take the specification: {error}") from error


def _translated(doing: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except (SkeinError, OSError, ValueError, KeyError) as error:
        raise _error(error, doing) from error


def _error(error: Exception, doing: str) -> TonyError:
    if isinstance(error, SkeinTimeout):
        return Silent(f"could not {doing}: no answer in time.")
    if isinstance(error, SkeinSilent):
        return Silent(f"could not {doing}: {str(error)[:1].lower()}{str(error)[1:]}.")
    text = str(error.args[0]) if error.args else str(error)
    return refusal(text, doing)


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else 0.0
