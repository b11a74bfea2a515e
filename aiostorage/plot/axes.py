"""Axes: the numbers that represent the values of a parameter, and their labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Final, Literal

__all__ = [
    "MISSING",
    "PlotAxis",
    "axis_label",
    "inner_ticks",
    "is_log_scale",
    "make_axis",
    "outlier_limit",
]

MISSING: Final = object()
"""The value of a parameter that a trial does not have."""

_MAX_CATEGORIES: Final = 20
"""More categories than that cannot be distinguished; the rarer ones share one place."""

_MAX_LABEL_LENGTH: Final = 28
_MIN_LOG_RATIO: Final = 100.0
"""Positive numbers get a logarithmic scale if the greatest tenth is so many times the smallest."""


@dataclass(frozen=True)
class PlotAxis:
    """The places of values on an axis.

    Parameters
    ----------
    kind
        The kind of scale. Values on a logarithmic axis are placed by their decimal logarithm.
    places
        One number for each value; None for one that cannot be placed.
    ticks
        The places with a label, and the labels; empty if plotly may choose.
    low, high
        The range of the places.
    """

    name: str
    kind: Literal["linear", "log", "category"]
    places: Sequence[float | None]
    ticks: Sequence[tuple[float, str]]
    low: float
    high: float

    @property
    def lost(self) -> int:
        """The number of values that cannot be placed."""
        return sum(place is None for place in self.places)


def make_axis(
    name: str, values: Iterable[Any], *, log: bool = False, linear: bool = False
) -> PlotAxis:
    """Return the axis of a parameter or of the objective.

    Numbers get a linear or a logarithmic axis, anything else one place for each category. A bool
    is a category.

    Parameters
    ----------
    values
        One for each trial; `MISSING` is a place of its own, beside the numbers.
    log
        Ask for a logarithmic scale: values that are not positive cannot be placed.
    linear
        Forbid one.
    """
    found = list(values)
    present = [value for value in found if value is not MISSING]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in present):
        return _category_axis(name, found)
    numbers = [number for number in map(_finite, present) if number is not None]
    if not linear and (log or is_log_scale(numbers)):
        return _log_axis(name, found)
    places = [None if value is MISSING else _finite(value) for value in found]
    low, high = _range(places)
    if MISSING not in found:
        return PlotAxis(name, "linear", places, _few_ticks(present), low, high)
    return _with_missing(
        PlotAxis(name, "linear", places, _linear_ticks(low, high), low, high), found
    )


def is_log_scale(numbers: Collection[float]) -> bool:
    """Return whether numbers are positive and most of them span two powers of ten or more."""
    ordered = sorted(numbers)
    if not ordered or ordered[0] <= 0:
        return False
    return ordered[9 * len(ordered) // 10] / ordered[len(ordered) // 10] >= _MIN_LOG_RATIO


def outlier_limit(numbers: Collection[float], *, above: bool) -> float | None:
    """Return the number beyond which others are outliers on one side; None if there are none.

    Outliers are farther from the middle half than three times its width. Without a limit, a few of
    them would take nearly all of an axis or a colour scale.
    """
    ordered = sorted(numbers)
    if len(ordered) < 8:
        return None
    first, third = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    reach = 3 * (third - first)
    if above:
        return third + reach if ordered[-1] > third + reach > third else None
    return first - reach if ordered[0] < first - reach < first else None


def axis_label(value: object, length: int = _MAX_LABEL_LENGTH) -> str:
    """Return a short text that plotly shows as it is, not as markup."""
    return escape(_short_text(value, length), quote=False)


def _short_text(value: object, length: int = _MAX_LABEL_LENGTH) -> str:
    """Return a text without control characters, shortened in its middle."""
    raw = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def _log_axis(name: str, values: Sequence[Any]) -> PlotAxis:
    numbers = [None if value is MISSING else _finite(value) for value in values]
    places = [math.log10(n) if n is not None and n > 0 else None for n in numbers]
    low, high = _range(places)
    axis = PlotAxis(name, "log", places, _log_ticks(low, high), low, high)
    return _with_missing(axis, values) if MISSING in values else axis


def _with_missing(axis: PlotAxis, values: Sequence[Any]) -> PlotAxis:
    """Return the axis with one place more, below the others, for trials without a value."""
    below = axis.low - (axis.high - axis.low) * 0.12
    pairs = zip(axis.places, values, strict=True)
    places = [below if value is MISSING else place for place, value in pairs]
    ticks = [(below, "(none)"), *axis.ticks]
    return PlotAxis(axis.name, axis.kind, places, ticks, below, axis.high)


def _category_axis(name: str, values: Sequence[Any]) -> PlotAxis:
    texts = ["(none)" if value is MISSING else _short_text(value) for value in values]
    counts = Counter(texts)
    shown = [text for text, _ in counts.most_common(_MAX_CATEGORIES)]
    others = len(counts) - len(shown)
    shown.sort(key=_category_order)
    labels = [*shown, f"{others} others"] if others else shown
    place_of = {text: float(place) for place, text in enumerate(shown)}
    places = [place_of.get(text, float(len(shown))) for text in texts]
    ticks = [(float(place), label) for place, label in enumerate(labels)]
    return PlotAxis(name, "category", places, ticks, -0.5, len(labels) - 0.5)


def _category_order(text: str) -> tuple[int, float, str]:
    """Sort numbers by their value, before the other texts."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _range(places: Iterable[float | None]) -> tuple[float, float]:
    known = [place for place in places if place is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if low == high:
        margin = abs(low) * 0.1 or 0.5
        return low - margin, high + margin
    return low, high


def _few_ticks(values: Collection[Any]) -> list[tuple[float, str]]:
    """Return a tick for each integer if there are few and they are far apart; otherwise none."""
    different = set(values)
    if not 2 <= len(different) <= 6 or not all(isinstance(value, int) for value in different):
        return []
    ordered = sorted(different)
    if max(-ordered[0], ordered[-1]) > 2**53:
        return []
    apart = min(b - a for a, b in pairwise(ordered))
    if apart < 0.08 * (ordered[-1] - ordered[0]):
        return []
    return [(float(value), _short_text(value, 8)) for value in ordered]


def inner_ticks(axis: PlotAxis) -> list[tuple[float, str]]:
    """Return the ticks of a linear axis, except those at its upper and lower ends."""
    margin = (axis.high - axis.low) * 0.06
    ticks = _linear_ticks(axis.low, axis.high)
    return [tick for tick in ticks if axis.low + margin < tick[0] < axis.high - margin]


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return about five round numbers in a range."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw), 10 * power)
    first = math.ceil(low / step)
    return [(n * step, f"{n * step:.6g}") for n in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return the powers of ten in a range; if there are too few, also their halves and doubles."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    inside = [(float(d), f"{10.0**d:.4g}") for d in decades if low - 1e-9 <= d <= high + 1e-9]
    if len(inside) >= 2:
        step = math.ceil(len(inside) / 8)
        return inside[::step]
    finer = [(d + math.log10(m), f"{m * 10.0**d:.4g}") for d in decades for m in (1, 2, 5)]
    return [(place, text) for place, text in finer if low <= place <= high] or [
        (low, f"{10.0**low:.4g}"),
        (high, f"{10.0**high:.4g}"),
    ]


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
