"""Runs for ever in its first generation, and succeeds in the next."""

import os
import time

print("generation", os.environ["TONY_GENERATION"], flush=True)
if os.environ["TONY_GENERATION"] == "1":
    time.sleep(600)
