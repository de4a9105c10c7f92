"""The small pieces of YARN's edge: causes of an end, refusals in our words, log output, a silent master."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest

from tony.containers import AppState, EndCause, Identity, LogLine, Phase
from tony.errors import NotPermitted, PackagingError, Refused, TonyError, Unreachable
from tony.spec import TaskId
from tony.yarn.containers import GONE_AFTER_S, MasterGone, YarnContainers, end_cause, handle_state
from tony.yarn.logs import log_lines
from tony.yarn.refusals import refusal, sentence
from tony.yarn.skeinlink import Master, Silent, SkeinContainer


@pytest.mark.parametrize(
    ("state", "message", "cause"),
    [
        ("SUCCEEDED", "Completed successfully.", EndCause.EXITED),
        ("FAILED", "Container failed during execution, see logs for more information.", EndCause.EXITED),
        ("FAILED", "314.2 MB of 128 MB physical memory used", EndCause.OUT_OF_MEMORY),
        ("FAILED", "2.2 GB of 2.1 GB virtual memory used", EndCause.OUT_OF_VMEM),
        ("FAILED", "java.io.FileNotFoundException: File does not exist: hdfs://h/a.zip", EndCause.ARTIFACT_CHANGED),
        (
            "FAILED",
            "Resource hdfs://h/a.zip changed on src filesystem - expected: 1, was: 2",
            EndCause.ARTIFACT_CHANGED,
        ),
        ("FAILED", "Container preempted by scheduler", EndCause.PREEMPTED),
        ("FAILED", "Container released on a *lost* node", EndCause.NODE_LOST),
        ("FAILED", "1/1 local-dirs are bad: /data; 1/1 log-dirs are bad: /logs", EndCause.DISK_FAILED),
        ("FAILED", "Failed to start, exception raised: java.net.ConnectException", EndCause.LAUNCH_FAILED),
        ("FAILED", "Killed by user request.", EndCause.KILLED_BY_US),
        ("KILLED", "", EndCause.KILLED_BY_US),
        ("FAILED", "something new", EndCause.UNKNOWN),
        ("FAILED", "", EndCause.UNKNOWN),
    ],
)
def test_why_a_container_ended_is_read_from_yarns_sentence(state: str, message: str, cause: EndCause) -> None:
    assert end_cause(state, message) is cause


def container(state: str, message: str = "", container_id: str = "", node: str = "") -> SkeinContainer:
    return SkeinContainer("worker_0", state, container_id, node, message)


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("WAITING", Phase.REQUESTED),
        ("REQUESTED", Phase.REQUESTED),
        ("RUNNING", Phase.HELD),
        ("SUCCEEDED", Phase.ENDED),
        ("FAILED", Phase.ENDED),
        ("KILLED", Phase.ENDED),
    ],
)
def test_skeins_states_are_our_phases(state: str, phase: Phase) -> None:
    assert handle_state(container(state)).phase is phase


def test_a_held_container_has_its_id_and_node_and_no_cause() -> None:
    held = handle_state(container("RUNNING", "ignored", "container_e01_1_0001_01_000002", "n1:8042"))
    assert (held.container_id, held.node) == ("container_e01_1_0001_01_000002", "n1")
    assert (held.cause, held.exit_code, held.diagnostics) == (None, None, "")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "[x] File does not exist: hdfs://h/c/a.zip\n\tat org.apache",
            "hdfs://h/c/a.zip was removed after the submit",
        ),
        (
            "java.io.IOException: Resource hdfs://h/a.zip changed on src filesystem - expected: 1",
            "hdfs://h/a.zip was changed after the submit",
        ),
        ("Container failed", "Container failed"),
    ],
)
def test_a_file_that_is_gone_or_changed_is_named(message: str, said: str) -> None:
    assert handle_state(container("FAILED", message)).diagnostics == said


def test_only_success_has_an_exit_code_because_skein_drops_the_others() -> None:
    assert handle_state(container("SUCCEEDED")).exit_code == 0
    assert handle_state(container("FAILED", "Container failed during execution")).exit_code is None


class Jvm(Master):
    """skein's master as it is when its JVM is gone, or when it refuses what it does not know."""

    def __init__(self) -> None:
        self.silent = False
        self.refuses: Exception | None = None
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.ended: list[tuple[str, str]] = []
        self.closed = 0

    def containers(self) -> list[SkeinContainer]:
        if self.silent:
            raise Silent("could not list containers: unable to connect to application.")
        return [container("RUNNING")]

    def add(self, service: str, environment: Mapping[str, str]) -> str:
        self.asked.append((service, environment))
        return f"{service}_0"

    def kill(self, name: str) -> None:
        if self.refuses:
            raise self.refuses

    def shutdown(self, status: str, diagnostics: str) -> None:
        self.ended.append((status, diagnostics))

    def close(self) -> None:
        self.closed += 1


def test_a_silent_jvm_is_unreachable_and_after_half_a_minute_gone() -> None:
    jvm, now = Jvm(), [100.0]
    backend = YarnContainers(jvm, lambda: now[0])
    jvm.silent = True
    for moment in (100.0, 100.0 + GONE_AFTER_S - 0.1):
        now[0] = moment
        with pytest.raises(Unreachable) as raised:
            backend.poll()
        assert not isinstance(raised.value, MasterGone)
    now[0] = 100.0 + GONE_AFTER_S
    with pytest.raises(MasterGone, match="30 s"):
        backend.poll()


def test_an_answer_in_between_starts_the_half_minute_anew() -> None:
    jvm, now = Jvm(), [0.0]
    backend = YarnContainers(jvm, lambda: now[0])
    for moment, silent in ((0.0, True), (20.0, False), (40.0, True), (60.0, True)):
        now[0], jvm.silent = moment, silent
        if silent:
            with pytest.raises(Silent):
                backend.poll()
        else:
            assert [state.phase for state in backend.poll()] == [Phase.HELD]


def test_a_request_names_the_role_and_hostile_environments_are_never_asked_for() -> None:
    jvm = Jvm()
    backend = YarnContainers(jvm)
    identity = Identity(TaskId("worker", 3), 2)
    assert backend.request(identity, {"TONY_TASK": "worker:3"}) == "worker_0"
    assert jvm.asked == [("worker", {"TONY_TASK": "worker:3"})]
    with pytest.raises(TonyError):
        backend.request(identity, {"TONY_TASK": "$(id)"})
    assert len(jvm.asked) == 1


@pytest.mark.parametrize("refusal", [KeyError("worker_9"), ValueError("not running")])
def test_stopping_what_has_ended_or_never_was_is_nothing(refusal: Exception) -> None:
    jvm = Jvm()
    jvm.refuses = refusal
    YarnContainers(jvm).stop("worker_9")


def test_long_diagnostics_are_cut_because_skein_cannot_send_them() -> None:
    jvm = Jvm()
    backend = YarnContainers(jvm)
    backend.finish(AppState.FAILED, "x" * 20000)
    [(status, diagnostics)] = jvm.ended
    assert status == "FAILED" and len(diagnostics) <= 8000 and diagnostics.endswith("…")


def test_closing_twice_closes_once() -> None:
    jvm = Jvm()
    backend = YarnContainers(jvm)
    backend.close()
    backend.close()
    assert jvm.closed == 1


ID = "application_1_0001"
SUBMITTED = f"Application {ID} submitted by user ada"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            f"Failed to submit application, exception:\nFailed to submit {ID} to YARN : {SUBMITTED}{SUBMITTED}"
            " to unknown queue: nope",
            Refused,
            f"{SUBMITTED} to unknown queue: nope",
        ),
        (
            "Failed to submit application, exception: org.apache.hadoop.security.AccessControlException: "
            "User ada cannot submit applications to queue root.q\n\tat org.apache.hadoop.yarn.X.y(X.java:1)",
            NotPermitted,
            "User ada cannot submit applications to queue root.q",
        ),
        (
            "Failed to submit application, exception:\n"
            "Call From n1/10.0.0.1 to rm:8032 failed on connection exception: "
            "java.net.ConnectException: Connection refused; For more details see: http://wiki",
            Unreachable,
            "Call From n1/10.0.0.1 to rm:8032 failed on connection exception: Connection refused; "
            "For more details see: http://wiki",
        ),
        ("Kerberos ticket not found, please kinit and restart", Unreachable, "Kerberos ticket not found"),
        (
            "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException: The DiskSpace quota of /user/ada is exceeded",
            PackagingError,
            "The DiskSpace quota of /user/ada is exceeded",
        ),
        (
            "The DiskSpace quota of /user/ada is exceeded: quota = 1 MB but diskspace consumed = 152.04 MB\n"
            "\tat java.base/java.security.AccessController.doPrivileged(AccessController.java:712) "
            "at java.base/javax.security.auth.Subject.doAs(Subject.java:439)",
            PackagingError,
            "quota = 1 MB but diskspace consumed = 152.04 MB",
        ),
        (
            "The DiskSpace quota of /user/ada is exceeded at java.base/java.security.AccessController.doX(Native "
            "Method)",
            PackagingError,
            "could not submit the application: The DiskSpace quota of /user/ada is exceeded",
        ),
        ("Resource 'yarn.io/gpu' is not defined in your cluster's configuration", Refused, "yarn.io/gpu"),
        ("java.lang.NullPointerException", TonyError, "NullPointerException"),
        ("", TonyError, "no reason was given"),
    ],
)
def test_java_is_told_as_an_error_of_ours(text: str, kind: type[TonyError], said: str) -> None:
    error = refusal(text, "submit the application")
    assert type(error) is kind
    assert said in error.message
    assert "\n" not in error.message and "\tat " not in error.message and "Exception:" not in error.message


def test_an_endless_message_is_cut() -> None:
    assert len(sentence("word " * 5000)) <= 600


def printed(*files: tuple[str, str, bytes]) -> bytes:
    """What ``yarn logs`` prints for (container, file, contents)."""
    parts = []
    for name, file, contents in files:
        parts.append(f"Container: {name} on n1_45454\nLogAggregationType: AGGREGATED\n{'=' * 60}\n".encode())
        parts.append(f"LogType:{file}\nLogLastModifiedTime:Sun Nov 22 2026\nLogLength:{len(contents)}\n".encode())
        parts.append(b"LogContents:\n" + contents + f"\nEnd of LogType:{file}\n{'*' * 60}\n\n".encode())
    return b"".join(parts)


A, B = "container_1_0001_01_000002", "container_e01_1_0001_01_000003"


def lines(raw: bytes) -> list[LogLine]:
    return list(log_lines(io.BytesIO(raw)))


def test_lines_carry_container_and_file() -> None:
    raw = b"some warning\n" + printed((A, "stdout.log", b"one\ntwo\n"), (B, "stderr.log", b"three"))
    expected = [LogLine(A, "stdout.log", "one"), LogLine(A, "stdout.log", "two"), LogLine(B, "stderr.log", "three")]
    assert lines(raw) == expected


def test_a_log_that_imitates_the_frame_is_text_like_any_other() -> None:
    evil = printed((B, "stdout.log", b"forged\n"))
    found = lines(printed((A, "stdout.log", evil), (A, "stderr.log", b"last\n")))
    assert {line.container_id for line in found} == {A}
    assert LogLine(A, "stdout.log", "forged") in found and found[-1] == LogLine(A, "stderr.log", "last")


def test_empty_broken_and_cut_logs_end_quietly() -> None:
    assert lines(b"") == []
    assert lines(printed((A, "stdout.log", b""))) == []
    whole = printed((A, "stdout.log", b"one\ntwo\n"))
    assert lines(whole[: whole.index(b"two") + 2]) == [
        LogLine(A, "stdout.log", "one"),
        LogLine(A, "stdout.log", "tw"),
    ]
    assert lines(printed((A, "stdout.log", b"\xff\xfe\r\n"))) == [LogLine(A, "stdout.log", "��")]


def test_a_line_without_end_comes_in_pieces() -> None:
    found = lines(printed((A, "stdout.log", b"x" * (2 * 1024 * 1024 + 5))))
    assert [len(line.text) for line in found] == [1024 * 1024, 1024 * 1024, 5]
