"""The user's script of the packaging benchmark: marks its first line and which copy of the environment it runs in.

environment.py FOLDER
"""

import os
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
begun_at = time.time()
# The file itself, not its path: each container may see one copy under another name.
found = next((path for path in (Path(sys.prefix), Path("env")) if (path / "pyvenv.cfg").exists()), None)
copy = os.stat(found / "pyvenv.cfg").st_ino if found else 0
(folder / f"{os.getpid()}.first").write_text(repr(begun_at))
(folder / f"{os.getpid()}.copy").write_text(str(copy))
