"""Why a container's task never spoke: from what its NodeManager and its own output say to a reason of ours.

Pure. Only the beginning of a task is judged here: what the executor has reported itself is never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tony.containers import EndCause, HandleState
from tony.yarn.nodes import Said
from tony.yarn.scripts import UNUSABLE

_OURS = "tony: "
_MAX_LENGTH = 400
_OPEN = (EndCause.EXITED, EndCause.UNKNOWN, EndCause.LAUNCH_FAILED)
_BAD, _NODE = EndCause.BAD_IMAGE, EndCause.LAUNCH_FAILED

# The first that fits decides. Texts of Docker's client and engine, of YARN's Docker runtime, of container-executor.
_REFUSALS: tuple[tuple[str, EndCause, str], ...] = (
    (r"Cannot connect to the Docker daemon|Is the docker daemon running", _NODE, "the node's Docker does not answer"),
    (
        r"[Tt]imeout|deadline exceeded|toomanyrequests|[Tt]oo [Mm]any [Rr]equests|connection re(?:fused|set)|: EOF|"
        r"no route to host|network is unreachable|[Tt]emporary failure",
        _NODE,
        "the node cannot fetch the image now",
    ),
    (r"no space left on device", EndCause.DISK_FAILED, "the node's disk is full"),
    (r"is not trusted", _BAD, "this cluster does not trust the image's registry"),
    (r"docker client config file", _BAD, "the node cannot read the client configuration for the registry"),
    (r"no basic auth credentials|unauthorized|401 Unauthorized", _BAD, "the registry wants a password, or another"),
    (r"\"bash\"[^\n]*executable file not found|stat bash: no such file", _BAD, "the image has no bash"),
    (r"executable file not found|exec format error", _BAD, "the image does not run on this node"),
    (
        r"Unable to find image|pull access denied|manifest [^\n]*unknown|repository [^\n]*not found",
        _BAD,
        "no such image",
    ),
    (r"YARN_CONTAINER_RUNTIME_DOCKER_IMAGE|docker image name pattern", _BAD, "YARN does not take the image's name"),
    (
        r"does not allow mount|Invalid docker (?:read-only|rw) mount|mount access denied",
        _BAD,
        "the mount is not allowed",
    ),
    (r"Could not determine real path of mount", _BAD, "the node has not what is to be mounted"),
    (r"user supplied mount list|[Mm]ount[^\n]*(?:[Ii]nvalid|parse)", _BAD, "YARN does not take the mounts"),
    (
        r"Disallowed (?:docker )?network|[Ii]nvalid docker network|network [^\n]* not found",
        _BAD,
        "the network is not allowed",
    ),
    (r"[Pp]rivileged container", _BAD, "privileged containers are not allowed"),
    (r"Invalid (?:image|docker image)|invalid reference format", _BAD, "not the name of an image"),
    (r"is not allowed to (?:launch|run) docker|docker[^\n]*module[^\n]*not enabled", _BAD, "no Docker for this user"),
)
_STAMP = r"^(?:\[[\d\- :.]+\]\s*)?"
_NOISE = re.compile(
    _STAMP
    + r"(?:Exception from container-launch|Container id:|Exit code:|Exception message:|Run 'docker|See 'docker|"
    r"Shell output:\s*$|Shell error output:\s*$|Container exited with|Container killed|main : |"
    r"(?:Error file: |Last \d+ bytes of ))"
)
_PREFIX = re.compile(_STAMP + r"(?:Shell (?:error )?output:\s*)?(?:docker: )?")


def explained(ended: HandleState, image: str | None, said: Said | None, lines: Sequence[str]) -> HandleState:
    """The same end with the best explanation that can be found.

    `image` is that of the task's role; `said` what the node says, `lines` the end of the container's own output.
    """
    if ended.cause not in _OPEN:
        return ended
    code = said.exit_code if said is not None else ended.exit_code
    own = next((line[len(_OURS) :] for line in reversed(lines) if line.startswith(_OURS)), None)
    if own is not None and code in (UNUSABLE, None):
        cause = EndCause.BAD_IMAGE if image is not None else EndCause.BAD_ENV
        return replace(ended, cause=cause, exit_code=code, diagnostics=own)
    if image is not None and said is not None:
        for pattern, cause, ours in _REFUSALS:
            if re.search(pattern, said.diagnostics):
                text = f"{ours} ({image}): {_sentence(said.diagnostics, pattern)}"
                return replace(ended, cause=cause, exit_code=code, diagnostics=text)
    parts = [ended.diagnostics.strip()]
    if said is not None:
        sentence = _sentence(said.diagnostics) or f"exit code {code}"
        parts += [] if sentence in ended.diagnostics else [sentence]
    if lines:
        parts.append(f"its last line: {lines[-1][:_MAX_LENGTH]}")
    if image is not None and not lines and (said is None or not _sentence(said.diagnostics)):
        where = f"the NodeManager's log on {ended.node}" if ended.node else "the NodeManager's log"
        parts.append(
            f"It ran in Docker ({image}) and said nothing: image, mounts or network may be refused; see {where}."
        )
    return replace(ended, exit_code=code, diagnostics=" ".join(part for part in parts if part))


def _sentence(diagnostics: str, pattern: str = "") -> str:
    """The telling line of YARN's diagnostics, without the frame around it."""
    lines = [line for line in diagnostics.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    fitting = [line for line in lines if pattern and re.search(pattern, line)]
    # The engine's own answer tells more than the client's remark before it.
    answers = [line for line in lines if "Error response from daemon" in line]
    chosen = (answers or fitting or lines)[:1]
    return _PREFIX.sub("", chosen[0].strip())[:_MAX_LENGTH] if chosen else ""
