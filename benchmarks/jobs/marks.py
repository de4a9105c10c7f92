"""The user's script of the launch benchmark: marks its first and its last line, and may sleep between them.

marks.py FOLDER [SECONDS]
"""

import os
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
(folder / f"{os.getpid()}.first").write_text(repr(time.time()))
print("first line", flush=True)
time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
(folder / f"{os.getpid()}.last").write_text(repr(time.time()))
