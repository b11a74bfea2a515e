"""The package ``comet_ml``, imported late and quietly."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiostorage.errors import ConfigurationError

__all__ = ["import_comet"]

_lock: Final = threading.Lock()

_NO_REPORTS: Final = {"COMET_ERROR_TRACKING_ENABLE": "false"}


def import_comet(module: str = "comet_ml") -> Any:
    """Import ``comet_ml``, or one of its modules.

    If it was not imported before, it is kept from setting up Sentry for the whole process, by which
    it reports errors to its makers; it would do so at every second import.

    Raises
    ------
    ConfigurationError
        It is not installed, or it cannot be imported.
    """
    with _lock:
        try:
            if "comet_ml" in sys.modules:
                return importlib.import_module(module)
            with _environment(_NO_REPORTS):
                return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != "comet_ml":
                raise ConfigurationError(f"comet_ml cannot be imported: {error}") from error
            raise ConfigurationError(
                "comet_ml is not installed: pip install 'aiostorage-orion[comet]'"
            ) from error
        except Exception as error:
            raise ConfigurationError(f"comet_ml cannot be imported: {error}") from error


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set, for a while."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
