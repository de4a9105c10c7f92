"""Leaves nothing of its working directory, and crashes."""

import os
import shutil
import signal

shutil.rmtree(os.getcwd())
os.kill(os.getpid(), signal.SIGSEGV)
