"""Ends by a signal, as after a crash in native code."""

import os
import signal

os.kill(os.getpid(), signal.SIGSEGV)
