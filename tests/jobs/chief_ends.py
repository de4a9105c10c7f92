"""The chief works for a second; every other task would go on for ever."""

import os
import threading
import time

if os.environ["TONY_ROLE"] != "chief":
    threading.Event().wait()
time.sleep(1.0)
