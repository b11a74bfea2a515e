"""Old import paths: they work for one minor version, and warn."""

from __future__ import annotations

import warnings

__all__ = ["warn_moved"]


def warn_moved(old: str, new: str) -> None:
    """Warn that the names of the module `old` are in `new` now."""
    warnings.warn(
        f"{old} has moved to {new}; the old path goes away in aiostorage 0.3",
        DeprecationWarning,
        stacklevel=3,
    )
