"""Starts two processes that would outlive it, one in a session of its own, prints their ids, then exits or sleeps.

Arguments: ``exit`` or ``sleep``.
"""

import subprocess
import sys
import time

_SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
_DEAF = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]

children = [subprocess.Popen(_SLEEP), subprocess.Popen(_DEAF, start_new_session=True)]
print("children", *(child.pid for child in children), flush=True)
if sys.argv[1] == "sleep":
    time.sleep(600)
