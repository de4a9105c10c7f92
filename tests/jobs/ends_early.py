"""Task 1 ends with 0; the others wait for it for ever."""

import os
import threading

if os.environ["TONY_INDEX"] != "1":
    threading.Event().wait()
