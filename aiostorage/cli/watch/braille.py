"""Lines drawn with braille characters: each has two columns of four dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["braille_steps"]

_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bits of the left and of the right column, from above."""


def braille_steps(values: Sequence[float], width: int, height: int) -> list[str]:
    """Draw a line of steps.

    Parameters
    ----------
    values
        At equal distances, the first one at the left. Infinite ones are at the edge.
    width, height
        Characters.

    Returns
    -------
    list of str
        Lines of text, the greatest value in the first one.
    """
    cells = [[0] * width for _ in range(height)]
    if values:
        columns = _resampled(values, 2 * width)
        rows = _rows(columns, 4 * height)
        before = rows[0]
        for column, row in enumerate(rows):
            for y in range(min(before, row), max(before, row) + 1):
                cells[y // 4][column // 2] |= _DOTS[column % 2][y % 4]
            before = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]


def _resampled(values: Sequence[float], count: int) -> list[float]:
    """Return one value per column; if there are several in a column, the last one."""
    return [values[((i + 1) * len(values) - 1) // count] for i in range(count)]


def _rows(values: Sequence[float], height: int) -> list[int]:
    """Return the row of each value, 0 for the greatest."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    if low == high:
        return [height // 2] * len(values)
    scale = (height - 1) / (high / 2 - low / 2)  # halves: no range is infinite
    return [round((high / 2 - min(max(value, low), high) / 2) * scale) for value in values]
