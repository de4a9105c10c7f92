"""Rows of text as columns, without a line that is longer than it must be."""

from __future__ import annotations

from collections.abc import Sequence

from tony.text import safe

_GAP = "  "
_LEAST = 9


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int = 80) -> list[str]:
    """The lines of the table. Columns that are empty in every row are left out.

    Too wide, the widest are cut, but never the first, which is there to be copied; then the last ones are left out.
    """
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    used = [i for i in range(len(heads)) if not cells or any(row[i] for row in cells)]
    widths = {i: max(len(heads[i]), *(len(row[i]) for row in cells), 0) for i in used}
    while (over := sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width) > 0 and len(widths) > 1:
        first, *others = widths
        widest = max(others, key=lambda i: widths[i])
        if widths[widest] > _LEAST:
            widths[widest] = max(_LEAST, widths[widest] - over)
        else:
            del widths[others[-1]]
    return [_line(row, widths) for row in [list(heads), *cells]]


def _line(row: Sequence[str], widths: dict[int, int]) -> str:
    return _GAP.join(_cut(row[i], width).ljust(width) for i, width in widths.items()).rstrip()


def _cut(text: str, width: int) -> str:
    """The end of a long name tells more than its beginning."""
    return text if len(text) <= width else ".." + text[len(text) - width + 2 :]
