"""The error that Optuna is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiostorage.errors import ConfigurationError

__all__ = ["optuna_needed"]


@contextmanager
def optuna_needed(extra: str = "optuna") -> Iterator[None]:
    """Turn the error that Optuna is not installed into one that names the extra."""
    try:
        yield
    except ImportError as error:
        name = (error.name or "a package").partition(".")[0]
        raise ConfigurationError(
            f"this needs {name}, which is not installed: pip install 'aiostorage-orion[{extra}]'"
        ) from error
