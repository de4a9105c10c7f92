"""Prints its environment, arguments, folder and import path as one JSON document."""

import json
import os
import sys

print(json.dumps({"environment": dict(os.environ), "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path}))
