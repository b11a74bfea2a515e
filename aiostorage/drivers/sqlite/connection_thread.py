"""A SQLite connection in a thread of its own, and SQLite's errors as those of aiostorage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

import aiosqlite
import anyio

from aiostorage._core.cancellation import shielded
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.sqlite_errors import raise_translated

__all__ = ["ConnectionThread"]

T = TypeVar("T")


class ConnectionThread:
    """A connection and the thread it lives in; it opens with its first call.

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
            return Connection(file, busy_timeout, pragmas)

        self.busy: int = 0
        self._connect = connect
        self._proxy: aiosqlite.Connection
        self._opening: asyncio.Task[None] | None = None

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function in the thread; cancelled, wait for its end all the same."""
        self.busy += 1
        try:
            if self._opening is None or not self._opening.done():
                await self._open()
            return await self.submit(function)
        except asyncio.CancelledError:
            await self.drain()
            raise
        except Exception as error:  # noqa: BLE001  raised again, translated
            raise_translated(error)
        finally:
            self.busy -= 1

    def submit(self, function: Callable[[Connection], T]) -> Coroutine[Any, Any, T]:
        """Call a function in the thread of an open connection.

        A caller that is cancelled while it waits must `drain`.
        """
        return cast(Coroutine[Any, Any, T], self._proxy.execute_fetchall(cast(str, function)))

    async def drain(self) -> None:
        """Wait for the end of all calls: to report to a closed event loop would kill the thread."""
        if self._opening is not None and self._opening.done() and not _failed(self._opening):
            with suppress(ValueError):  # closed meanwhile
                await shielded(None, lambda: self.submit(_nothing))

    async def close(self) -> None:
        """Close the connection, after all calls that came before; its thread ends."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        if not opening.done():  # an earlier event loop, closed by now, may have opened it
            await asyncio.wait([opening])
        if not _failed(opening):
            try:
                await self._proxy.close()
            except Exception as error:  # noqa: BLE001  raised again, translated
                raise_translated(error)

    async def _open(self) -> None:
        """Open the connection, though the caller is cancelled: others may wait for it, too."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._start())
            self._opening.add_done_callback(_failed)  # asyncio need not warn of its error
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except BaseException:
            if opening.done() and self._opening is opening and _failed(opening):
                self._opening = None  # the next call tries again
            raise

    async def _start(self) -> None:
        # even the start of a thread is something that the event loop need not wait for
        self._proxy = await anyio.to_thread.run_sync(_proxy_of, self._connect)
        await self._proxy


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


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
