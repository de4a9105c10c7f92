"""``python -m tony``: the same as the command ``tony``."""

from __future__ import annotations

import sys

from tony.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
