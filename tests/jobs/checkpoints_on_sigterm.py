"""Uses the grace after SIGTERM to save, then exits with 0."""

import signal
import sys
import time


def save(*_: object) -> None:
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(600)
