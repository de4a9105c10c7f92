"""Which codec a process uses."""

from __future__ import annotations

import functools
import logging
import os

from tony.gradients.codec import Codec
from tony.gradients.codec.build import load
from tony.gradients.codec.native import Native
from tony.gradients.codec.reference import Reference

log = logging.getLogger(__name__)

MOST_THREADS = 4
"""More do not help: two already move bytes as fast as most machines' memory."""


@functools.cache
def choose(threads: int | None = None) -> Codec:
    """The native codec, or numpy where it cannot be built. One per process and thread count.

    The first call may block for seconds while it compiles. `threads`: by default one for each core this process
    may use, at most four.
    """
    library = load()
    if library is None:
        return Reference()
    codec = Native(library, threads or min(MOST_THREADS, len(os.sched_getaffinity(0))))
    log.info("gradients are quantized by the native codec (%s)", codec.name)
    return codec
