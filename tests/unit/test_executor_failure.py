"""What an ended user process died of: a table of endings as frameworks really write them."""

from __future__ import annotations

import pytest

from executor.failure import Diagnosis, Ending, diagnose
from tony.state import Reason

TRACEBACK = """\
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    main()
  File "train.py", line 5, in main
    {statement}
{final}"""

CHAINED = """\
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    int("x")
ValueError: invalid literal for int() with base 10: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 5, in <module>
    raise RuntimeError("cannot read the data")
RuntimeError: cannot read the data"""

SYNTAX = """\
  File "train.py", line 1
    def f(:
          ^
SyntaxError: invalid syntax"""

TORCH_STORE = (
    "[W socket.cpp:436] [c10d] The server socket has failed to bind to [::]:29411 "
    "(errno: 98 - Address already in use)."
)
TF_SERVER = (
    "E tensorflow/core/distributed_runtime/rpc/grpc_server_lib.cc:608] UNKNOWN: Could not start gRPC server\n"
    'E0000 server_chttp2.cc:40] {"description":"No address added out of total 1 resolved for \'0.0.0.0:29411\'"}'
)
CUDA = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.78 GiB total capacity)"
)
NO_SPACE = "OSError: [Errno 28] No space left on device: 'model.pt'"


def raised(final: str, statement: str = "work()") -> str:
    return TRACEBACK.format(final=final, statement=statement)


def end(text: str = "", code: int = 1, signal: str = "", seconds: float = 5.0, oom: bool = False) -> Diagnosis:
    return diagnose(
        Ending(code, signal, seconds, text.splitlines(), ports=(29411, 29412), oom_killed=oom, peak_mb=900)
    )


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (raised("ValueError: bad loss"), Reason.WORKER_EXIT, "ValueError: bad loss"),
        (raised("KeyboardInterrupt"), Reason.WORKER_EXIT, "KeyboardInterrupt"),
        (raised("my.package.Odd: \x07"), Reason.WORKER_EXIT, "my.package.Odd:"),
        (
            raised("ModuleNotFoundError: No module named 'x'"),
            Reason.USER_IMPORT,
            "ModuleNotFoundError: No module named 'x'",
        ),
        (raised("ImportError: cannot import name 'y'"), Reason.USER_IMPORT, "ImportError: cannot import name 'y'"),
        (raised("ImportError: x") + "\n" + raised("ValueError: y"), Reason.WORKER_EXIT, "ValueError: y"),
        (CHAINED, Reason.WORKER_EXIT, "RuntimeError: cannot read the data"),
        (SYNTAX, Reason.WORKER_EXIT, "SyntaxError: invalid syntax"),
        (raised(CUDA), Reason.GPU_OOM, CUDA),
        (raised("MemoryError"), Reason.OUT_OF_MEMORY, "MemoryError"),
        (raised("numpy.core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB"), Reason.OUT_OF_MEMORY, None),
        (
            "terminate called after throwing\n  what():  std::bad_alloc",
            Reason.OUT_OF_MEMORY,
            "what():  std::bad_alloc",
        ),
        (raised(NO_SPACE), Reason.DISK_FULL, NO_SPACE),
        ("cp: error writing 'a': No space left on device", Reason.DISK_FULL, None),
        ("warning: No space left on device\n" + raised("ValueError: x"), Reason.WORKER_EXIT, "ValueError: x"),
        ("I will report CUDA out of memory\n" + raised("ValueError: x"), Reason.WORKER_EXIT, "ValueError: x"),
        (TORCH_STORE + "\n" + raised("RuntimeError: cannot connect"), Reason.PORT_CLASH, TORCH_STORE),
        (TF_SERVER, Reason.PORT_CLASH, None),
        (raised("OSError: [Errno 98] Address already in use"), Reason.PORT_CLASH, None),
        (raised("OSError: [Errno 98] Address already in use: ('', 8080)"), Reason.WORKER_EXIT, None),
        ("no traceback at all", Reason.WORKER_EXIT, "The user process exited with code 1 and wrote no traceback."),
        ("", Reason.WORKER_EXIT, "The user process exited with code 1 and wrote no traceback."),
    ],
)
def test_the_last_lines_tell_the_reason(text: str, reason: Reason, message: str | None) -> None:
    found = end(text)
    assert found.reason is reason
    assert message is None or found.message == message


@pytest.mark.parametrize(
    ("code", "signal", "oom", "reason", "said"),
    [
        (0, "SIGKILL", False, Reason.WORKER_SIGNAL, "The user process was ended by SIGKILL."),
        (0, "SIGSEGV", True, Reason.WORKER_SIGNAL, "The user process was ended by SIGSEGV."),
        (0, "SIGKILL", True, Reason.OUT_OF_MEMORY, "it alone had 900 MB"),
        (137, "", True, Reason.OUT_OF_MEMORY, "it alone had 900 MB"),
        (137, "", False, Reason.WORKER_EXIT, "a process below it got signal 9"),
        (3, "", False, Reason.WORKER_EXIT, "exited with code 3"),
    ],
)
def test_an_end_without_words_is_judged_by_code_and_signal(
    code: int, signal: str, oom: bool, reason: Reason, said: str
) -> None:
    found = end("", code, signal, oom=oom)
    assert (found.reason, found.traceback) == (reason, "")
    assert said in found.message


def test_an_exit_with_0_is_a_success_whatever_was_written() -> None:
    assert end(raised("ValueError: handled"), code=0).reason is Reason.SUCCEEDED


def test_a_process_that_lived_long_did_not_die_of_its_port() -> None:
    assert end(TORCH_STORE, seconds=3600.0).reason is Reason.WORKER_EXIT


def test_a_script_that_is_missing_is_named() -> None:
    line = "python: can't open file '/w/train.py': [Errno 2] No such file or directory"
    assert end(line, code=2).message == line


def test_the_traceback_is_the_last_one_with_what_caused_it_and_nothing_after_it() -> None:
    assert end("noise\n" + CHAINED + "\nW0000 shutting down").traceback == CHAINED


def test_a_traceback_inside_indented_text_ends_at_its_exception() -> None:
    nested = "\n".join("    " + line for line in raised("ValueError: x").splitlines())
    assert end(nested).message == "ValueError: x"


def test_messages_and_tracebacks_are_bounded() -> None:
    found = end(raised("ValueError: " + "x" * 100_000))
    assert len(found.message) == 500
    assert len(found.traceback) == 16_000


def test_a_full_disk_names_the_path_and_what_is_free_there() -> None:
    line = "OSError: [Errno 28] No space left on device: '/data/checkpoint.pt'"
    lines = ["Traceback (most recent call last):", '  File "t.py", line 1, in <module>', line]
    found = diagnose(Ending(1, "", 5.0, lines, disk="/yarn/local/c_1/work has 12 kB free"))
    assert found.reason is Reason.DISK_FULL
    assert found.message == f"{line} (/yarn/local/c_1/work has 12 kB free)"
