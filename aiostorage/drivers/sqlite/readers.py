"""The connections that read, beside the one that writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakMethod

from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread

__all__ = ["Readers"]

T = TypeVar("T")

MAX_READERS: Final = 2
"""Connections that read: while one of them scans, a short read need not wait."""


class Readers:
    """A few connections, made when they are needed.

    Parameters
    ----------
    connect
        Makes a connection, which opens with its first call: a method of the driver, which would
        not end by itself if the readers referred to it.
    """

    def __init__(self, connect: Callable[[], ConnectionThread]) -> None:
        self._connect = WeakMethod(connect)
        self._threads: list[ConnectionThread] = []

    async def read(self, function: Callable[[Connection], T], *, first: bool = False) -> T:
        """Call a function with the connection that has least to do.

        Parameters
        ----------
        first
            Whether it has to be the first connection, always the same.
        """
        thread = self._threads[0] if self._threads else None
        if not first and thread is not None and thread.busy:
            thread = min(self._threads, key=lambda t: t.busy)
        if thread is None or (thread.busy and not first and len(self._threads) < MAX_READERS):
            connect = self._connect()
            assert connect is not None  # noqa: S101  the driver is the caller
            thread = connect()
            self._threads.append(thread)
        return await thread.call(function)

    async def aclose(self) -> None:
        """Close the connections."""
        threads, self._threads = self._threads, []
        for thread in threads:
            await thread.close()
