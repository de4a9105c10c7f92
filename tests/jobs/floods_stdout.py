"""Writes that many megabytes to stdout as fast as it can, then a last line."""

import os
import sys

line = b"x" * 99 + b"\n"
block = line * 10_000
for _ in range(int(sys.argv[1])):
    os.write(1, block)
os.write(1, b"the last line\n")
