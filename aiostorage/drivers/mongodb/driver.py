"""MongoDB: the engine for many machines, best on a replica set.

Written on motor, which PyMongo's own asynchronous client can replace. Each module beside this one
has one subject. A call goes down through them: planned, perhaps queued, carried out.

A write of one document is atomic by itself. A write of several is a transaction on a replica set,
and on a standalone server an order of writes whose partial result does no harm. A write that is
under way when its caller is cancelled runs to its end, since the server would not stop it anyway;
the caller gets the cancellation afterwards.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, cast

from aiostorage._core.abandoned import warn_unclosed
from aiostorage._core.cancellation import (
    mark_without_effect,
    run_detached,
    run_to_completion,
    shielded,
)
from aiostorage._core.slices import consumed
from aiostorage._core.time_limit import deadline_of_call
from aiostorage.drivers.mongodb.batches import carry_out_batch
from aiostorage.drivers.mongodb.blobs import Blobs
from aiostorage.drivers.mongodb.change_streams import Changes
from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.commands import (
    SERVER_TIME_SHARE,
    Commands,
    read_within,
    write_within,
)
from aiostorage.drivers.mongodb.database_examination import examine_database, repair_database
from aiostorage.drivers.mongodb.database_upgrade import upgrade_database
from aiostorage.drivers.mongodb.fair_queue import MAX_CONCURRENT, MIN_QUEUED_SECONDS, FairQueue
from aiostorage.drivers.mongodb.filters import CollectionSchema, schemas_of
from aiostorage.drivers.mongodb.indexes import inspect, pass_barrier, prepare
from aiostorage.drivers.mongodb.log_reading import read_log
from aiostorage.drivers.mongodb.log_writing import settle_doubts
from aiostorage.drivers.mongodb.noted_changes import (
    NotedPlan,
    carry_out_noted,
    carry_out_noted_batch,
)
from aiostorage.drivers.mongodb.pages import PagePlace, read_page
from aiostorage.drivers.mongodb.plans import Plan, make_plan
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.drivers.mongodb.settings import CONNECT_TIMEOUT, ClientLibrary, read_settings
from aiostorage.drivers.mongodb.shared_clients import ClientUse, connect
from aiostorage.drivers.mongodb.too_large import with_place
from aiostorage.drivers.mongodb.transactions import carry_out_all, read_all
from aiostorage.errors import (
    ConfigurationError,
    EncodingError,
    PermissionDenied,
    StorageClosedError,
)
from aiostorage.findings import EngineReport, Finding, Repair
from aiostorage.operations import (
    Count,
    Document,
    Find,
    Layout,
    LogPage,
    Operation,
    OutboxNote,
    only_reads,
)
from aiostorage.upgrades import UpgradeProgress, UpgradeReport, UpgradeStep, silent

__all__ = ["MongoDBDriver"]

T = TypeVar("T")

MAX_IDLE_QUEUES: Final = 100
"""Queues that are kept, although no operation is in them."""


class MongoDBDriver:
    """Documents in a MongoDB database.

    Parameters
    ----------
    url
        A connection string, ``mongodb://`` or ``mongodb+srv://``, with everything that MongoDB
        allows in it: several hosts, user and password, ``tls``, ``replicaSet``, ``w``,
        ``readConcernLevel``. On a replica set the default write concern is ``majority`` with
        journal.
    client
        ``motor``, or ``pymongo`` for PyMongo's own `pymongo.AsyncMongoClient`.
    database
        The database; default: the one in the URL, else ``aiostorage``.
    timeout
        Seconds that one operation may take; the server stops it then.
    connect_timeout
        Seconds after which a server that cannot be reached counts as away; at most `timeout`.
        ``serverSelectionTimeoutMS`` and ``connectTimeoutMS`` in the URL come first.
    username, password, auth_source
        The login, if it is not in the URL.
    read_only
        Whether the database is only read: nothing is made or changed in it, and one that does not
        exist is refused. aiostorage need not have made it; a database that Oríon made will do.

    Attributes
    ----------
    logs
        See `aiostorage.protocols.LoggingDriver`.
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
        connect_timeout: float = CONNECT_TIMEOUT,
        username: str | None = None,
        password: str | None = None,
        auth_source: str | None = None,
        read_only: bool = False,
    ) -> None:
        given = {"username": username, "password": password, "authSource": auth_source}
        self._settings = read_settings(
            url,
            client,
            database,
            timeout,
            given,
            connect_timeout=connect_timeout,
            read_only=read_only,
        )
        self._layout: Layout | None = None
        self._logs = True
        self.on_group: Callable[[int, int], None] | None = None
        """Called before each write that may be shared: how many share it, and how many wait."""
        self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        self._pid = os.getpid()
        self._use: ClientUse | None = None
        self._schemas: dict[str, CollectionSchema] = {}
        self._commands: Commands | None = None
        self._queues: dict[Hashable, FairQueue[Plan, Any]] = {}
        self._noted_queues: dict[Hashable, FairQueue[NotedPlan, Any]] = {}
        self._under_way = 0
        self._none_under_way = asyncio.Event()
        self._connecting = asyncio.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._settings = state["settings"]
        self._layout, self.on_group = None, None
        self._logs = True
        self._reset_after_fork()  # a copy is opened anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def __del__(self) -> None:
        if getattr(self, "_use", None) is not None and self._pid == os.getpid():
            # now, since whoever records warnings keeps this object
            self._use = self._commands = None
            warn_unclosed(self)

    @property
    def location(self) -> str:
        """Hosts and database."""
        return self._settings.location

    @property
    def logs(self) -> bool:  # noqa: D102  see the class
        return self._logs

    @logs.setter
    def logs(self, value: bool) -> None:
        self._logs = value
        if self._commands is not None and self._commands.logs != value:
            self._commands = replace(self._commands, logs=value)
            self._queues, self._noted_queues = {}, {}  # which had the commands before

    @property
    def client_key(self) -> Hashable:
        """Drivers that have the same share a client, if they are used in the same event loop."""
        return self._settings

    # ------------------------------------------------------------------------ open and close

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        self._layout = layout
        if self._connected() is None:
            await self._connect()

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        self._layout = None
        use, self._use, self._commands = self._use, None, None
        if use is None or self._pid != os.getpid():
            return
        if use.client.loop is not asyncio.get_running_loop():
            return  # the loop that it belongs to has ended; without a use, the connections end too

        async def close() -> None:
            while self._under_way:
                self._none_under_way.clear()
                await self._none_under_way.wait()
            await use.release()

        await shielded(None, close)

    def _connected(self) -> Commands | None:
        """Return the commands of this process and event loop; None if there is no connection."""
        if self._layout is None:
            raise StorageClosedError(f"{self!r} is not open")
        if self._pid != os.getpid():
            self._reset_after_fork()
        commands = self._commands
        if commands is None or commands.client.loop is asyncio.get_running_loop():
            return commands
        self._reset_after_fork()  # neither library's clients can move to another event loop
        return None

    async def _connect(self) -> Commands:
        """Connect unless another call has done so; return the commands."""
        try:
            async with self._connecting:
                if (commands := self._connected()) is None:
                    layout = cast(Layout, self._layout)
                    try:
                        commands = await run_detached(partial(self._connect_to, layout))
                    except asyncio.CancelledError:
                        await self._disconnect()  # a caller that is cancelled here does not close
                        raise
        except asyncio.CancelledError as error:
            mark_without_effect(error)
            raise
        return commands

    async def _disconnect(self) -> None:
        use, self._use, self._commands = self._use, None, None
        if use is not None:
            await shielded(None, use.release)

    async def _connect_to(self, layout: Layout) -> Commands:
        use = await connect(self._settings)
        client = use.client
        try:
            with translated(self.location, writing=False), client.bound(self._time_left()):
                self._schemas = await self._prepared(client, layout)
        except BaseException:
            await use.release()
            raise
        self._use, self._queues, self._noted_queues = use, {}, {}
        self._commands = Commands(client, self._schemas, Blobs(client), logs=self._logs)
        return self._commands

    async def _prepared(self, client: Client, layout: Layout) -> dict[str, CollectionSchema]:
        schemas = schemas_of(layout, partial=client.partial)
        if not self._settings.read_only:
            await prepare(client, schemas, layout.version)
            return schemas
        named = [c.name for c in layout.collections if c.fields]
        if not await inspect(client, named, layout.version):
            # the indexes may be missing, and what should be unique may be there more than once
            bare = tuple(replace(c, indexes=()) for c in layout.collections)
            schemas = schemas_of(replace(layout, collections=bare), partial=True)
        return schemas

    async def upgrade(
        self,
        layout: Layout,
        steps: Sequence[UpgradeStep],
        *,
        backup: bool | str | os.PathLike[str] = True,
        dry_run: bool = False,
        progress: UpgradeProgress = silent,
    ) -> UpgradeReport:
        """See `aiostorage.protocols.UpgradableDriver.upgrade`."""
        if not isinstance(backup, bool):
            raise ConfigurationError(
                f"{self.location}: no backup is made of a database on a server; use mongodump"
            )
        use = await connect(self._settings)
        try:
            with translated(self.location, writing=False):
                return await upgrade_database(
                    use.client, layout, steps, dry_run=dry_run, progress=progress
                )
        finally:
            await shielded(None, use.release)

    async def drop_database(self) -> None:
        """Delete the database with all that is in it; for one that was made to measure in.

        Raises
        ------
        PermissionDenied
            The user may not.
        """
        self._check_writable()
        use = await connect(self._settings)
        try:
            with translated(self.location, writing=True):
                await use.client.drop_database()
        finally:
            await shielded(None, use.release)

    def reader(self) -> MongoDBDriver:
        """See `aiostorage.protocols.ExaminableDriver.reader`."""
        other = self.__class__.__new__(self.__class__)
        other.__setstate__({"settings": replace(self._settings, read_only=True)})
        return other

    async def examine(self, layout: Layout) -> EngineReport:
        """See `aiostorage.protocols.ExaminableDriver.examine`."""
        use = await connect(self._settings)
        try:
            with translated(self.location, writing=False):
                return await examine_database(use.client, layout)
        finally:
            await shielded(None, use.release)

    async def repair(self, layout: Layout, findings: Sequence[Finding]) -> list[Repair]:
        """See `aiostorage.protocols.ExaminableDriver.repair`."""
        self._check_writable()
        use = await connect(self._settings)
        try:
            with translated(self.location, writing=True):
                return await repair_database(use.client, layout, findings)
        finally:
            await shielded(None, use.release)

    # ------------------------------------------------------------------------------ operations

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        commands = self._connected() or await self._connect()
        try:
            plan = make_plan(self._schemas[operation.collection], operation)
            carry_out = self._find if isinstance(operation, Find | Count) else self._change
            return cast(T, await carry_out(commands, plan))
        except EncodingError as error:
            raise with_place(error, [operation], self._schemas) from error.__cause__

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        commands = self._connected() or await self._connect()
        if not operations:
            return []
        try:
            if len(operations) == 1:
                (operation,) = operations
                plan = make_plan(self._schemas[operation.collection], operation)
                if plan.single and not plan.large:
                    carry_out = self._find if isinstance(operation, Find | Count) else self._change
                    return [await carry_out(commands, plan)]
            if len(operations) == 2 and isinstance(note := operations[1], OutboxNote):
                plan = make_plan(self._schemas[operations[0].collection], operations[0])
                if plan.batch is not None and self._time_left() >= MIN_QUEUED_SECONDS:
                    await self._settled(commands)
                    return [await self._queue_noted(commands, NotedPlan(plan, note)), None]
            if only_reads(operations):
                return await self._read(commands, partial(read_all, commands, operations))
            await self._settled(commands)
            return await self._write(commands, partial(carry_out_all, commands, operations))
        except EncodingError as error:
            raise with_place(error, operations, self._schemas) from error.__cause__

    async def _queue_noted(self, commands: Commands, noted: NotedPlan) -> Any:
        """Carry out a change with its note, perhaps together with others that wait."""
        self._check_writable()
        key = ("noted", noted.plan.batch)
        queue = self._noted_queues.get(key)
        if queue is None:
            queue = self._noted_queues[key] = FairQueue(
                commands.client.loop,
                partial(carry_out_noted, commands),
                partial(carry_out_noted_batch, commands),
                # one transaction for several changes is less work than one for each
                1 if commands.client.replicated else MAX_CONCURRENT,
                self.on_group,
            )
            if len(self._noted_queues) > MAX_IDLE_QUEUES:
                self._noted_queues = {
                    k: q for k, q in self._noted_queues.items() if q is queue or not q.idle
                }
        return await self._counted(queue.carry_out(noted, self._time_left()))

    async def _settled(self, commands: Commands) -> None:
        """Have what was in doubt logged before it is read."""
        if commands.doubts:
            await self._write(commands, partial(settle_doubts, commands))

    async def _find(self, commands: Commands, plan: Plan) -> Any:
        """Carry out one operation that reads."""
        await self._settled(commands)
        if plan.operation.majority and commands.client.replicated:
            await self._write(commands, partial(pass_barrier, commands.client))
            commands = self._connected() or await self._connect()
        return await self._read(commands, partial(commands.carry_out, plan))

    async def _change(self, commands: Commands, plan: Plan) -> Any:
        """Carry out one operation that writes."""
        logged = commands.logged(plan.operation) is not None
        if logged and plan.batch is not None and self._time_left() >= MIN_QUEUED_SECONDS:
            await self._settled(commands)
            return await self._queue_noted(commands, NotedPlan(plan))
        if logged or (plan.batch is None and (plan.large or not plan.single)):
            await self._settled(commands)
            all_or_none = partial(carry_out_all, commands, (plan.operation,))
            return (await self._write(commands, all_or_none))[0]
        seconds = self._time_left()
        if plan.batch is None or seconds < MIN_QUEUED_SECONDS:
            return await self._write(commands, partial(commands.write, plan))
        self._check_writable()
        queue = self._queues.get(plan.batch)
        if queue is None:
            queue = self._queues[plan.batch] = FairQueue(
                commands.client.loop,
                commands.carry_out_within,
                partial(carry_out_batch, commands),
                on_group=self.on_group,
            )
            if len(self._queues) > MAX_IDLE_QUEUES:
                self._queues = {k: q for k, q in self._queues.items() if q is queue or not q.idle}
        return await self._counted(queue.carry_out(plan, seconds))

    async def _read(self, commands: Commands, action: Callable[[], Awaitable[T]]) -> T:
        """Read, for not longer than the time that is left."""
        return await run_detached(partial(read_within, commands.client, self._time_left(), action))

    async def _write(self, commands: Commands, action: Callable[[], Awaitable[T]]) -> T:
        """Write to the end although the caller may be cancelled, within the time that is left."""
        self._check_writable()
        write = partial(write_within, commands.client, self._time_left(), action)
        return await self._counted(run_to_completion(write))

    def _time_left(self) -> float:
        """Return the seconds that the server has for an operation that begins now."""
        now = asyncio.get_running_loop().time()
        left = (deadline_of_call() - now) * SERVER_TIME_SHARE
        return max(min(left, self._settings.timeout), 0.001)

    def _check_writable(self) -> None:
        if self._settings.read_only:
            raise PermissionDenied(f"{self.location} was opened with read_only=True")

    async def _counted(self, work: Awaitable[T]) -> T:
        """Await work that has to end before the connections are closed."""
        self._under_way += 1
        try:
            return await work
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_under_way.set()

    # -------------------------------------------------------------------------------- the rest

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        commands = self._connected() or await self._connect()
        place = cast("PagePlace | None", after)
        return await self._read(commands, partial(read_page, commands, find, place, size))

    async def slices(self, find: Find, size: int) -> Iterator[list[Document]]:
        """See `aiostorage.protocols.SlicingDriver.slices`."""
        commands = self._connected() or await self._connect()
        plan = make_plan(self._schemas[find.collection], find)
        if not commands.can_pack(plan):
            return consumed(await self.execute(find), size)
        await self._settled(commands)
        return await self._read(commands, partial(commands.find_packed, plan, size))

    async def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """See `aiostorage.protocols.LoggingDriver.read_log`."""
        commands = self._connected() or await self._connect()
        await self._settled(commands)
        reading = partial(read_log, commands, log, owner, after, limit)
        return await self._read(commands, reading)

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: the server's clock."""
        commands = self._connected() or await self._connect()
        return await self._read(commands, commands.client.now)

    async def wait_for_change(
        self, collection: str, since: object | None, timeout: float
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        client = (self._connected() or await self._connect()).client
        changes: Changes = client.shared.setdefault("changes", Changes(client))
        return await changes.wait(collection, since, timeout)
