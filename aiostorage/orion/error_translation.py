"""Oríon's exceptions in place of those of aiostorage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import orion.core.io.database as orion_database
import orion.storage.base as orion_base

from aiostorage import errors

__all__ = ["orion_errors"]

_TRANSLATIONS: Final[dict[type[Exception], type[Exception]]] = {
    errors.DuplicateKeyError: orion_database.DuplicateKeyError,
    errors.FailedUpdate: orion_base.FailedUpdate,
    errors.LockAcquisitionTimeout: orion_base.LockAcquisitionTimeout,
    # Oríon's workers try again after a timeout, which is the right answer to a lost lock as well.
    errors.LockLost: orion_base.LockAcquisitionTimeout,
    errors.MissingArguments: orion_base.MissingArguments,
}


@contextmanager
def orion_errors() -> Iterator[None]:
    """Raise Oríon's exceptions in place of ours, which become their causes."""
    try:
        yield
    except tuple(_TRANSLATIONS) as error:
        translated = next(
            orions for ours, orions in _TRANSLATIONS.items() if isinstance(error, ours)
        )
        raise translated(str(error)) from error
