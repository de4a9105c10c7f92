"""The two bash texts that YARN starts for us: the supervisor of the application master, and an executor."""

from __future__ import annotations

import shlex

LAUNCHER = "tony-launch.py"
MAX_STARTS = 5
START_WINDOW_S = 600
UNUSABLE = 78
"""The launcher's exit code for an interpreter or a bundle that cannot run on this node, however often."""

# What a container inherits says nothing about the user's machine: sane text handling, no bytecode beside the sources,
# and no Java options of the master's JVM for other Java programs.
_ENVIRONMENT = """\
unset _JAVA_OPTIONS JDK_JAVA_OPTIONS JAVA_TOOL_OPTIONS PYTHONHOME PYTHONPATH PYTHONSTARTUP
export LANG="${LANG:-C.UTF-8}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1
"""

# fd 9 is a pipe that nobody writes to: reading from it with a timeout is a sleep that starts no process.
_SUPERVISOR = """\
export TONY_APPLICATION_ID="$SKEIN_APPLICATION_ID"
python=@PYTHON@
child=
stopping=
starts=()
exec 9<> <(:)

say() { echo "tony supervisor: $*" >&2; }
nap() { read -r -t "$1" -u 9 _ || :; }
orphaned() {
    local stat
    read -r stat < "/proc/$$/stat" || return 1
    set -- ${stat##*) }
    [ "$2" != "$parent" ]
}
polite() {
    stopping=1
    [ -n "$child" ] && kill -TERM "$child" 2>/dev/null
}
trap polite TERM INT HUP

parent=$PPID
while :; do
    recent=()
    for started in "${starts[@]}"; do
        [ $((SECONDS - started)) -lt @WINDOW@ ] && recent+=("$started")
    done
    starts=("${recent[@]}" "$SECONDS")
    "$python" -I @LAUNCHER@ appmaster 9>&- &
    child=$!
    [ -n "$stopping" ] && kill -TERM "$child" 2>/dev/null
    while kill -0 "$child" 2>/dev/null; do
        nap 0.2
        if orphaned; then
            say "the JVM is gone; ending"
            kill -TERM "$child" 2>/dev/null
            for _ in {1..50}; do kill -0 "$child" 2>/dev/null && nap 0.2; done
            kill -KILL "$child" 2>/dev/null
            exit 1
        fi
    done
    wait "$child"
    code=$?
    child=
    [ "$code" -eq 0 ] && exit 0
    [ -n "$stopping" ] || [ "$code" -eq @UNUSABLE@ ] && exit "$code"
    say "the application master ended with $code, start ${#starts[@]} of @STARTS@ in @WINDOW@ s"
    [ "${#starts[@]}" -ge @STARTS@ ] && exit "$code"
    nap 1
done
"""


def master_script(python: str) -> str:
    """Runs the Python application master, again when it crashes, at most `MAX_STARTS` times in `START_WINDOW_S`.

    Passes TERM on, ends when skein's JVM is gone, and exits with the last exit code: 0 after a regular end.
    """
    text = _SUPERVISOR
    for mark, value in {
        "@PYTHON@": shlex.quote(python),
        "@LAUNCHER@": LAUNCHER,
        "@STARTS@": str(MAX_STARTS),
        "@WINDOW@": str(START_WINDOW_S),
        "@UNUSABLE@": str(UNUSABLE),
    }.items():
        text = text.replace(mark, value)
    return _ENVIRONMENT + text


_IN_IMAGE = """\
python=@PYTHON@
image=$YARN_CONTAINER_RUNTIME_DOCKER_IMAGE
[ -e /.dockerenv ] || [ -e /run/.containerenv ] || {
    echo "tony: YARN has not started this task in Docker: this node runs no Docker containers." >&2
    exit @UNUSABLE@
}
command -v -- "$python" >/dev/null || {
    echo "tony: the image $image has no $python. Say which it has: --image-python" >&2
    exit @UNUSABLE@
}
said=$("$python" -I -S -c 'print("Python")' 2>&1)
[ "$said" = Python ] || {
    echo "tony: $python of the image $image is no Python that runs: ${said##*$'\\n'}" >&2
    exit @UNUSABLE@
}
exec "$python" -I @LAUNCHER@ executor
"""


def image_script(python: str) -> str:
    """As `executor_script`, inside a Docker container: `python` is the image's, a path or a name in its PATH.

    A NodeManager without the Docker runtime ignores that it was asked for; then nothing is run.
    """
    text = _IN_IMAGE.replace("@UNUSABLE@", str(UNUSABLE)).replace("@LAUNCHER@", LAUNCHER)
    return _ENVIRONMENT + text.replace("@PYTHON@", shlex.quote(python))


def executor_script(python: str) -> str:
    """Becomes the executor, so that YARN's TERM reaches it."""
    return f"{_ENVIRONMENT}exec {shlex.quote(python)} -I {LAUNCHER} executor\n"
