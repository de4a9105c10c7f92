"""In its first generation worker:1 ends as with a broken GPU; all others wait. Later all succeed."""

import os
import sys
import time

if os.environ["TONY_GENERATION"] == "1":
    if os.environ["TONY_INDEX"] == "1":
        sys.exit("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.")
    time.sleep(600)
