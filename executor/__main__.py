"""``python -m executor``: one task's executor, in a container that the application master started."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from executor.environment import ContainerEnvironment
from executor.executor import Executor, Terminated
from executor.link import Connection
from executor.process import adopt_orphans, end_with_master
from tony.errors import TonyError
from tony.protocol.credentials import Credentials
from tony.protocol.executor_client import TaskConnection

log = logging.getLogger(__name__)


def main() -> int:
    """Environment, log, signals, conversation. Returns only if it cannot start."""
    try:
        container = ContainerEnvironment.from_environ()
        container.log_folder.mkdir(parents=True, exist_ok=True)
        _log_to(container)
        credentials = Credentials(container.certificate.read_text(), container.private_key.read_text())
        adopt_orphans()
        if container.backend == "local":
            end_with_master()
        executor = Executor(container, _opener(container, credentials))
    except (TonyError, OSError) as error:
        sys.stderr.write(f"tony: the executor cannot start: {error}\n")
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: executor.post(Terminated(number)))
    try:
        code = executor.run()
    except Exception:
        log.exception("the executor ends by a defect of its own")
        code = 1
    log.info("the executor ends with %d", code)
    logging.shutdown()
    # Threads of gRPC may still be busy; the end of this process must not depend on them.
    os._exit(code)


def _opener(container: ContainerEnvironment, credentials: Credentials) -> Callable[[str], Connection]:
    def open_connection(token: str) -> Connection:
        return TaskConnection(container.am_address, credentials, container.task, container.incarnation, token)

    return open_connection


def _log_to(container: ContainerEnvironment) -> None:
    """Sentences about ourselves: all into a file among the user's logs, the serious ones to stderr too."""
    form = logging.Formatter(f"%(asctime)s {container.task} %(levelname).1s %(message)s")
    stderr = logging.StreamHandler()
    stderr.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in (logging.FileHandler(container.log_folder / "executor.log"), stderr):
        handler.setFormatter(form)
        root.addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
