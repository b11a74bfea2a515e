"""Which drivers share a client: those of one process and event loop that have the same settings.

With the client they share its connections and the one change stream of the process. A client is
closed with the last driver that uses it; a driver that was not closed counts until it is dropped.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any, Final
from weakref import finalize

from pymongo.errors import PyMongoError

from aiostorage._core.event_log import EventLog
from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.settings import MongoDBSettings

__all__ = ["ClientUse", "connect"]

events: Final = EventLog("connection")

_clients: Final[dict[Any, Client]] = {}
"""By process, event loop and settings. Those of a parent process stay: dropped, they would hang."""

_closing: Final[set[asyncio.Task[None]]] = set()
"""Tasks that close clients that were left open: an event loop does not keep its tasks alive."""


async def connect(settings: MongoDBSettings) -> ClientUse:
    """Return a use of the client of this process and event loop; `ClientUse.release` it afterwards.

    Raises
    ------
    BackendError
        No server answers, or it is too old.
    PermissionDenied
        It refuses the user.
    """
    loop = asyncio.get_running_loop()
    for key in list(_clients):
        if key[0] == os.getpid() and key[1].is_closed() and (old := _clients.pop(key, None)):
            old.abandon()
    key = os.getpid(), loop, settings
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = Client(settings, loop)
    use = ClientUse(client)
    try:
        await client.start()
    except BaseException:
        await use.release()
        raise
    return use


class ClientUse:
    """A driver's use of a client; it ends by itself when the driver is dropped.

    Attributes
    ----------
    client : Client
        The client.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._token = object()
        client.users.add(self._token)
        self._finalizer = finalize(self, _dropped, client, self._token, os.getpid())
        self._finalizer.atexit = False

    async def release(self) -> None:
        """End it; with the last use of a client the connections are closed."""
        self._finalizer.detach()
        self.client.users.discard(self._token)
        if not self.client.users:
            _stop_sharing(self.client)
            await self.client.close()


def _stop_sharing(client: Client) -> None:
    key = os.getpid(), client.loop, client.settings
    if _clients.get(key) is client:
        del _clients[key]


def _dropped(client: Client, token: object, pid: int) -> None:
    """End the use by a driver that was not closed; from any thread."""
    if pid != os.getpid():
        return
    client.users.discard(token)
    try:  # others may begin to use it in its loop meanwhile
        client.loop.call_soon_threadsafe(_close_unused, client)
    except RuntimeError:  # the loop is closed
        if not client.users:
            _stop_sharing(client)
            client.abandon()


def _close_unused(client: Client) -> None:
    key = os.getpid(), client.loop, client.settings
    if client.users or _clients.get(key) is not client:
        return
    _stop_sharing(client)
    closing = _close_although_cancelled(client)
    closing.send(None)
    task = client.loop.create_task(closing)
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _close_although_cancelled(client: Client) -> None:
    # Begun before it becomes a task: `asyncio.run` cancels what runs at its end and waits for it,
    # but a task that has not begun is cancelled before it does anything.
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    try:
        await client.close()
    except (asyncio.CancelledError, PyMongoError) as error:
        events.debug(
            "closing_failed",
            "while closing the connections to %(store)s: %(error)s",
            store=client.settings.location,
            error=error,
        )
