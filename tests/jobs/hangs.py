"""Reports a step and then waits for ever, like a rank whose peer is gone."""

import threading

from tony import current

current().report(step=1)
print("waiting", flush=True)


def waits_for_a_peer() -> None:
    threading.Event().wait()


waits_for_a_peer()
