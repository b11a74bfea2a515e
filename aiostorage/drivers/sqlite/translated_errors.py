"""The errors of sqlite3, aiosqlite and the file system as those of aiostorage."""

from __future__ import annotations

import sqlite3
from typing import Final, NoReturn

from aiostorage.errors import (
    AioStorageError,
    BackendError,
    EncodingError,
    NotADatabaseError,
    PermissionDenied,
    StorageClosedError,
    TemporaryBackendError,
)

__all__ = ["raise_translated", "translated"]

_TEMPORARY: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_PROTOCOL,  # too many processes wanted the log's index at once
}
_DENIED: Final = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_AUTH,
}


def translated(error: Exception) -> Exception:
    """Return the error of `aiostorage.errors` for one of sqlite3 or of the file system."""
    match error:
        case AioStorageError():
            return error
        case sqlite3.Error():
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _TEMPORARY:
                return TemporaryBackendError(f"SQLite: {error}")
            if code in _DENIED:
                return PermissionDenied(f"SQLite: {error}")
            return _by_code(code, error)
        case PermissionError():
            return PermissionDenied(str(error))
        case OSError():
            return BackendError(str(error))
        case ValueError() if "onnection" in str(error):  # aiosqlite's, of a closed connection
            return StorageClosedError()
        case _:
            return error


def _by_code(code: int, error: sqlite3.Error) -> Exception:
    match code:
        case sqlite3.SQLITE_TOOBIG:
            return EncodingError(
                "a record (an experiment, a trial or an algorithm's state) is larger than the "
                f"1,000,000,000 bytes that SQLite holds; keep large things elsewhere ({error})"
            )
        case sqlite3.SQLITE_CORRUPT:
            return NotADatabaseError(f"the SQLite database is damaged: {error}")
        case sqlite3.SQLITE_NOTADB:
            return NotADatabaseError(f"SQLite: {error}")
    return BackendError(f"SQLite: {error}")


def raise_translated(error: Exception) -> NoReturn:
    """Raise the translated error, from the original."""
    ours = translated(error)
    if ours is error:
        raise error
    raise ours from error
