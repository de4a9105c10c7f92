"""What NodeManagers of the local cluster call as their `container-executor`. For development on one machine only.

YARN's own Docker runtime does all that it does on a production cluster: it reads the job's variables, checks names,
mounts and networks, and writes what to run into files. Only the native last step, a setuid program of root's that no
package registry carries, is this file. It gives no separation of users (everything runs as the cluster's owner), no
cgroups and no traffic control; whoever may use the Docker engine is as good as root on this machine.

Runs in `python -IS`, so standard library only. A file ``container-executor.ini`` beside it names the Docker client
and, optionally, what is allowed, like the ``[docker]`` section of a real ``container-executor.cfg``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

EXIT_DOCKER_RUN = 7
EXIT_SIGNAL_FAILED = 8
EXIT_NO_SUCH_PROCESS = 9
EXIT_REFUSED = 29
EXIT_UNSUPPORTED = 32
EXIT_DELETE_FAILED = 255

_RETRY_S = 3.0
"""The real program asks so often whether an exit code of 0 is really meant."""
_SECTION = "[docker-command-execution]"
_LIST = ","
_MODES = (":ro", ":rw")


class Refused(Exception):
    """What the policy forbids. The text reaches the container's diagnostics."""


class Policy:
    """The file beside this program: one ``key = value`` a line. A key that is absent forbids nothing."""

    def __init__(self, path: str) -> None:
        self._values: dict[str, str] = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    key, separator, value = line.partition("=")
                    if separator and not line.lstrip().startswith(("#", ";", "[")):
                        self._values[key.strip()] = value.strip()

    def text(self, key: str, default: str) -> str:
        return self._values.get(key, default)

    def allows(self, key: str, value: str) -> bool:
        allowed = self.words(key)
        return allowed is None or value in allowed

    def words(self, key: str) -> list[str] | None:
        """The list that a key holds, None when it is absent."""
        text = self._values.get(key)
        return None if text is None else [word.strip() for word in text.split(_LIST) if word.strip()]

    def client(self) -> list[str]:
        """The Docker client as the start of a command."""
        host = self._values.get("host")
        return [self.text("binary", "docker"), *([f"--host={host}"] if host else [])]


class Command:
    """A ``.cmd`` file of the NodeManager's: what it wants of the Docker client."""

    def __init__(self, path: str) -> None:
        self._values: dict[str, str] = {}
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                key, separator, value = line.strip().partition("=")
                if separator and line.strip() != _SECTION:
                    self._values[key.strip()] = value.strip()

    def get(self, key: str) -> str:
        return self._values.get(key, "")

    def words(self, key: str) -> list[str]:
        return [word for word in self.get(key).split(_LIST) if word]

    def name(self, key: str) -> str:
        """A value that stands alone in the client's command line. Raises Refused where it could be an option."""
        value = self.get(key)
        if not value or value.startswith("-"):
            raise Refused(f"Invalid {key} '{value}'")
        return value


def run_arguments(command: Command, policy: Policy, own_folders: Sequence[str]) -> list[str]:
    """``docker run`` as the file says. The node's `own_folders` may always be mounted. Raises Refused."""
    image = command.name("image")
    if command.get("privileged") == "true":
        raise Refused("Privileged containers are disabled")
    if command.get("use-entry-point") == "true" or command.get("service-mode") == "true":
        raise Refused("The image's entry point is not used here")
    trusted = _trusted(image, policy)
    if not trusted:
        print(f"image: {image} is not trusted. Disable mount volume for untrusted image", file=sys.stderr)
    arguments = ["run", "--detach", f"--name={command.name('name')}", f"--label={policy.text('label', 'tony')}"]
    for key, option in (("user", "user"), ("workdir", "workdir"), ("hostname", "hostname"), ("pid", "pid")):
        if command.get(key):
            arguments.append(f"--{option}={command.get(key)}")
    network = command.get("net")
    if network:
        if not policy.allows("networks", network):
            raise Refused(f"Disallowed docker network '{network}'")
        arguments.append(f"--net={network}")
    arguments += ["--cap-drop=ALL", *(f"--group-add={group}" for group in command.words("group-add"))]
    arguments += [f"--publish={port}" for port in command.words("ports-mapping")]
    if trusted:
        arguments += _trusted_arguments(command, policy, own_folders)
    if command.get("environ"):
        arguments.append(f"--env-file={command.get('environ')}")
    return [*arguments, image, *command.words("launch-command")]


def _trusted_arguments(command: Command, policy: Policy, own_folders: Sequence[str]) -> list[str]:
    """What only images of trusted registries get."""
    found = []
    for kind, key, option in (
        ("capabilities", "cap-add", "cap-add"),
        ("devices", "devices", "device"),
        ("runtimes", "runtime", "runtime"),
    ):
        for value in command.words(key):
            if not policy.allows(kind, value):
                raise Refused(f"Invalid param '{value}' requested for {key}")
            found.append(f"--{option}={value}")
    for mount in command.words("mounts"):
        source, target = mount_of(mount, policy, own_folders)
        found.append(f"--volume={source}:{target}")
    return found + [f"--tmpfs={place}" for place in command.words("tmpfs")]


def _trusted(image: str, policy: Policy) -> bool:
    registries = policy.words("trusted-registries")
    if registries is None:
        return True
    registry, separator, _ = image.partition("/")
    return (registry if separator else "library") in registries


def mount_of(mount: str, policy: Policy, own_folders: Sequence[str]) -> tuple[str, str]:
    """The source, without links, and ``target:mode``. Raises Refused for what the policy does not allow."""
    source, _, rest = mount.partition(":")
    if not os.path.exists(source):
        raise Refused(f"Could not determine real path of mount '{source}'")
    real = os.path.realpath(source)
    writable = not rest.endswith(":ro") and not rest.startswith("ro")
    allowed = policy.words("rw-mounts")
    if not writable and allowed is not None:
        allowed = [*allowed, *(policy.words("ro-mounts") or [])]
    elif not writable:
        allowed = policy.words("ro-mounts")
    places = [os.path.realpath(place) for place in (*(allowed or ()), *own_folders)]
    inside = any(real == place or real.startswith(place.rstrip("/") + "/") for place in places)
    if allowed is not None and not inside:
        raise Refused(f"Configuration does not allow mount src='{source}', dest='{rest.rsplit(':', 1)[0]}'")
    return real, rest


def client_arguments(command: Command) -> list[str]:
    """Any other call of the Docker client. Raises Refused for one that NodeManagers do not make."""
    kind = command.get("docker-command")
    if kind == "inspect":
        return ["inspect", f"--format={command.get('format')}", command.name("name")]
    if kind == "kill":
        return ["kill", f"--signal={command.name('signal')}", command.name("name")]
    if kind == "stop":
        return ["stop", f"--time={command.get('time') or '10'}", command.name("name")]
    if kind in ("rm", "start"):
        return [kind, command.name("name")]
    if kind in ("pull", "load"):
        return [kind, command.name("image")] if kind == "pull" else [kind, f"--input={command.get('image')}"]
    if kind == "images":
        return ["images", "--format={{json .}}", "--filter=dangling=false", command.name("image")]
    raise Refused(f"docker-command '{kind}' is not known here")


# Folders and files ------------------------------------------------------------------------------------------------


def _make(path: str, mode: int = 0o750) -> None:
    os.makedirs(path, mode, exist_ok=True)
    os.chmod(path, mode)


def _copy(source: str, target: str, mode: int) -> None:
    with open(source, "rb") as reader:
        content = reader.read()
    _write(target, content, mode)


def _write(target: str, content: bytes, mode: int = 0o644) -> None:
    """The whole file at once, so that the NodeManager never reads half of it."""
    partial = target + ".tmp"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as writer:
        writer.write(content)
    os.rename(partial, target)


def _delete(path: str) -> bool:
    """Remove a file or a tree, read-only folders in it included. Whether it is gone."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        import shutil

        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _prepare(user: str, app: str, container: str, local_folders: list[str], log_folders: list[str]) -> str:
    """The folders of an application; returns its first one."""
    homes = []
    for folder in local_folders:
        home = os.path.join(folder, "usercache", user)
        _make(home)
        _make(os.path.join(home, "appcache"), 0o710)
        homes.append(os.path.join(home, "appcache", app))
        _make(homes[-1], 0o710)
    for folder in log_folders:
        _make(os.path.join(folder, app), 0o710)
        _make(os.path.join(folder, app, container), 0o750)
    return homes[0]


# What NodeManagers ask for ----------------------------------------------------------------------------------------


def initialize(user: str, words: list[str]) -> int:
    """Make an application's folders, and become the localizer that fetches its files."""
    app, container, tokens, local_folders, log_folders, *localizer = words
    home = _prepare(user, app, container, local_folders.split("%"), log_folders.split("%"))
    _copy(tokens, os.path.join(home, os.path.basename(tokens)), 0o600)
    os.chdir(home)
    os.execvp(localizer[0], localizer)


class Launch:
    """The words of a launch: ``app container work script tokens --http|--https k t pid-file locals logs last``."""

    def __init__(self, user: str, words: list[str]) -> None:
        self.app, self.container, self.work, self.script, self.tokens, scheme, *rest = words
        if scheme == "--https":
            rest = rest[2:]
        self.pid_file, local_folders, log_folders, self.last = rest[:4]
        self.folders = [*local_folders.split("%"), *log_folders.split("%")]
        _prepare(user, self.app, self.container, local_folders.split("%"), log_folders.split("%"))

    def fill(self, *more: str) -> None:
        """The container's folder with its script and tokens."""
        _make(self.work, 0o710)
        for name in ("tmp", "private_slash_tmp", "private_var_slash_tmp", *more):
            _make(os.path.join(self.work, name), 0o710)
        _copy(self.script, os.path.join(self.work, "launch_container.sh"), 0o700)
        _copy(self.tokens, os.path.join(self.work, "container_tokens"), 0o600)

    def started(self, pid: int) -> None:
        _write(self.pid_file, str(pid).encode())

    def ended(self, code: int) -> int:
        _write(self.pid_file + ".exitcode", str(code).encode())
        return code


def launch(user: str, words: list[str], policy: Policy) -> int:
    """Run a container's script as a process of this machine; returns its exit code, or 128 and the signal."""
    asked = Launch(user, words)
    asked.fill()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        asked.started(os.getpid())
        os.chdir(asked.work)
        script = os.path.join(asked.work, "launch_container.sh")
        path = policy.text("path", "")
        os.execve(script, [script], {**({"PATH": path} if path else {}), **os.environ})
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return asked.ended(code if code >= 0 else 128 - code)


def launch_docker(user: str, words: list[str], policy: Policy) -> int:
    """Run a container's script in Docker; returns when the container has ended."""
    asked = Launch(user, words)
    asked.fill("sysfs")
    command = Command(asked.last)
    arguments = run_arguments(command, policy, asked.folders)
    config = command.get("docker-config")
    client = [*policy.client(), *([f"--config={config}"] if config else [])]
    began = subprocess.run([*client, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if began.returncode != 0:
        print(f"Docker container creation failed with {began.returncode}", file=sys.stderr)
        return asked.ended(EXIT_DOCKER_RUN)
    name = command.name("name")
    pid = _asked_of(client, ["inspect", "--format={{.State.Pid}}", name])
    if pid.isdigit() and int(pid):
        asked.started(int(pid))
    code = _asked_of(client, ["wait", name])
    if code == "0":
        time.sleep(_RETRY_S * (int(policy.text("inspect-max-retries", "1")) - 1))
    return asked.ended(int(code) if code.isdigit() else EXIT_DOCKER_RUN)


def _asked_of(client: list[str], arguments: list[str]) -> str:
    done = subprocess.run([*client, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def send_signal(words: list[str]) -> int:
    """A signal to a container's process group; to the process alone where it leads none."""
    pid, number = int(words[0]), int(words[1])
    for send in (os.killpg, os.kill):
        try:
            send(pid, number)
            return 0
        except ProcessLookupError:
            continue
        except OSError:
            return EXIT_SIGNAL_FAILED
    return EXIT_NO_SUCH_PROCESS


def delete(words: list[str]) -> int:
    """Remove a path below each of some folders; the folders themselves when the path is empty."""
    below, *bases = words
    paths = [os.path.join(base, below) if below else base for base in bases] or [below]
    gone = [_delete(path.rstrip("/")) for path in paths]
    return 0 if all(gone) else EXIT_DELETE_FAILED


def list_folder(words: list[str]) -> int:
    for name in sorted(os.listdir(words[0])):
        print(name)
    return 0


def _become(client: list[str], arguments: Sequence[str]) -> int:
    os.execvp(client[0], [*client, *arguments])


def _remove_container(words: list[str], policy: Policy) -> int:
    done = subprocess.run([*policy.client(), "rm", "--force", words[-1]], stdin=subprocess.DEVNULL)
    return 0 if done.returncode == 0 else EXIT_REFUSED


def of_option(words: list[str], policy: Policy) -> int:
    """``container-executor --option …``"""
    option, rest = words[0], words[1:]
    if option in ("--checksetup", "--module-gpu"):
        # Nothing is set up, and GPUs are counted, not kept apart.
        return 0
    if option == "--run-docker":
        return _become(policy.client(), client_arguments(Command(rest[0])))
    if option == "--inspect-docker-container":
        return _become(policy.client(), ["inspect", *rest])
    if option == "--remove-docker-container":
        return _remove_container(rest, policy)
    print(f"{option} is not supported by this stand-in", file=sys.stderr)
    return EXIT_UNSUPPORTED


def of_user(words: list[str], policy: Policy) -> int:
    """``container-executor <run-as user> <yarn user> <number> …``"""
    user, number, rest = words[1], words[2], words[3:]
    calls: Mapping[str, Callable[[], int]] = {
        "0": lambda: initialize(user, rest),
        "1": lambda: launch(user, rest, policy),
        "2": lambda: send_signal(rest),
        "3": lambda: delete(rest),
        "4": lambda: launch_docker(user, rest, policy),
        "5": lambda: list_folder(rest),
    }
    if number not in calls:
        print(f"operation {number} is not supported by this stand-in", file=sys.stderr)
        return EXIT_UNSUPPORTED
    return calls[number]()


def main(words: list[str], policy_file: str) -> int:
    """Do one thing for a NodeManager; returns the exit code it expects. A launch blocks while its container runs."""
    os.umask(0o027)
    policy = Policy(policy_file)
    try:
        return of_option(words, policy) if words[0].startswith("--") else of_user(words, policy)
    except Refused as refused:
        print(f"{refused} (refused by the local cluster's policy)", file=sys.stderr)
        return EXIT_REFUSED


if __name__ == "__main__":
    # A NodeManager that is asked to end must not take the launchers of its containers with it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(main(sys.argv[1:], os.path.splitext(os.path.realpath(__file__))[0] + ".ini"))
