"""A SQLite connection in a thread of its own, and SQLite's errors as those of aiostorage."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, ClassVar, Final, TypeVar, cast
from weakref import WeakSet, finalize

import aiosqlite
import anyio

from aiostorage._core.abandoned import end_in_thread
from aiostorage._core.cancellation import shielded
from aiostorage._core.exits import at_exit
from aiostorage.drivers.sqlite.columns import SET
from aiostorage.drivers.sqlite.database_file import LOOK_INTERVAL, OPENINGS, RECENT, DatabaseFile
from aiostorage.drivers.sqlite.sql import MATCH, VALUE
from aiostorage.drivers.sqlite.sql_functions import SQLFunctions
from aiostorage.drivers.sqlite.sqlite_errors import raise_translated
from aiostorage.errors import BackendError

__all__ = ["Connection", "ConnectionThread"]

T = TypeVar("T")


MIN_PAUSE: Final = 0.0003
MAX_PAUSE: Final = 0.005
"""Seconds between two attempts to begin a transaction while another process has one: at first, and
after a while. SQLite's own waiting pauses for up to 0.1 s, while nobody writes."""


EXIT_TIMEOUT: Final = 5.0
"""Seconds that the interpreter's exit waits for what is under way, at most."""


class _Gate:
    """Either connections are in use, or the process forks; never both at a time.

    Attributes
    ----------
    exiting : bool
        Whether the interpreter exits, so that no connection is closed any more.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again in a forked child, where the threads that were inside do not exist."""
        self._condition = threading.Condition()
        self._inside = 0
        self._shut = self.exiting = False

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

    def exit(self) -> None:
        """Wait until those inside have left; from then on nothing is closed.

        SQLite calls into Python while it closes a connection, and runs our functions. In a thread
        that still does so when the interpreter is gone, the process would crash.
        """
        with self._condition:
            self.exiting = True
            self._condition.wait_for(lambda: not self._inside, EXIT_TIMEOUT)

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

    An answer comes from the file at the path, or not at all: see `DatabaseFile`.

    Parameters
    ----------
    file
        What it opens.
    timeout, pragmas
        Seconds to wait for other processes' transactions; statements that prepare a connection.
    polls
        Whether `poll` is called when it opens.

    Attributes
    ----------
    kept
        What the SQL functions of the running statement need.
    unwanted
        Tells whether a transaction that has not begun is not wanted any more.
    """

    unwanted: Callable[[], bool]

    def __init__(
        self,
        file: DatabaseFile,
        timeout: float,
        pragmas: tuple[str, ...] = (),
        *,
        polls: bool = False,
    ) -> None:
        self.file = file
        self._timeout = timeout
        self._pragmas = pragmas
        self._log: int | None = None
        self._polls = polls
        self._looked = self._next_look = 0.0
        self.openings: int = 0
        self._functions = SQLFunctions()
        self.kept: list[Any] = self._functions.kept
        with _gate:
            self._open()

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
        self._on_disk = -1  # which tables were made is not counted
        self._closed = self._prepared = False
        self.unwanted = _never
        self.create_function(MATCH, 2, self._functions.match, deterministic=True)
        self.create_function(SET, 2, self._functions.set, deterministic=True)
        self.create_function(VALUE, 2, self._functions.value, deterministic=True)
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
                self.file.explain(self, error)
                raise
            if monotonic() > self._looked + RECENT and not self._has_its_file():
                self.file.check(self, "this call used the earlier file only")
            return _Outcome(result)

    def poll(self) -> None:
        """Wait for other processes in `begin_transaction` alone, which can be given up."""
        self._polls = True
        self.statement("PRAGMA busy_timeout = 0")

    def begin_transaction(self, unwanted: Callable[[], bool] | None = None) -> None:
        """Begin to write; wait for other processes, unless that is not wanted any more."""
        if not self._polls:
            self.poll()
        begun = monotonic()
        while True:
            try:
                self.statement("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                waited = monotonic() - begun
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or waited >= self._timeout or (unwanted or self.unwanted)():
                    raise
                pause = min(max(MIN_PAUSE, waited / 4), MAX_PAUSE)
                sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  not a secret
            else:
                return

    def end_transaction(self) -> None:
        """Commit, unless the path names another file by now."""
        if not self._has_its_file():
            self.file.check(self, "nothing was written")
        self._looked = monotonic()
        self.statement("COMMIT")

    def sync(self) -> None:
        """Wait until what this connection has committed is on disk.

        Other processes may write meanwhile, unlike while SQLite does this itself (``PRAGMA
        synchronous = FULL``). What they write comes later in the log, so it is on disk only if what
        came before is.

        Raises
        ------
        BackendError
            It may not be on disk.
        """
        changes = self.total_changes
        if changes == self._on_disk:
            return
        if self._log is None:
            if self.file.lacks_log:
                self._let_sqlite_sync()
                return
            self._log = self.file.open_log()
        try:
            fdatasync(self._log)
        except OSError as error:
            raise BackendError(
                "what was written may not be on disk, and would then be lost with the next power "
                f"cut: {error}"
            ) from error
        self._on_disk = changes

    def _has_its_file(self) -> bool:
        file = self.file
        extent = file.extent  # before the look: another thread may note a smaller one meanwhile
        try:
            found = os.stat(file.name)  # noqa: PTH116  half the time
        except OSError:
            return False
        if (found.st_ino, found.st_dev) != file.known or found.st_size < extent[0]:
            return False
        if monotonic() < self._next_look:
            return True
        self._next_look = monotonic() + LOOK_INTERVAL
        if extent[1] is not None and found.st_size > extent[0]:
            file.extent = found.st_size, extent[1]
        if self._has_its_log():
            return True
        self._next_look = 0.0  # each call looks, and fails
        return False

    def _has_its_log(self) -> bool:
        for name, known in self.file.logs:
            try:
                there = os.stat(name)  # noqa: PTH116  as above
            except OSError:
                return False
            if (there.st_ino, there.st_dev) != known:
                return False
        return True

    def close(self) -> None:
        """Close it for good, unless the interpreter exits: SQLite files need not be closed."""
        with _gate:
            _connections.discard(self)
            if _gate.exiting:
                _left_open.append(self)
            else:
                self.put_away()

    def __del__(self) -> None:
        with suppress(sqlite3.Error):  # aiosqlite forgets what an opening opened that was cancelled
            super().close()
        if self._log is not None:
            os.close(self._log)

    def put_away(self) -> None:
        """Close it until the next function is called."""
        if not self._closed:
            self.file.leave(self)
        self._closed = True
        log, self._log = self._log, None
        if log is not None:
            os.close(log)
        with suppress(sqlite3.ProgrammingError):  # the last attempt to open it again has failed
            super().close()

    def _prepare(self) -> None:
        for pragma in self._pragmas:
            self.statement(pragma).fetchall()
        if self._polls:
            self.poll()
        if not self.file.logs:
            self.file.note_log(self)
        if self.file.lacks_log:
            self._let_sqlite_sync()
        self._prepared = True

    def _let_sqlite_sync(self) -> None:
        """Leave it to SQLite: the file has a journal in place of a log."""
        self.statement("PRAGMA synchronous = FULL")

    def back_out(self) -> None:
        """Roll back what is open, if anything is."""
        if self.in_transaction:
            self.statement("ROLLBACK")

    def cause_of(self, error: Exception) -> Exception:
        """Return the error of our SQL function, if it was one: SQLite does not pass it on."""
        cause, self._functions.error = self._functions.error, None
        return cause or error


fdatasync: Final = getattr(os, "fdatasync", os.fsync)
"""Without the times of the file, where the system can leave them out."""

_gate: Final = _Gate()
_connections: Final[WeakSet[Connection]] = WeakSet()


def _before_fork() -> None:
    _gate.shut()
    for connection in list(_connections):
        connection.put_away()
    for connection in list(_connections):
        connection.file.forget_log()


_left_open: Final[list[Connection]] = []
"""Connections that were not closed, since the interpreter exits; the last reference would do it."""

at_exit("connections", _gate.exit)

os.register_at_fork(before=_before_fork, after_in_parent=_gate.open, after_in_child=_gate.reset)


class _Outcome:
    """The result of a function, in the shape of a cursor."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class ConnectionThread:
    """A connection and the thread it lives in; it opens with its first call.

    It is closed when nothing refers to this object any more. The thread keeps its last call until
    the next one, and with it the error that it raised.

    Parameters
    ----------
    file
        The file; made with mode 0600 when it is missing and was never open.
    busy_timeout
        Seconds to wait for other processes' transactions.
    pragmas
        Statements that prepare the connection.

    Attributes
    ----------
    busy
        How many calls it has to carry out.
    """

    def __init__(self, file: DatabaseFile, busy_timeout: float, *pragmas: str) -> None:
        def connect() -> Connection:
            _of_ours.this = True
            return Connection(file, busy_timeout, pragmas)

        self.busy: int = 0
        self._connect = connect
        self._proxy: aiosqlite.Connection
        self._finalizer: finalize[..., Any]
        self._opening: asyncio.Task[None] | None = None

    async def call(
        self, function: Callable[[Connection], T], give_up: Callable[[], object] | None = None
    ) -> T:
        """Call a function in the thread; cancelled, call `give_up`, and wait for its end."""
        self.busy += 1
        try:
            opening = self._opening
            if opening is None or not opening.done() or _failed(opening):
                await self._open()
            return await self.submit(function)
        except asyncio.CancelledError:
            if give_up is not None:
                give_up()
            await self.drain()
            raise
        except Exception as error:  # noqa: BLE001  raised again, translated
            await self.drain()
            raise_translated(error)
        finally:
            self.busy -= 1

    def submit(self, function: Callable[[Connection], T]) -> Coroutine[Any, Any, T]:
        """Call a function in the thread of an open connection.

        A caller that is cancelled while it waits must `drain`.
        """
        return cast(Coroutine[Any, Any, T], self._proxy.execute_fetchall(cast(str, function)))

    async def drain(self) -> None:
        """Wait for the end of all calls: to report to a closed event loop would kill the thread.

        The thread forgets them, and with them all that they refer to.
        """
        if self._opening is not None and self._opening.done() and not _failed(self._opening):
            # closed meanwhile, or its file was replaced or is not a database, which each call says
            with suppress(ValueError, sqlite3.Error, BackendError):
                await shielded(None, lambda: self.submit(_nothing))

    async def close(self) -> None:
        """Close the connection, after all calls that came before; its thread ends."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        if not opening.done():  # an earlier event loop, closed by now, may have opened it
            await asyncio.wait([opening])
        if not _failed(opening):
            self._finalizer.detach()
            try:
                await self._proxy.close()
            except Exception as error:  # noqa: BLE001  raised again, translated
                raise_translated(error)

    async def _open(self) -> None:
        """Open the connection, though the caller is cancelled: others may wait for it, too."""
        if self._opening is None or self._opening.done():  # the earlier attempt has failed
            self._opening = asyncio.create_task(self._start())
            self._opening.add_done_callback(_failed)  # asyncio need not warn of its error
        await asyncio.shield(self._opening)

    async def _start(self) -> None:
        # even the start of a thread is something that the event loop need not wait for
        self._proxy = await anyio.to_thread.run_sync(_proxy_of, self._connect)
        self._finalizer = finalize(self, _end, self._proxy, os.getpid())
        self._finalizer.atexit = False
        await self._proxy


def _is_of_others(_record: logging.LogRecord) -> bool:
    """Leave out what aiosqlite logs of each call in our threads; others use it, too."""
    return not hasattr(_of_ours, "this")


_of_ours: Final = threading.local()
"""What marks the threads of our connections."""

logging.getLogger("aiosqlite").addFilter(_is_of_others)

_inherited: Final[list[aiosqlite.Connection]] = []
"""Those of a parent process, never dropped: their threads are not in this process."""


def _end(proxy: aiosqlite.Connection, pid: int) -> None:
    """Close a connection, after all calls that came before; its thread ends."""
    if pid != os.getpid():
        _inherited.append(proxy)
    else:  # in a thread without an event loop, which might be closed before the answer comes
        end_in_thread(proxy.stop)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


def _never() -> bool:
    return False


def _nothing(_: Connection) -> None:
    """Do nothing; the calls that came before have ended by then."""


def _proxy_of(connect: Callable[[], Connection]) -> aiosqlite.Connection:
    """Make aiosqlite's object in a daemon thread, so that the thread it starts is a daemon, too.

    Otherwise an unclosed connection would keep the interpreter from exiting. SQLite survives when
    its thread just stops.
    """
    made: list[aiosqlite.Connection] = []

    def make() -> None:
        made.append(aiosqlite.Connection(connect, iter_chunk_size=64))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join()
    return made[0]
