"""Why a task never spoke: what nodes and their Docker say becomes a reason of ours, with their own sentence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tony.containers import EndCause, HandleState, Phase
from tony.yarn import containers
from tony.yarn.containers import YarnContainers
from tony.yarn.nodes import NodeWatch, Said, ended_containers, last_lines
from tony.yarn.skeinlink import SkeinContainer
from tony.yarn.startfailure import explained

IMAGE = "local/train:1"
ENDED = HandleState(
    "worker_0", Phase.ENDED, "c_1", "n1", EndCause.EXITED, None, "Container failed during execution, see logs."
)
LAUNCH = (
    "[2026-11-23 00:27:27.117]Exception from container-launch.\nContainer id: c_1\nExit code: {code}\n"
    "Exception message: Launch container failed\nShell error output: {said}\n\n\n"
    "[2026-11-23 00:27:27.121]Container exited with a non-zero exit code {code}. \n"
)


def launch(code: int, said: str) -> Said:
    return Said(code, LAUNCH.format(code=code, said=said))


@pytest.mark.parametrize(
    ("said", "cause", "ours", "theirs"),
    [
        (
            launch(7, f"Unable to find image '{IMAGE}' locally\ndocker: Error response from daemon: no such host\n"),
            EndCause.BAD_IMAGE,
            "no such image",
            "Error response from daemon: no such host",
        ),
        (
            launch(7, f"Unable to find image '{IMAGE}' locally\ndocker: Error response from daemon: i/o timeout."),
            EndCause.LAUNCH_FAILED,
            "cannot fetch the image now",
            "i/o timeout",
        ),
        (
            launch(
                7, 'docker: Error response from daemon: exec: "bash": executable file not found in $PATH: unknown.'
            ),
            EndCause.BAD_IMAGE,
            "the image has no bash",
            'exec: "bash"',
        ),
        (
            launch(127, f"image: {IMAGE} is not trusted. Disable mount volume for untrusted image"),
            EndCause.BAD_IMAGE,
            "does not trust the image's registry",
            "is not trusted",
        ),
        (
            launch(29, "Configuration does not allow mount src='/etc/shadow', dest='/s'"),
            EndCause.BAD_IMAGE,
            "the mount is not allowed",
            "src='/etc/shadow'",
        ),
        (
            launch(29, "Could not determine real path of mount '/nothing'"),
            EndCause.BAD_IMAGE,
            "has not what is to be mounted",
            "'/nothing'",
        ),
        (
            Said(-1, "Disallowed network:  'nonet' specified. Allowed networks: are [host, none, bridge]"),
            EndCause.BAD_IMAGE,
            "the network is not allowed",
            "Allowed networks: are",
        ),
        (
            Said(-1, "Image name 'x y' doesn't match docker image name pattern"),
            EndCause.BAD_IMAGE,
            "does not take the image's name",
            "doesn't match",
        ),
        (
            launch(
                7, "docker: Error response from daemon: Head http://r/v2/a/manifests/1: no basic auth credentials."
            ),
            EndCause.BAD_IMAGE,
            "the registry wants a password",
            "no basic auth credentials",
        ),
        (
            Said(-1, "Fail to read additional docker client config file from hdfs:///user/ann/docker.json"),
            EndCause.BAD_IMAGE,
            "cannot read the client configuration",
            "hdfs:///user/ann/docker.json",
        ),
        (
            launch(
                7, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
            ),
            EndCause.LAUNCH_FAILED,
            "the node's Docker does not answer",
            "Cannot connect",
        ),
    ],
)
def test_a_nodes_refusal_becomes_our_reason_with_its_own_sentence(
    said: Said, cause: EndCause, ours: str, theirs: str
) -> None:
    found = explained(ENDED, IMAGE, said, ())
    assert found.cause is cause
    assert ours in found.diagnostics and theirs in found.diagnostics and IMAGE in found.diagnostics
    assert "\n" not in found.diagnostics and "Exception from" not in found.diagnostics
    assert found.exit_code == said.exit_code


def test_our_launchers_sentence_outranks_everything() -> None:
    lines = ["noise", "tony: the runtime bundle was built for Python 3.11, but python3 is Python 3.9."]
    for image, cause in ((IMAGE, EndCause.BAD_IMAGE), (None, EndCause.BAD_ENV)):
        found = explained(ENDED, image, Said(78, ""), lines)
        assert (found.cause, found.diagnostics) == (cause, lines[1].removeprefix("tony: "))


def test_a_docker_task_that_said_nothing_gets_a_hint_where_to_look() -> None:
    found = explained(ENDED, IMAGE, None, ())
    assert found.cause is EndCause.EXITED
    assert IMAGE in found.diagnostics and "NodeManager's log on n1" in found.diagnostics


def test_the_last_line_of_any_other_start_is_quoted() -> None:
    found = explained(ENDED, None, None, ["Traceback", "ImportError: librt.so.1"])
    assert found.cause is EndCause.EXITED and found.diagnostics.endswith("its last line: ImportError: librt.so.1")


def test_what_yarn_has_said_already_is_not_said_again() -> None:
    ended = HandleState("worker_0", Phase.ENDED, "c_1", "n1", EndCause.UNKNOWN, None, "the node is on fire")
    found = explained(ended, IMAGE, Said(-1, "[2026-11-23 00:27:27.117]the node is on fire\n"), ())
    assert found.diagnostics == "the node is on fire"


@pytest.mark.parametrize("cause", [EndCause.OUT_OF_MEMORY, EndCause.PREEMPTED, EndCause.KILLED_BY_US])
def test_what_yarn_itself_has_said_stands(cause: EndCause) -> None:
    ended = HandleState("worker_0", Phase.ENDED, "c_1", "n1", cause, None, "as YARN says")
    assert explained(ended, IMAGE, launch(7, "no such image"), ["tony: no"]) == ended


FRAMED = """\
Container: c_1 on n1:4242
LogAggregationType: LOCAL
====================================================================
LogType:{name}
LogLastModifiedTime:Sat Nov 28 20:43:43 +0000 2026
LogLength:{length}
LogContents:
{text}
End of LogType:{name}.This log file belongs to a running container (c_1) and so may not be complete.
***************************************************************************

"""
"""What the web service of Hadoop 3 makes of a log."""


class Node(BaseHTTPRequestHandler):
    """A NodeManager's web service with one ended container."""

    def do_GET(self) -> None:
        if self.path.startswith("/ws/v1/node/containers/c_1/logs/worker.log"):
            body = b"\nfirst\n  last  \n"
        elif self.path.startswith("/ws/v1/node/containers/c_3/logs/worker.log"):
            text = "first\nEnd of LogType: says the script\nlast"
            body = FRAMED.format(name="worker.log", length=len(text), text=text).encode()
        elif self.path.startswith("/ws/v1/node/containers/c_4/logs/worker.log"):
            body = FRAMED.format(name="worker.log", length=0, text="").encode()
        elif self.path == "/ws/v1/node/containers":
            known = [{"id": "c_1", "exitCode": 7, "diagnostics": "gone"}, {"id": "c_2", "exitCode": -1000}]
            body = json.dumps({"containers": {"container": known}}).encode()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def node() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_node_tells_of_ended_containers_and_of_their_last_lines(node: str) -> None:
    assert ended_containers(node) == {"c_1": Said(7, "gone")}
    assert last_lines(node, "c_1", "worker.log") == ["first", "last"]
    assert last_lines(node, "c_2", "worker.log") == []
    assert last_lines(node, "c_3", "worker.log") == ["first", "End of LogType: says the script", "last"]
    assert last_lines(node, "c_4", "worker.log") == []
    assert last_lines("127.0.0.1:1", "c_1", "worker.log") == []


def test_what_a_node_forgets_at_once_was_asked_while_the_container_started() -> None:
    asked = threading.Event()
    answers = [{"c_1": Said(7, "gone")}]

    def ask(_: str) -> dict[str, Said]:
        asked.set()
        return answers.pop() if answers else {}

    watch = NodeWatch(ask)
    try:
        watch.watch([("c_1", "n1:8042")])
        assert asked.wait(10)
        found, deadline = None, time.monotonic() + 10
        while found is None and time.monotonic() < deadline:
            found = watch.said("c_1", "n1:8042")
        assert found == Said(7, "gone")
    finally:
        watch.close()
        watch.close()


class Master:
    """skein's master with one container."""

    application_id = "application_1_1"

    def __init__(self, container: SkeinContainer) -> None:
        self.container = container

    def containers(self) -> list[SkeinContainer]:
        return [self.container]

    def close(self) -> None:
        """Nothing is held."""


def test_a_failed_container_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(node: str) -> dict[str, Said]:
        asked.append(node)
        return {"c_1": launch(7, "Unable to find image")}

    monkeypatch.setattr(containers, "last_lines", lambda *_: [])
    failed = SkeinContainer("worker_0", "FAILED", "c_1", "n1:8042", "Container failed during execution")
    backend = YarnContainers(Master(failed), images={"worker": IMAGE}, nodes=NodeWatch(ask))  # type: ignore[arg-type]
    first, again = backend.poll(), backend.poll()
    backend.close()
    assert first == again and first[0].cause is EndCause.BAD_IMAGE
    assert asked == ["n1:8042"]


def test_tasks_outside_of_docker_cost_no_questions_to_nodes_while_they_start() -> None:
    def ask(node: str) -> dict[str, Said]:
        raise AssertionError(node)

    running = SkeinContainer("worker_0", "RUNNING", "c_1", "n1:8042", "")
    backend = YarnContainers(Master(running), nodes=NodeWatch(ask))  # type: ignore[arg-type]
    assert backend.poll()[0].phase is Phase.HELD
    backend.close()
