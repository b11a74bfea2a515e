"""Those in this process who wait for a change of a file, in whatever event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Watchers"]


class Watchers:
    """The waiters of one driver."""

    def __init__(self) -> None:
        self._events: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Give an event of the running loop, which is set after the next change."""
        entry = asyncio.get_running_loop(), asyncio.Event()
        self._events.add(entry)
        try:
            yield entry[1]
        finally:
            self._events.discard(entry)

    def wake(self) -> None:
        """Set all events, from any thread."""
        for entry in list(self._events):
            try:
                entry[0].call_soon_threadsafe(entry[1].set)
            except RuntimeError:  # the loop is closed
                self._events.discard(entry)
