"""Sleeps for that many seconds, then succeeds."""

import sys
import time

print("sleeping", flush=True)
time.sleep(float(sys.argv[1]))
