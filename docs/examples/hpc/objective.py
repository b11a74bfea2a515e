"""The function to evaluate."""

from __future__ import annotations


def evaluate(x: float) -> float:
    """Return the value of a trial's params; yours will take longer."""
    return (x - 3) ** 2
