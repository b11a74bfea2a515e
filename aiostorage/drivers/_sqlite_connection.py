"""A SQLite connection in a thread of its own, and SQLite's errors as ours."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import aiosqlite
import anyio

from aiostorage._core.codec import dump_document, load_document
from aiostorage._core.projection import apply_changes
from aiostorage.drivers._sqlite_compile import MATCH, SET
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    NotADatabaseError,
    PermissionDenied,
    StorageClosedError,
    TemporaryBackendError,
)
from aiostorage.operations import Document

__all__ = ["Connection", "ConnectionThread", "translated"]

T = TypeVar("T")


class Connection(sqlite3.Connection):
    """A connection that also carries out functions, each in one trip to its thread.

    aiosqlite has no public way to run a function in a connection's thread, but hands whatever
    `execute_fetchall` is given to `execute`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: list[Any] = []
        self._error: Exception | None = None
        self._loaded: tuple[str, Document] = ("", {})
        self.create_function(MATCH, 2, self._match, deterministic=True)
        self.create_function(SET, 2, self._set, deterministic=True)

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        """Execute a statement, or call a function with this connection."""
        if callable(sql):
            return _Outcome(sql(self))
        return super().execute(sql, parameters)

    def keep(self, value: Any) -> int:
        """Keep what a function of the next statement needs."""
        self._kept.append(value)
        return len(self._kept) - 1

    def run(self, statement: tuple[str, list[Any]]) -> sqlite3.Cursor:
        """Execute a compiled statement that answers no rows."""
        try:
            return super().execute(*statement)
        except sqlite3.OperationalError as error:
            raise self.cause_of(error) from error
        finally:
            if self._kept:
                self._kept.clear()

    def rows(self, statement: tuple[str, list[Any]]) -> list[tuple[Any, ...]]:
        """Execute a compiled statement and fetch all: an open cursor would hold the lock."""
        try:
            return super().execute(*statement).fetchall()
        except sqlite3.OperationalError as error:
            raise self.cause_of(error) from error
        finally:
            if self._kept:
                self._kept.clear()

    def back_out(self) -> None:
        """Roll back what is open, if anything is."""
        if self.in_transaction:
            super().execute("ROLLBACK")

    def cause_of(self, error: Exception) -> Exception:
        """Answer what one of our functions raised, which SQLite does not pass on."""
        cause, self._error = self._error, None
        return cause or error

    def _match(self, key: int, doc: str) -> bool:
        try:
            text, document = self._loaded
            if text != doc:
                document = load_document(doc)
                self._loaded = doc, document
            return cast(bool, self._kept[key](document))
        except Exception as error:
            self._error = error
            raise

    def _set(self, key: int, doc: str) -> str:
        try:
            document = load_document(doc)
            apply_changes(document, self._kept[key])
            return dump_document(document)
        except Exception as error:
            self._error = error
            raise


class _Outcome:
    """What a function answered, in the shape of a cursor."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class ConnectionThread:
    """A connection and the thread it lives in."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self.busy = 0
        self._proxy = _in_daemon_thread(
            lambda: aiosqlite.connect(
                path, isolation_level=None, factory=Connection, timeout=busy_timeout
            )
        )

    async def open(self, *pragmas: str) -> None:
        with _translating():
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.close(descriptor)
            try:
                await self._proxy
                for pragma in pragmas:
                    await self.call(lambda c, pragma=pragma: c.execute(pragma).fetchall())  # type: ignore[misc]
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self.close()
                raise

    async def call(self, function: Callable[[Connection], T]) -> T:
        self.busy += 1
        try:
            with _translating():
                return cast(T, await self._proxy.execute_fetchall(cast(str, function)))
        finally:
            self.busy -= 1

    async def close(self) -> None:
        with _translating():
            await self._proxy.close()


def _in_daemon_thread(make: Callable[[], T]) -> T:
    """Call `make` in a daemon thread: the threads it makes are daemons too.

    aiosqlite's thread is none by itself, and an unclosed connection keeps the interpreter from
    exiting. SQLite survives that its thread just stops.
    """
    made: list[T] = []
    thread = threading.Thread(target=lambda: made.append(make()), daemon=True)
    thread.start()
    thread.join()
    return made[0]


_TEMPORARY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT}
_DENIED: Final = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_AUTH,
}


def translated(error: Exception) -> Exception:
    """Answer our error for one of sqlite3's, or of the file system's."""
    match error:
        case AioStorageError():
            return error
        case sqlite3.Error():
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _TEMPORARY:
                return TemporaryBackendError(f"SQLite: {error}")
            if code in _DENIED:
                return PermissionDenied(f"SQLite: {error}")
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                return NotADatabaseError(f"SQLite: {error}")
            return BackendError(f"SQLite: {error}")
        case PermissionError():
            return PermissionDenied(str(error))
        case OSError():
            return BackendError(str(error))
        case ValueError() if "onnection" in str(error):  # aiosqlite's, of a closed connection
            return StorageClosedError()
        case _:
            return error


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except AioStorageError:
        raise
    except Exception as error:
        ours = translated(error)
        if ours is error:
            raise
        raise ours from error
