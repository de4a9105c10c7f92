"""The GPUs of this task: which they are, how they are kept from its neighbours, how they feel.

Where ``nvidia-smi`` is missing or misbehaves, only its numbers are absent; the task runs.
"""

from __future__ import annotations

import logging
import math
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping

PERIOD_S = 15.0
_SMI_LIMIT_S = 5.0
_KILL_LIMIT_S = 1.0
_SMI_FAILURES = 3
_SHOWN = 64
_FIELDS = "utilization.gpu,memory.used,temperature.gpu,ecc.errors.uncorrected.volatile.total"

_UUID = re.compile(r"\(UUID: ([\w/-]+)\)")
_LOST = re.compile("GPU is lost|fallen off the bus|Unable to determine the device handle", re.I)
_BY_RUNTIME, _BY_CUDA = "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"
_HIDDEN = frozenset({"", "void", "none", "NoDevFiles", "-1"})
_stuck: list[subprocess.Popen[bytes]] = []

log = logging.getLogger(__name__)


class TaskGpus:
    """What this container has of GPUs. Creating it may block for some seconds, while ``nvidia-smi`` answers.

    `asked` is how many YARN (or the local back-end) counted for the task. Where NVIDIA's container runtime was told
    which devices it should show, or no more are there than were asked for, somebody isolates them and nothing is to
    do. Where there are more, YARN only counts them, and tasks on one node would meet on the first: then as many as
    were asked for are claimed, each by a name that the kernel frees with its holder (a Unix socket in the abstract
    namespace, so that neither a file nor a claim outlives the executor), and the user's process is told so.
    """

    def __init__(self, asked: int, variables: Mapping[str, str]) -> None:
        self._command = shutil.which("nvidia-smi", path=variables.get("PATH")) if asked else None
        self._claims: list[socket.socket] = []
        self.names: tuple[str, ...] = ()
        """The devices, for people."""
        self.environment: dict[str, str] = {}
        """What the user's process is told, unless the job says otherwise."""
        self._ids: tuple[str, ...] = ()
        if not asked:
            self.environment = {_BY_CUDA: ""}
            return
        isolated, chosen = (named_devices(variables.get(name)) for name in (_BY_RUNTIME, _BY_CUDA))
        if chosen is not None:
            self._ids = chosen
        named = isolated if chosen is None else chosen
        devices = self._listing() if named is None else [(name, name) for name in named]
        # The runtime's names count as the host does, and in the container everything counts anew.
        if isolated is None and len(devices) > asked:
            devices = self._claim(devices, asked)
        self.names = tuple(name for name, _ in devices[:_SHOWN])

    def _listing(self) -> list[tuple[str, str]]:
        """Name and UUID of each device, or of each instance of a divided one."""
        said = _ask([self._command, "-L"]) if self._command else None
        found = [(line.strip(), _UUID.search(line)) for line in (said or "").splitlines()]
        devices = [(name, uuid.group(1)) for name, uuid in found if uuid]
        return [one for one in devices if one[0].startswith("MIG ")] or devices

    def _claim(self, devices: list[tuple[str, str]], asked: int) -> list[tuple[str, str]]:
        taken: list[tuple[str, str]] = []
        for device in devices:
            if len(taken) < asked and self._claim_one(device[1]):
                taken.append(device)
        if len(taken) < asked:
            log.warning("%d of %d GPUs are free; the task sees all of them", len(taken), asked)
            self.close()
            return devices
        self._ids = tuple(uuid for _, uuid in taken)
        self.environment = {_BY_CUDA: ",".join(self._ids)}
        return taken

    def _claim_one(self, uuid: str) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0tony-gpu-{uuid}")
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True

    def health(self) -> GpuHealth:
        """A sampler for one run of the user's process."""
        return GpuHealth(self._command, self._ids)

    def close(self) -> None:
        """Give the claims back. May be called twice."""
        while self._claims:
            self._claims.pop().close()


class GpuHealth:
    """``nvidia-smi`` for the devices of this task, asked seldom; after a few failures never again."""

    def __init__(self, command: str | None, ids: tuple[str, ...]) -> None:
        self._command = command
        self._chosen = [f"--id={','.join(ids)}"] if ids else []
        self._failures = 0
        self._asked_at = float("-inf")
        self._latest: dict[str, float] = {}
        self._errors_before: float | None = None
        self.fault = ""
        """One sentence when a device broke while this was watched."""

    def sample(self) -> dict[str, float]:
        """``gpu_percent`` (mean), ``gpu_memory_mb`` (sum), ``gpu_temperature_c`` (highest), ``gpu_ecc_errors`` (sum).

        What a device does not tell is left out. Blocks for at most some seconds, and asks once in `PERIOD_S`.
        """
        now = time.monotonic()
        if self._command is None or self._failures >= _SMI_FAILURES:
            return {}
        if now - self._asked_at < PERIOD_S:
            return self._latest
        self._asked_at = now
        said = _ask([self._command, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits", *self._chosen])
        lines = (said or "").splitlines()
        self.fault = self.fault or next((line.strip() for line in lines if _LOST.search(line)), "")
        rows = [_numbers(line) for line in lines if line.count(",") == 3]
        percent, memory, heat, errors = (
            [value for row in rows if (value := row[column]) is not None] for column in range(4)
        )
        self._latest = {}
        if percent:
            self._latest["gpu_percent"] = round(sum(percent) / len(percent), 1)
        if memory:
            self._latest["gpu_memory_mb"] = sum(memory)
        if heat:
            self._latest["gpu_temperature_c"] = max(heat)
        if errors:
            self._count(sum(errors))
        self._failures = 0 if self._latest else self._failures + 1
        return self._latest

    def _count(self, errors: float) -> None:
        self._latest["gpu_ecc_errors"] = errors
        before = self._errors_before
        if before is not None and errors > before:
            self.fault = self.fault or f"{errors - before:.0f} uncorrectable ECC errors in the memory of its GPUs."
        self._errors_before = errors


def named_devices(value: str | None) -> tuple[str, ...] | None:
    """The devices that a variable names; () when it says that there are none, None when it says nothing."""
    if value is None or value == "all":
        return None
    return () if value in _HIDDEN else tuple(part.strip() for part in value.split(",") if part.strip())


def _ask(command: list[str]) -> str | None:
    """What ``nvidia-smi`` says, whatever its exit code. Blocks for a few seconds at most, also with a hung driver."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        log.info("no GPU numbers: %s", error)
        return None
    try:
        return process.communicate(timeout=_SMI_LIMIT_S)[0].decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        log.info("no GPU numbers: %s", error)
    process.kill()
    assert process.stdout is not None
    process.stdout.close()
    try:
        process.wait(_KILL_LIMIT_S)
    except subprocess.TimeoutExpired:
        # A hung driver keeps its callers in the kernel, where no signal reaches them. It must not keep us, too.
        _stuck.append(process)
    return None


def _numbers(line: str) -> list[float | None]:
    """The fields of a line; None for what the device does not tell (``[N/A]``)."""
    return [_number(part) for part in line.split(",")]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
