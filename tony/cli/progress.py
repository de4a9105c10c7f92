"""Steps of packing and uploading as one line that moves, on a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from tony.cli.output import Output
from tony.containers import SubmitProgress
from tony.units import format_bytes

_EVERY_S = 0.1


class ProgressLine:
    """Call it with each `SubmitProgress`; draws at most ten times a second. Without a terminal it is silent."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._drawn_at = 0.0
        self._step = ""

    def __call__(self, progress: SubmitProgress) -> None:
        now = time.monotonic()
        if progress.step == self._step and now - self._drawn_at < _EVERY_S and progress.done < progress.total:
            return
        self._step, self._drawn_at = progress.step, now
        unit = f"{format_bytes(progress.done)} of {format_bytes(progress.total)}" if progress.total else ""
        self._output.bar(progress.step, progress.done, progress.total, unit)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.bar_done()
