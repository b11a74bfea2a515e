"""MongoDB: the engine for many machines, best on a replica set.

Written on motor, whose place PyMongo's own asynchronous client can take; the modules beside this
one have a subject each, and only ``client`` and ``server_errors`` know the libraries.

What writes one document is atomic by itself. What writes several is a transaction on a replica set,
and an order of writes whose partial result does no harm on a server by itself. A write that is
under way when its caller is cancelled runs to its end, for the server would not stop it anyway;
the caller hears of the cancellation afterwards.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final, TypeVar, cast

from aiostorage._core.cancellation import run_detached, run_to_completion, shielded
from aiostorage.drivers.mongodb.batches import carry_out_together, kind_of
from aiostorage.drivers.mongodb.blobs import Blobs
from aiostorage.drivers.mongodb.change_streams import Changes
from aiostorage.drivers.mongodb.client import (
    MARGIN,
    Client,
    connect,
)
from aiostorage.drivers.mongodb.commands import Run, asks_time, single
from aiostorage.drivers.mongodb.fair_queue import HASTE, Queue
from aiostorage.drivers.mongodb.filters import Table
from aiostorage.drivers.mongodb.indexes import inspect, pass_barrier, prepare
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.drivers.mongodb.settings import ClientLibrary, read_settings
from aiostorage.drivers.mongodb.standalone import all_or_none
from aiostorage.errors import (
    AioStorageError,
    OperationTimeout,
    PermissionDenied,
    StorageClosedError,
    TemporaryBackendError,
)
from aiostorage.operations import (
    And,
    Compare,
    Count,
    Document,
    Find,
    Insert,
    Layout,
    Operation,
)

__all__ = ["MongoDBDriver"]

T = TypeVar("T")

QUEUES: Final = 100
"""Kinds of operations that are remembered, although there is nothing to do."""


class MongoDBDriver:
    """Documents in a MongoDB database.

    Parameters
    ----------
    url
        A connection string, ``mongodb://`` or ``mongodb+srv://``, with whatever MongoDB allows in
        it: several hosts, user and password, ``tls``, ``replicaSet``, ``w``, ``readConcernLevel``.
        On a replica set the default write concern is ``majority`` with journal.
    client
        ``motor``, or ``pymongo`` for PyMongo's own `pymongo.AsyncMongoClient`.
    database
        The database; default: the one in the URL, else ``aiostorage``.
    timeout
        Seconds that one operation may take; the server stops it then.
    username, password, auth_source
        What does not stand in the URL.
    read_only
        Whether the database is only looked at: nothing is made or changed in it, and one that is
        not there is refused. It need not be one that aiostorage has made; Oríon's will do.
    """

    name = "mongodb"
    resolution: timedelta = timedelta(milliseconds=1)

    def __init__(
        self,
        url: str,
        *,
        client: ClientLibrary = "motor",
        database: str | None = None,
        timeout: float = 20.0,
        username: str | None = None,
        password: str | None = None,
        auth_source: str | None = None,
        read_only: bool = False,
    ) -> None:
        given = {"username": username, "password": password, "authSource": auth_source}
        self._settings = read_settings(url, client, database, timeout, given, read_only=read_only)
        self._layout: Layout | None = None
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._client: Client | None = None
        self._tables: dict[str, Table] = {}
        self._queues: dict[Hashable, Queue[Any, Any]] = {}
        self._under_way = 0
        self._none_under_way = asyncio.Event()
        self._connecting = asyncio.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._settings = state["settings"]
        self._layout = None
        self._forget()  # a copy is opened anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    @property
    def location(self) -> str:
        """Hosts and database."""
        return self._settings.location

    # ------------------------------------------------------------------------ open and close

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        self._layout = layout
        await self._here()

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        self._layout = None
        client, self._client = self._client, None
        if client is None or self._pid != os.getpid():
            return
        if client.loop is not asyncio.get_running_loop():
            return  # the loop that it belongs to has ended, and with it the connections

        async def close() -> None:
            while self._under_way:
                self._none_under_way.clear()
                await self._none_under_way.wait()
            if client.users == 1 and (changes := client.shared.pop("changes", None)):
                await changes.stop()
            await client.release()

        await shielded(None, close)

    async def _here(self) -> Client:
        """Answer the client of this process and event loop; connect if there is none yet."""
        if self._layout is None:
            raise StorageClosedError(f"{self!r} is not open")
        if self._pid != os.getpid():
            self._forget()
        client = self._client
        if client is not None and client.loop is asyncio.get_running_loop():
            return client
        if client is not None:
            self._forget()  # another loop has come; neither library's clients can move there
        async with self._connecting:
            layout = self._layout
            if (client := self._client) is None:
                try:
                    client = await run_detached(lambda: self._connect(layout))
                except asyncio.CancelledError:
                    await self._disconnect()  # who is cancelled while he opens does not close
                    raise
        return client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await shielded(None, client.release)

    async def _connect(self, layout: Layout) -> Client:
        client = await connect(self._settings)
        try:
            with translated(self.location, writing=False), client.limit():
                self._tables = await self._prepared(client, layout)
        except BaseException:
            await client.release()
            raise
        self._client = client
        return client

    async def _prepared(self, client: Client, layout: Layout) -> dict[str, Table]:
        tables = {c.name: Table(c, partial=client.partial) for c in layout.collections}
        if not self._settings.read_only:
            await prepare(client, tables, layout.version)
            return tables
        named = [c.name for c in layout.collections if c.fields]
        if not await inspect(client, named, layout.version):
            # there may be none of our indexes, and more than one of what should be unique
            bare = (replace(c, indexes=()) for c in layout.collections)
            tables = {c.name: Table(c) for c in bare}
        return tables

    # ------------------------------------------------------------------------------ operations

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        client = await self._here()
        table = self._tables[operation.collection]
        if isinstance(operation, Find | Count):
            if operation.majority and client.replicated:
                await self._guarded(lambda: pass_barrier(client))
            return cast(T, await self._reading(lambda: self._run().run(operation)))
        kind = kind_of(table, operation)
        if kind is None and (not single(table, operation) or self._large(operation)):
            return cast(T, (await self.transact((operation,)))[0])
        seconds = client.time_left()
        if kind is None or seconds < HASTE:
            return cast(T, await self._guarded(lambda: self._alone(client, operation)))
        self._check_writable()
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = Queue(client.loop, self._queued, self._queued_together)
            if len(self._queues) > QUEUES:
                self._queues = {k: q for k, q in self._queues.items() if q is queue or not q.idle}
        return cast(T, await self._counted(queue.carry_out(operation, seconds)))

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        client = await self._here()
        if not operations:
            return []
        if self._is_single(operations) and not self._large(operations[0]):
            return [await self.execute(operations[0])]
        results: list[Any] = await self._guarded(lambda: self._together(client, operations))
        return results

    async def _queued(self, operation: Operation[Any], seconds: float) -> Any:
        run = self._run()
        with translated(self.location, writing=True), run.client.bound(seconds):
            return await run.run(operation)

    async def _queued_together(
        self, queue: Queue[Any, Any], operations: Sequence[Operation[Any]], seconds: float
    ) -> Any:
        run, table = self._run(), self._tables[operations[0].collection]
        with translated(self.location, writing=True), run.client.bound(seconds):
            return await carry_out_together(run, table, queue, operations)

    async def _alone(self, client: Client, operation: Operation[Any]) -> Any:
        now = None
        if isinstance(operation, Insert) and asks_time(operation):
            now = await client.now()  # an insert knows no expressions
        run = self._run(now=now)
        result = await run.run(operation)
        if run.stale:
            await self._tidy(run.blobs, run.stale)
        return result

    async def _together(self, client: Client, operations: Sequence[Operation[Any]]) -> list[Any]:
        blobs = Blobs(client)
        files: list[list[str]] = [[] for _ in operations]  # what each one wrote
        try:
            with translated(self.location, writing=True):
                if any(map(self._large, operations)):
                    operations = [
                        await blobs.taken_out(self._tables[operation.collection], operation, mine)
                        for operation, mine in zip(operations, files, strict=True)
                    ]
                results, stale = await self._all_or_none(client, operations)
        except AioStorageError as error:
            if not (isinstance(error, TemporaryBackendError) and error.ambiguous):
                await self._tidy(blobs, [*chain(*files)])
            raise
        for mine, result in zip(files, results, strict=True):
            if not result and result is not None:  # nothing matched
                stale += mine
        await self._tidy(blobs, stale, sweep=any(files))
        return results

    async def _all_or_none(
        self, client: Client, operations: Sequence[Operation[Any]]
    ) -> tuple[list[Any], list[str]]:
        """Answer the results, and which blobs nothing refers to any more."""
        now = await client.now() if any(map(asks_time, operations)) else None
        if not client.replicated and not self._is_single(operations):
            run = self._run(now=now)
            return await all_or_none(run, operations), run.stale

        async def carry_out(session: Any) -> tuple[list[Any], list[str]]:
            run = self._run(session=session, now=now)
            return [await run.run(operation) for operation in operations], run.stale

        if self._is_single(operations):
            return await carry_out(None)
        return await client.in_transaction(carry_out)

    async def _tidy(self, blobs: Blobs, files: Sequence[str], *, sweep: bool = False) -> None:
        """Delete blobs that nothing refers to; if that fails, they are swept up later."""
        with suppress(AioStorageError), translated(self.location, writing=False):
            if files:
                await blobs.delete(files)
            if sweep:
                await blobs.sweep(self._tables)

    async def _reading(self, action: Callable[[], Awaitable[T]]) -> T:
        """Read; not for longer than is left."""
        client = await self._here()
        seconds = client.time_left()

        async def bounded() -> T:
            with translated(self.location, writing=False), client.limit(seconds):
                return await action()

        return await run_detached(bounded)

    async def _guarded(self, action: Callable[[], Awaitable[Any]]) -> Any:
        """Write to the end, though the caller may be cancelled, but not for longer than is left."""
        client = await self._here()
        self._check_writable()
        limit = client.time_left()

        async def bounded() -> Any:
            try:
                # motor begins a transaction anew for two minutes, whatever the limit is
                async with asyncio.timeout(limit / MARGIN):
                    with translated(self.location, writing=True), client.limit(limit):
                        return await action()
            except TimeoutError as error:
                if isinstance(error, AioStorageError):
                    raise
                raise OperationTimeout(
                    f"{self.location}: no answer within {limit:.3g} s", ambiguous=True
                ) from None

        return await self._counted(run_to_completion(bounded))

    def _check_writable(self) -> None:
        if self._settings.read_only:
            raise PermissionDenied(f"{self.location} was opened with read_only=True")

    async def _counted(self, work: Awaitable[T]) -> T:
        """Carry out what has to end before the connections are closed."""
        self._under_way += 1
        try:
            return await work
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_under_way.set()

    def _run(self, **more: Any) -> Run:
        if self._client is None:
            raise StorageClosedError(f"{self!r} is not open")
        return Run(self._client, self._tables, Blobs(self._client), **more)

    def _is_single(self, operations: Sequence[Operation[Any]]) -> bool:
        """Tell whether it is one operation that writes at most one document."""
        first = operations[0]
        return len(operations) == 1 and single(self._tables[first.collection], first)

    def _large(self, operation: Operation[Any]) -> bool:
        table = self._tables[operation.collection]
        if self._client is None or not table.blobs:
            return False
        return Blobs(self._client).is_large(table, operation)

    # -------------------------------------------------------------------------------- the rest

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`.

        The mark has the ids that are still to come: a server can go on by insertion from a
        document only as long as that one is not deleted.
        """
        await self._here()
        table, run = self._tables[find.collection], self._run()

        async def read() -> tuple[list[Document], object | None]:
            ids = await run.ids(table, find.where) if after is None else cast(list[Any], after)
            documents: list[Document] = []
            while ids and len(documents) < size:
                # some may have gone since
                chosen, ids = ids[: size - len(documents)], ids[size - len(documents) :]
                some = And((Compare("_id", "in", tuple(chosen)), find.where))
                found = await run.run(Find(find.collection, some, find.selection))
                documents += found
            return documents, ids or None

        return await self._reading(read)

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: the server's clock."""
        client = await self._here()
        return await self._reading(client.now)

    async def wait_for_change(
        self, collection: str, since: object | None, timeout: float
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        client = await self._here()
        changes: Changes = client.shared.setdefault("changes", Changes(client))
        return await changes.wait(collection, since, timeout)
