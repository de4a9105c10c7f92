"""Rows of text as columns, without a line that is longer than it must be."""

from __future__ import annotations

from collections.abc import Sequence

from tony.cli.output import safe

_GAP = "  "


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int = 80) -> list[str]:
    """The lines of the table. Columns that are empty in every row are left out; the widest one is cut to fit."""
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    used = [i for i in range(len(heads)) if not cells or any(row[i] for row in cells)]
    widths = {i: max(len(heads[i]), *(len(row[i]) for row in cells), 0) for i in used}
    over = sum(widths.values()) + len(_GAP) * (len(used) - 1) - width
    if over > 0 and widths:
        widest = max(widths, key=lambda i: widths[i])
        widths[widest] = max(8, len(heads[widest]), widths[widest] - over)
    return [_line(row, widths) for row in [list(heads), *cells]]


def _line(row: Sequence[str], widths: dict[int, int]) -> str:
    return _GAP.join(_cut(row[i], width).ljust(width) for i, width in widths.items()).rstrip()


def _cut(text: str, width: int) -> str:
    """The end of a long name tells more than its beginning."""
    return text if len(text) <= width else ".." + text[len(text) - width + 2 :]
