"""A task that shows one behaviour of a container, named by its environment, and writes down where it ran."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

STARTED = time.time()
SEEN = Path(os.environ["EDGE_SEEN"])


def terminated(*_: object) -> None:
    (SEEN / f"term-{os.environ['TONY_TASK']}").touch()
    sys.exit(0)


def main() -> int:
    signal.signal(signal.SIGTERM, terminated)
    seen = {"at": STARTED, "environment": dict(os.environ), "files": sorted(os.listdir())}
    partial = SEEN / f".task-{os.environ['TONY_TASK']}"
    partial.write_text(json.dumps(seen))
    partial.rename(SEEN / partial.name[1:])
    print("hello from", os.environ["TONY_TASK"], flush=True)
    Path(os.environ["LOG_DIRS"].split(",")[0], "stdout.log").write_text("one\nEnd of LogType:stdout.log\ntwo\n")
    behaviour = os.environ["EDGE_BEHAVIOUR"]
    if behaviour == "eats-memory":
        eaten = bytearray(os.urandom(1024 * 1024)) * 400
        time.sleep(60)
        return len(eaten)
    if behaviour == "exits-with-3":
        return 3
    time.sleep(1 if behaviour == "runs-all-tasks" else 300)
    return 0


if __name__ == "__main__":
    sys.exit(main())
