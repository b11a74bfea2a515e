"""Optuna's own storages: which one a URL or a path names, opened to read or to write."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from aiostorage._core.driver_options import hide_credentials, hide_credentials_in
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    ConfigurationError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
)

__all__ = ["open_place", "opened_place", "place_name", "translated"]

_SQLITE: Final = b"SQLite format 3\x00"
"""How a SQLite file begins."""

_APPLICATION: Final = slice(68, 72)
"""Where a SQLite file says of which program it is."""

_OURS: Final = b"aios"

_REDIS: Final = ("redis://", "rediss://", "unix://")


def place_name(place: str | os.PathLike[str] | BaseStorage) -> str:
    """Return a place of Optuna's in a form for messages, which contains no password."""
    if isinstance(place, BaseStorage):
        return type(place).__name__
    text = os.fspath(place)
    return hide_credentials(text) if "://" in text else text


def open_place(
    place: str | os.PathLike[str] | BaseStorage, *, writing: bool = False
) -> BaseStorage:
    """Open a storage of Optuna's.

    Parameters
    ----------
    place
        The URL of a database, as SQLAlchemy has it; ``redis://…`` for a journal in Redis; or the
        path of a journal. The path of a SQLite file is that of a database. A storage is returned as
        it is.
    writing
        Make what is not there. Otherwise nothing is made, and nothing is written.

    Raises
    ------
    ConfigurationError
        There is nothing, the URL cannot be used, or a package that it needs is not installed.
    NotADatabaseError
        It is something else.
    SchemaVersionError
        Another version of Optuna made the tables.
    BackendError
        The database cannot be reached.
    """
    if isinstance(place, BaseStorage):
        return place
    text = os.fspath(place)
    with translated(place_name(place)):
        if text.startswith(_REDIS):
            return JournalStorage(JournalRedisBackend(text))
        if "://" in text:
            _check_database(text, writing=writing)
            return _open_database(text, writing=writing)
        path = Path(text)
        if _begins_as_sqlite(path):
            _check_file(path, writing=writing)
            return _open_database(f"sqlite:///{path}", writing=writing)
        _check_journal(path, writing=writing)
        return JournalStorage(JournalFileBackend(text))


def _close(storage: BaseStorage) -> None:
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@asynccontextmanager
async def opened_place(
    place: str | os.PathLike[str] | BaseStorage, *, writing: bool = False
) -> AsyncIterator[BaseStorage]:
    """Open a storage of Optuna's in a thread, as `open_place` does, and close what was opened."""
    opened = await anyio.to_thread.run_sync(partial(open_place, place, writing=writing))
    try:
        yield opened
    finally:
        if opened is not place:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_close, opened)


@contextmanager
def translated(location: str) -> Iterator[None]:
    """Turn the errors of Optuna's storages, and of what they use, into ours."""
    try:
        yield
    except (AioStorageError, OSError):
        raise
    except ImportError as error:
        what = error.__cause__ or error  # Optuna's own message does not name it
        raise ConfigurationError(f"{location} needs a package that is missing: {what}") from error
    except ArgumentError as error:
        raise ConfigurationError(f"{location} is not a database URL: {_text(error)}") from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise BackendError(f"{location}: {_text(error)}") from error
    except RuntimeError as error:  # of the version of the tables
        raise SchemaVersionError(f"{location}: {_text(error)}") from error
    except KeyError as error:
        raise BackendError(f"{location}: a study has vanished meanwhile: {error}") from error
    except ValueError as error:  # of a line of a journal
        raise NotADatabaseError(f"{location} cannot be read: {_text(error)}") from error


def _text(error: Exception) -> str:
    """Return the first line of a message: the others are SQL and its arguments."""
    told = error.__cause__ if isinstance(error, StorageInternalError) else None
    lines = str(told or error).splitlines() or [type(error).__name__]
    return hide_credentials_in(lines[0])


def _open_database(url: str, *, writing: bool) -> RDBStorage:
    try:
        return RDBStorage(url, skip_table_creation=not writing)
    except (SQLAlchemyError, StorageInternalError) as error:
        text = _text(error)
        if "no such table" in text or "does not exist" in text or "doesn't exist" in text:
            raise NotADatabaseError(
                f"{hide_credentials(url)} has no studies of Optuna: {text}"
            ) from error
        raise


def _check_database(url: str, *, writing: bool) -> None:
    """Refuse a SQLite file that is not there, or is one of ours."""
    parsed = make_url(url)
    name = parsed.database
    if parsed.get_backend_name() == "sqlite" and name and name != ":memory:":
        _check_file(Path(name.removeprefix("file:")), writing=writing)


def _check_file(path: Path, *, writing: bool) -> None:
    if not writing and not path.exists():
        raise ConfigurationError(f"there is no {path}")
    try:
        with path.open("rb") as file:
            head = file.read(_APPLICATION.stop)
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    if head[_APPLICATION] == _OURS:
        raise NotADatabaseError(f"{path} is a store of aiostorage, and none of Optuna's")


def _begins_as_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _check_journal(path: Path, *, writing: bool) -> None:
    """Refuse a file that is not there, is not a journal, or lacks the end of its last line."""
    try:
        with path.open("rb") as file:
            first = file.read(1)
            file.seek(0, os.SEEK_END)
            last = first
            if file.tell():
                file.seek(-1, os.SEEK_END)
                last = file.read(1)
    except FileNotFoundError:
        if writing:
            return
        raise ConfigurationError(f"there is no {path}") from None
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    if first not in (b"", b"{"):
        raise NotADatabaseError(f"{path} is not a journal of Optuna")
    if writing and last not in (b"", b"\n"):
        raise NotADatabaseError(
            f"{path} ends within a line: its last writer was killed. What is appended to it could "
            "not be read; delete that line first"
        )
