"""A SQLite connection that carries out functions, survives forks, and knows its file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, cast
from weakref import WeakSet

from aiostorage._core.document_json import dump_document, load_document
from aiostorage.drivers.sqlite.database_file import ADVICE, OPENINGS, DatabaseFile
from aiostorage.drivers.sqlite.sql import MATCH, SET
from aiostorage.errors import BackendError
from aiostorage.operations import Document

__all__ = ["Connection"]

SHORT_WAIT: Final = 0.2
"""Seconds that emptying the log may wait for other processes."""


class _Gate:
    """Either connections are in use, or the process forks; never both at a time."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew in a forked child, where the threads that were inside do not exist."""
        self._condition = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._shut)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._inside -= 1
            self._condition.notify_all()

    def shut(self) -> None:
        """Keep new users out, and wait until those inside have left."""
        with self._condition:
            self._condition.wait_for(lambda: not self._shut)
            self._shut = True
            self._condition.wait_for(lambda: not self._inside)

    def open(self) -> None:
        """Admit users again."""
        with self._condition:
            self._shut = False
            self._condition.notify_all()


class Connection(sqlite3.Connection):
    """A connection that also carries out functions, each in one trip to its thread.

    aiosqlite has no public way to run a function in a connection's thread, but hands whatever
    `execute_fetchall` is given to `execute`.

    It is closed while the process forks, and opened again by the next function. Otherwise SQLite in
    the child would take the parent's locks for its own: the child's writes would be lost when the
    parent closes, and a transaction of the parent would lock the child out permanently.

    No answer is given that the file at the path did not give: when the file has moved or was
    replaced, the function raises `BackendError`, and the log is emptied into its own file, so that
    SQLite cannot take it for the log of the file that has come to the path.

    Parameters
    ----------
    file
        The file.
    timeout
        Seconds to wait for other processes' transactions.
    pragmas
        Statements that prepare a connection.

    Attributes
    ----------
    file
        The file.
    kept
        What the SQL functions of the running statement need.
    """

    def __init__(self, file: DatabaseFile, timeout: float, pragmas: tuple[str, ...] = ()) -> None:
        self.file = file
        self._timeout = timeout
        self._pragmas = pragmas
        self.openings: int = 0
        with _gate:
            self._open()
        self.kept: list[Any] = []
        self._error: Exception | None = None
        self._loaded: tuple[str, Document] = ("", {})

    def _open(self) -> None:
        ours = dict(vars(self))
        for _ in range(OPENINGS):
            before = self.file.before_opening()
            try:
                super().__init__(
                    self.file.uri,
                    uri=True,
                    timeout=self._timeout,
                    isolation_level=None,
                    check_same_thread=False,  # the thread that forks may close it, too
                )
            finally:
                vars(self).update(ours)  # which a second __init__ clears away, from Python 3.11 on
            if self.file.is_opened(before):
                break
            super().close()  # it has read nothing, so SQLite leaves the file as it is
        else:
            raise BackendError("the file was replaced while it was being opened")
        self.openings += 1
        self._closed = self._prepared = False
        self.create_function(MATCH, 2, self._match, deterministic=True)
        self.create_function(SET, 2, self._set, deterministic=True)
        _connections.add(self)

    statement: ClassVar[Callable[..., sqlite3.Cursor]] = sqlite3.Connection.execute
    """Execute a statement."""

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        """Execute a statement, or call a function with this connection."""
        if not callable(sql):
            return self.statement(sql, parameters)
        with _gate:
            if self._closed:
                self._open()
            try:
                if not self._prepared:
                    self._prepare()
                result = sql(self)
            except Exception as error:
                if change := self.file.change():  # it explains the error
                    raise self._refusal(change, "nothing was done") from error
                raise
            if change := self.file.change():
                raise self._refusal(change, "this call used the earlier file only")
            return _Outcome(result)

    def end_transaction(self) -> None:
        """Commit, if the path still names the file.

        Raises
        ------
        BackendError
            It does not.
        """
        if change := self.file.change():
            raise BackendError(change)
        self.statement("COMMIT")

    def close(self) -> None:
        """Close it for good."""
        with _gate:
            _connections.discard(self)
            self.put_away()

    def put_away(self) -> None:
        """Close it until the next function is called."""
        if not self._closed and self.file.log_is_stray():
            self._empty_log()
        self._closed = True
        with suppress(sqlite3.ProgrammingError):  # the last attempt to open it again has failed
            super().close()

    def _prepare(self) -> None:
        for pragma in self._pragmas:
            self.statement(pragma).fetchall()
        self.statement("PRAGMA schema_version").fetchall()  # opens the log
        self.file.check_log()
        self._prepared = True

    def _refusal(self, change: str, outcome: str) -> BackendError:
        self.back_out()
        if self.file.log_is_stray():
            self._empty_log()
        return BackendError(f"{change}; {outcome}. {ADVICE}")

    def _empty_log(self) -> None:
        """Write what the log has into its own file, wherever that is, and truncate the log."""
        with suppress(sqlite3.Error):
            self.statement(f"PRAGMA busy_timeout = {SHORT_WAIT * 1000:.0f}").fetchall()
            self.statement("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.statement(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}").fetchall()

    def back_out(self) -> None:
        """Roll back what is open, if anything is."""
        if self.in_transaction:
            self.statement("ROLLBACK")

    def cause_of(self, error: Exception) -> Exception:
        """Return the error of our SQL function, if it was one: SQLite does not pass it on."""
        cause, self._error = self._error, None
        return cause or error

    def _match(self, key: int, doc: str) -> bool:
        try:
            text, document = self._loaded
            if text != doc:
                document = load_document(doc)
                self._loaded = doc, document
            return cast(bool, self.kept[key](document))
        except Exception as error:
            self._error = error
            raise

    def _set(self, key: int, doc: str) -> str:
        try:
            document = load_document(doc)
            self.kept[key](document)
            return dump_document(document)
        except Exception as error:
            self._error = error
            raise


_gate: Final = _Gate()
_connections: Final[WeakSet[Connection]] = WeakSet()


def _before_fork() -> None:
    _gate.shut()
    for connection in list(_connections):
        connection.put_away()
    for connection in list(_connections):
        connection.file.forget_log()


os.register_at_fork(before=_before_fork, after_in_parent=_gate.open, after_in_child=_gate.reset)


class _Outcome:
    """The result of a function, in the shape of a cursor."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value
