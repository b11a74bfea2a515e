"""Numbers and parameters, formatted for reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["measure", "number", "pairs", "plural", "span"]


def number(value: float | None) -> str:
    """Format an objective: an integer with commas, a real number with six digits."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def measure(value: float, unit: str) -> str:
    """Format an objective with its unit, if it has one."""
    return f"{number(value)} {unit}".rstrip()


def pairs(params: Mapping[str, Any]) -> str:
    """Format parameters, real numbers with six digits."""
    return " ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def plural(count: int, noun: str) -> str:
    """Format a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{_ending(noun)}"


def _ending(noun: str) -> str:
    return "es" if noun.endswith("s") else "s"


def span(seconds: float) -> str:
    """Format a duration."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
