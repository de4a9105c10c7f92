"""A real executor and a real keeper, on the real wire, against an application master that a test scripts."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_bench import JOBS, ScriptedMaster, alive, eventually, executor_process

from tony.protocol import messages


@pytest.fixture
def master() -> Iterator[ScriptedMaster]:
    scripted = ScriptedMaster()
    yield scripted
    scripted.close()


def job(name: str) -> str:
    return str(JOBS / name)


def stdout_of(folder: Path) -> str:
    return (folder / "logs" / "stdout.log").read_text()


def printed(folder: Path, text: str) -> bool:
    path = folder / "logs" / "stdout.log"
    return path.exists() and text in path.read_text()


def children_of(folder: Path) -> list[int]:
    """The processes that `forks_child.py` told of."""
    assert eventually(lambda: printed(folder, "children"))
    assert eventually(lambda: stdout_of(folder).endswith("\n"))
    return [int(word) for word in stdout_of(folder).split()[1:3]]


def begin(master: ScriptedMaster, *command: str, lease_s: float = 60.0, **environment: str) -> int:
    """Bring the executor to the point where the command runs; returns the user process's id."""
    master.greet(lease_s=lease_s)
    master.release(*command, **environment)
    return int(master.expect("started").pid)


# Ends ---------------------------------------------------------------------------------------------------------


def test_a_script_that_succeeds_is_reported_with_0_and_the_executor_leaves_when_told(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path) as process:
        result = master.run(job("exit_0.py"))
        assert (result.exit_code, result.signal, result.reason, result.generation) == (0, "", "", 1)
        assert list(result.tail) == ["hello from stderr"]
        master.leave()
        master.expect("left")
        assert process.wait(10) == 0
    assert stdout_of(tmp_path) == "hello from stdout\n"


def test_an_exception_is_reported_with_its_traceback(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        result = master.run(job("exit_1.py"))
    assert (result.exit_code, result.reason) == (1, "WORKER_EXIT")
    assert result.message == "ValueError: the loss is not a number"
    assert result.traceback.startswith("Traceback (most recent call last):")
    assert result.traceback.endswith(result.message)


def test_a_missing_module_is_told_from_other_failures(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        result = master.run(job("imports_missing_module.py"))
    assert (result.reason, result.message) == (
        "USER_IMPORT",
        "ModuleNotFoundError: No module named 'module_that_nobody_has'",
    )


def test_a_crash_is_reported_by_the_name_of_its_signal(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        result = master.run(job("kills_itself.py"))
    assert (result.exit_code, result.signal, result.reason) == (0, "SIGSEGV", "WORKER_SIGNAL")


def test_a_command_that_does_not_exist_is_a_failed_start(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        result = master.run("no-such-command")
    assert (result.phase, result.exit_code, result.reason) == (messages.Result.START, 127, "WORKER_EXIT")
    assert "No such file" in result.message


def test_a_clash_of_its_own_port_is_not_the_users_failure(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        port = master.greet().port
        master.release(job("binds_its_port.py"), OWN_PORT=str(port))
        result = master.expect("result")
    assert (result.reason, result.message) == ("PORT_CLASH", "OSError: [Errno 98] Address already in use")


def test_a_freed_port_can_be_bound_without_any_flag(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        port = master.greet().port
        master.release(job("binds_its_port.py"), hold_ports=False, OWN_PORT=str(port))
        assert master.expect("result").exit_code == 0


def test_a_page_is_told_when_it_is_there_and_again_to_a_new_master(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        port = master.greet().tensorboard_port
        master.release(job("serves_its_page.py"), TB_PORT=str(port))
        told = master.expect("url")
        assert told.kind == "tensorboard" and told.url.endswith(f":{port}/")
        master.hang_up()
        master.expect_any("hello")
        master.welcome()
        assert master.expect("url") == told


def test_a_defect_of_the_executor_is_told_with_its_traceback(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        master.greet()
        broken = messages.Release(generation=1, command=[job("exit_0.py")], packed_environment={"X": b"not zlib"})
        master.say(release=broken)
        defect = master.expect("defect")
        assert process.wait(10) == 1
    assert defect.message.startswith("the executor ended by a defect of tony: error: Error -3")
    assert "_on_release" in defect.traceback


# What the user process gets -----------------------------------------------------------------------------------


def test_the_user_process_gets_its_arguments_untouched_and_none_of_our_variables(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    arguments = ["a b", "q\"u'o", "*", "{{HOME}}", "<LOG_DIR>", "ü☃", "", "$(touch x)", "`id`", "{environment}"]
    with executor_process(master, tmp_path / "c", {"PYTHONPATH": "/elsewhere", "SKEIN_X": "1"}):
        result = master.run(job("prints_env.py"), *arguments, LD_LIBRARY_PATH="/user", TONY_RANK="0")
    assert result.exit_code == 0
    said = json.loads(stdout_of(tmp_path / "c"))
    assert said["argv"][1:] == arguments
    assert said["cwd"] == str(tmp_path / "c" / "work")
    environment = said["environment"]
    ours = {name for name in environment if name.startswith(("TONY_", "SKEIN_"))}
    assert ours == {"TONY_RANK", "TONY_REPORT_SOCKET"}
    assert environment["CONTAINER_ID"] == "container_1"
    assert environment["LD_LIBRARY_PATH"] == "/user"
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    library = environment["PYTHONPATH"].split(":")[0]
    assert sorted(os.listdir(library)) == ["tony"]
    assert environment["PYTHONPATH"].split(":")[1:] == ["/elsewhere"]
    assert not (tmp_path / "c" / "work" / "x").exists()


def test_reports_of_the_script_travel_with_the_beats(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        begin(master, job("reports_progress.py"), "3")
        seen: dict[str, float] = {}

        def reported() -> bool:
            beat = master.expect_any("beat")
            seen.update(beat.progress)
            return seen.get("step") == 4.0

        assert eventually(reported)
        assert seen["loss"] == pytest.approx(0.2)


def test_the_last_report_comes_before_the_end(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        begin(master, job("reports_progress.py"), "0")
        seen: dict[str, float] = {}
        while (message := master.arrivals.get(timeout=30)).WhichOneof("message") != "result":
            seen.update(message.beat.progress)
    assert seen["step"] == 4.0


def test_source_and_files_are_placed_and_a_damaged_archive_is_named(master: ScriptedMaster, tmp_path: Path) -> None:
    archive = tmp_path / "c" / "source.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("train.py")
        text = b"print('packed')\n"
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    with executor_process(master, tmp_path / "c"):
        master.greet(source=messages.Archive(name="source.tar.gz"))
        master.release("train.py")
        assert master.expect("result").exit_code == 0
    assert stdout_of(tmp_path / "c") == "packed\n"
    archive.write_bytes(archive.read_bytes()[:40])
    with executor_process(master, tmp_path / "c"):
        master.expect("hello")
        master.welcome(source=messages.Archive(name="source.tar.gz"))
        result = master.expect("result")
    assert (result.phase, result.reason) == (messages.Result.PREPARE, "BAD_ARCHIVE")
    assert "source.tar.gz" in result.message


def test_an_interpreter_that_does_not_run_is_reported_before_anything_starts(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path):
        master.expect("hello")
        master.welcome(user_python="/no/such/python")
        result = master.expect("result")
    assert (result.phase, result.reason) == (messages.Result.PREPARE, "BAD_ENV")
    assert result.message == "The Python interpreter /no/such/python does not exist on this node."


def test_a_workspace_that_could_not_be_prepared_is_tried_again_in_the_next_generation(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    (tmp_path / "data.txt").write_text("too short")
    with executor_process(master, tmp_path):
        master.expect("hello")
        master.welcome(files=[messages.Archive(name="data.txt", size=11)])
        assert master.expect("result").reason == "BAD_ARCHIVE"
        (tmp_path / "data.txt").write_text("long enough")
        master.say(stop_user=messages.StopUser(generation=1, next_generation=2))
        master.expect("user_stopped")
        assert master.expect("ready").generation == 2
        master.release(job("exit_0.py"), generation=2)
        assert master.expect("result").exit_code == 0


def test_a_working_directory_that_a_script_has_removed_is_made_again(master: ScriptedMaster, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("long enough")
    with executor_process(master, tmp_path):
        master.greet(files=[messages.Archive(name="data.txt", size=11)])
        master.release(job("removes_its_folder.py"))
        assert master.expect("result").signal == "SIGSEGV"
        assert not (tmp_path / "work").exists()
        master.say(stop_user=messages.StopUser(generation=1, next_generation=2))
        master.expect("user_stopped")
        assert master.expect("ready").generation == 2
        assert (tmp_path / "work" / "data.txt").read_text() == "long enough"
        master.release(job("exit_0.py"), generation=2)
        assert master.expect("result").exit_code == 0


# Generations --------------------------------------------------------------------------------------------------


def test_a_stopped_script_may_save_and_runs_again_in_the_next_generation(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path):
        begin(master, job("checkpoints_on_sigterm.py"))
        assert eventually(lambda: printed(tmp_path, "training"))
        (tmp_path / "work" / "kept").touch()
        stop = messages.StopUser(generation=1, grace_s=10, next_generation=2)
        master.say(stop_user=stop)
        stopped = master.expect("user_stopped")
        assert (stopped.generation, stopped.exit_code, stopped.signal) == (1, 0, "")
        assert printed(tmp_path, "saved")
        ready = master.expect("ready")
        assert ready.generation == 2
        master.say(stop_user=stop)
        assert master.expect("user_stopped").generation == 1
        assert master.expect("ready") == ready
        master.release(job("exit_0.py"), generation=1)
        master.release(job("exit_3.py"), generation=2)
        result = master.expect("result")
        assert (result.generation, result.exit_code) == (2, 3)
        assert (tmp_path / "work" / "kept").exists()


LIVE_ON = messages.LiveOn(generation=1, next_generation=2, grace_s=5)


def test_a_script_that_lives_on_serves_the_next_generation_and_its_end_belongs_to_that(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path):
        pid = begin(master, job("sleeps.py"), "600")
        master.say(live_on=LIVE_ON)
        ready = master.expect("ready")
        assert (ready.generation, ready.kept) == (2, True)
        master.say(live_on=LIVE_ON)
        assert master.expect("ready") == ready
        master.release(job("exit_3.py"), generation=2)
        master.say(live_on=messages.LiveOn(generation=2, next_generation=3))
        assert master.expect("ready").generation == 3
        master.release(job("exit_3.py"), generation=3)
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        result = master.expect("result")
        assert (result.generation, result.signal) == (3, "SIGKILL")


def test_a_script_that_has_ended_when_it_should_live_on_is_started_again(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path):
        begin(master, job("exit_0.py"))
        assert master.expect("result").generation == 1
        master.say(live_on=LIVE_ON)
        master.expect("user_stopped")
        ready = master.expect("ready")
        assert (ready.generation, ready.kept) == (2, False)
        master.release(job("exit_3.py"), generation=2)
        result = master.expect_any("result")
        assert (result.generation, result.exit_code) == (2, 3)


def test_a_script_that_ends_before_the_others_are_there_is_started_again_when_it_is_asked_for(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path):
        pid = begin(master, job("sleeps.py"), "600")
        master.say(live_on=LIVE_ON)
        assert master.expect("ready").kept
        os.kill(pid, signal.SIGKILL)
        assert master.expect("result").generation == 2
        master.release(job("exit_0.py"), generation=2)
        master.say(stop_user=messages.StopUser(generation=1, grace_s=5, next_generation=2))
        master.expect("user_stopped")
        ready = master.expect("ready")
        assert (ready.generation, ready.kept) == (2, False)
        master.release(job("exit_3.py"), generation=2)
        result = master.expect_any("result")
        assert (result.generation, result.exit_code) == (2, 3)


def test_a_deaf_script_is_killed_after_its_grace(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        pid = begin(master, job("ignores_sigterm.py"))
        assert eventually(lambda: printed(tmp_path, "deaf"))
        asked_at = time.monotonic()
        master.say(stop_user=messages.StopUser(generation=1, grace_s=0.5, next_generation=2))
        assert master.expect("user_stopped").signal == "SIGKILL"
        assert 0.5 <= time.monotonic() - asked_at < 2.0
        assert not alive(pid)


def test_what_a_script_leaves_running_is_ended_with_it(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        assert master.run(job("forks_child.py"), "exit").exit_code == 0
        children = children_of(tmp_path)
        assert eventually(lambda: not any(map(alive, children)), 5.0)


def test_leave_ends_a_running_script_and_the_last_words_are_kept(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        begin(master, job("checkpoints_on_sigterm.py"))
        assert eventually(lambda: printed(tmp_path, "training"))
        master.leave(grace_s=10)
        master.expect("left")
        assert process.wait(10) == 0
    assert stdout_of(tmp_path) == "training\nsaved\n"


# Death --------------------------------------------------------------------------------------------------------


def test_nothing_of_the_user_survives_a_killed_executor(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        pid = begin(master, job("forks_child.py"), "sleep")
        everybody = [pid, *children_of(tmp_path)]
        socket = Path(os.readlink(f"/proc/{pid}/cwd"))
        assert socket.exists()
        process.kill()
        assert eventually(lambda: not any(map(alive, everybody)), 3.0)


def test_nothing_of_the_user_survives_a_killed_keeper(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        pid = begin(master, job("forks_child.py"), "sleep")
        everybody = [pid, *children_of(tmp_path)]
        keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
        result = master.expect("result")
        assert (result.signal, result.reason) == ("SIGKILL", "WORKER_SIGNAL")
        assert eventually(lambda: not any(map(alive, everybody)), 3.0)


def test_a_node_manager_that_gives_a_quarter_second_is_obeyed_in_time(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        pid = begin(master, job("ignores_sigterm.py"))
        assert eventually(lambda: printed(tmp_path, "deaf"))
        process.terminate()
        assert process.wait(5) == 143
        assert eventually(lambda: not alive(pid), 1.0)


def test_a_frozen_executor_does_not_keep_the_script_beyond_its_lease(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        pid = begin(master, job("ignores_sigterm.py"), lease_s=2.0)
        assert eventually(lambda: printed(tmp_path, "deaf"))
        process.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        assert eventually(lambda: not alive(pid), 5.0)
        assert time.monotonic() - frozen_at < 4.0
        process.send_signal(signal.SIGCONT)
        assert process.wait(10) == 3


# Broken connections -------------------------------------------------------------------------------------------


def test_a_broken_stream_is_mended_while_the_script_goes_on(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        pid = begin(master, job("sleeps.py"), "60")
        master.hang_up()
        hello = master.expect("hello")
        assert (hello.generation, hello.user_running) == (1, True)
        assert master.tokens == ["", "token"]
        master.welcome()
        assert master.nothing_but_beats(0.5)
        assert alive(pid)


def test_a_result_is_repeated_until_it_is_acknowledged_also_in_the_next_hello(
    master: ScriptedMaster, tmp_path: Path
) -> None:
    with executor_process(master, tmp_path):
        assert master.run(job("exit_3.py")).exit_code == 3
        assert master.expect("result").exit_code == 3
        master.hang_up()
        hello = master.expect("hello")
        assert (hello.result.exit_code, hello.user_running) == (3, False)
        master.welcome()
        assert master.expect("result").exit_code == 3
        master.say(result_ack=messages.ResultAck(generation=1))
        assert master.nothing_but_beats(2.5)


def test_a_ready_executor_says_so_again_after_a_break(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        ready = master.greet()
        master.refuse_next = 1
        master.hang_up()
        assert master.expect("hello").ready == ready
        master.welcome()
        assert master.expect("ready") == ready
        master.release(job("exit_0.py"))
        assert master.expect("result").exit_code == 0


def test_a_welcome_to_a_newer_generation_replaces_a_lost_stop(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        pid = begin(master, job("sleeps.py"), "60")
        master.hang_up()
        master.expect("hello")
        master.welcome(generation=3)
        assert master.expect("user_stopped").generation == 1
        assert master.expect("ready").generation == 3
        assert not alive(pid)


def test_without_contact_for_its_lease_the_executor_stops_the_script_and_ends_with_3(tmp_path: Path) -> None:
    master = ScriptedMaster()
    with executor_process(master, tmp_path) as process:
        pid = begin(master, job("ignores_sigterm.py"), lease_s=2.0)
        assert eventually(lambda: printed(tmp_path, "deaf"))
        master.close()
        assert process.wait(10) == 3
        assert not alive(pid)


def test_a_refused_executor_stops_its_script_and_ends(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        pid = begin(master, job("sleeps.py"), "60")
        master.say(refused=messages.Refused(reason="replaced"))
        assert process.wait(15) == 0
        assert not alive(pid)


# Output -------------------------------------------------------------------------------------------------------


def test_output_is_sent_from_the_beginning_and_live_until_the_end(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        begin(master, job("checkpoints_on_sigterm.py"))
        assert eventually(lambda: printed(tmp_path, "training"))
        master.say(send_output=messages.SendOutput(request_id="1", stream="stdout", tail_lines=-1, follow=True))
        first = master.chunks.get(timeout=10)
        assert first is not None and (first.data, first.task, first.stream) == (b"training\n", "worker:0", "stdout")
        master.leave(grace_s=10)
        second = master.chunks.get(timeout=10)
        assert second is not None and second.data == b"saved\n"
        assert master.chunks.get(timeout=10) is None
        master.expect("left")


def test_a_flood_is_bounded_and_its_last_line_arrives(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path):
        result = master.run(job("floods_stdout.py"), "60")
        assert result.exit_code == 0
        master.say(send_output=messages.SendOutput(request_id="1", stream="stdout", tail_lines=1, follow=True))
        master.leave()
        master.expect("left")
    written = (tmp_path / "logs" / "stdout.log").stat().st_size
    assert written < 40 * 10**6
    text = (tmp_path / "logs" / "stdout.log").read_bytes()
    assert b"bytes of output dropped: more than 10 MB/s" in text


# Weight -------------------------------------------------------------------------------------------------------


def test_an_idle_executor_stays_below_60_mb_and_imports_nothing_heavy(master: ScriptedMaster, tmp_path: Path) -> None:
    with executor_process(master, tmp_path) as process:
        begin(master, job("sleeps.py"), "60")
        time.sleep(1.0)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident_kb = int(status.partition("VmRSS:")[2].split()[0])
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
    assert resident_kb < 60 * 1024
    assert "cygrpc" in mapped
    assert not [name for name in ("cryptography", "msgspec", "numpy", "yaml") if f"/{name}/" in mapped]
