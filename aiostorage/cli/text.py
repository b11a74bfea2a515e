"""Numbers and parameters, formatted for reading."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiostorage.summary import LockSummary

__all__ = ["ago", "holder_line", "measure", "moment", "number", "pairs", "plural", "span"]


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
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def moment(time: datetime) -> str:
    """Format a time."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(time: datetime, now: datetime) -> str:
    """Format how long ago something was."""
    return f"{span(max((now - time).total_seconds(), 0))} ago"


def holder_line(lock: LockSummary, now: datetime) -> str:
    """Describe who holds a lock, since when, and when the holder was last active."""
    text = f"held by {lock.owner or 'an unknown owner'}"
    if lock.since is not None:
        text += f" since {moment(lock.since)}"
    if lock.heartbeat is not None:
        text += f" (last heartbeat {ago(lock.heartbeat, now)})"
    return text
