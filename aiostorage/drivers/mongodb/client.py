"""The client libraries: the one module that imports motor, or makes a client of PyMongo.

Either has one pool of connections for an event loop, which drivers share (`shared_clients`). The
differences between the two libraries are handled here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import Context
from copy import copy
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import pymongo
from bson.codec_options import CodecOptions
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern
from pymongo.read_concern import ReadConcern

from aiostorage._core.cancellation import run_to_completion, shielded
from aiostorage._core.process.abandoned import end_in_thread
from aiostorage.drivers.mongodb.attempted_transaction import AttemptedTransaction
from aiostorage.drivers.mongodb.blocking import BlockingDatabase, run_at_once
from aiostorage.drivers.mongodb.bson_codec import AS_DOCUMENTS, AS_LIBRARY
from aiostorage.drivers.mongodb.server_errors import brief, translated
from aiostorage.drivers.mongodb.settings import MongoDBSettings
from aiostorage.errors import (
    BackendError,
    ConfigurationError,
    StorageClosedError,
    TemporaryBackendError,
)

__all__ = [
    "Client",
    "UpdateOne",
    "cancellations",
]

T = TypeVar("T")

OLDEST_SERVER: Final = (9, "4.4")
"""The wire version of the oldest server that has all that is needed, and its name."""

MIN_PARTIAL_IN_VERSION: Final = 17
"""The wire version (6.0) since which a partial index may have an ``$in``."""

CLEAN_UP_TIMEOUT: Final = 2.0
"""Seconds for commands after the time limit is over, and for closing."""


class _Collections(dict[str, Any]):
    """The libraries' collections by name, made when first asked for.

    Making one costs as much as many operations.
    """

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Any:
        made = self[name] = self._make(name)
        return made


class Client:
    """A pool of connections, and what the server behind it can do.

    Attributes
    ----------
    replicated : bool
        Whether it is a replica set (or a sharded cluster), with transactions and change streams.
    partial : bool
        Whether a partial index may have an ``$in``.
    users : set of object
        Those who use it.
    collections : mapping of str to Any
        Collections whose documents are those of every engine.
    undecoded : mapping of str to Any
        Collections whose documents have BSON's own types.
    shared : dict
        What the drivers have in common, such as the change stream; each has a coroutine method
        ``stop``.
    """

    def __init__(self, settings: MongoDBSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self.users: set[object] = set()
        self.replicated: bool = False
        self.partial: bool = True
        self.shared: dict[str, Any] = {}
        self._starting = asyncio.Lock()
        self._raw: Any = None
        self._motor = settings.library == "motor"
        self._concern = WriteConcern()
        self._blocking: Client | None = None
        self.collections: _Collections
        self.undecoded: _Collections
        self._use_database(None)

    # ------------------------------------------------------------------------ open and close

    async def start(self) -> None:
        """Connect unless it is connected."""
        async with self._starting:
            if self._database is None:
                try:
                    await self._connect()
                except BaseException:
                    await self._close()
                    raise

    async def close(self) -> None:
        """End what the drivers have in common, and the connections."""
        while self.shared:
            await self.shared.popitem()[1].stop()
        await self._close()

    def abandon(self) -> None:
        """Free what a closed event loop has left; from any thread."""
        raw = self._taken()
        if raw is not None and self._motor:
            end_in_thread(partial(_close_quickly, raw))
        elif raw is not None:
            raw._closed = True  # noqa: SLF001  else its finaliser warns, and cannot await

    async def _connect(self) -> None:
        # options and certificates are read, and a mongodb+srv name is looked up
        try:
            await shielded(None, lambda: anyio.to_thread.run_sync(self._make))
        except OSError as error:
            raise ConfigurationError(
                f"{self.settings.location}: a certificate cannot be used: {error}"
            ) from error
        with translated(self.settings.location, writing=False):
            try:
                hello = await self._raw.admin.command("hello")
            except pymongo.errors.ServerSelectionTimeoutError as error:
                raise BackendError(
                    f"no MongoDB server answers at {self.settings.location}: {brief(error)}; check "
                    "host, port, replica set name and TLS, and that the server runs"
                ) from error
            except pymongo.errors.ConfigurationError as error:  # its wire version, says PyMongo
                raise BackendError(f"{self.settings.location}: {error}") from error
        oldest, name = OLDEST_SERVER
        if hello["maxWireVersion"] < oldest:
            raise BackendError(
                f"the MongoDB server at {self.settings.location} is too old: aiostorage needs "
                f"{name} or newer"
            )
        if not hello.get("isWritablePrimary", True):
            if self._raw.topology_description.topology_type_name != "Single":
                raise TemporaryBackendError(f"{self.settings.location}: the primary steps down")
            raise BackendError(
                f"the MongoDB server at {self.settings.location} is not the primary of its replica "
                "set; name the set in the URL (replicaSet=...) in place of directConnection=true"
            )
        self.replicated = "setName" in hello or hello.get("msg") == "isdbgrid"
        self.partial = hello["maxWireVersion"] >= MIN_PARTIAL_IN_VERSION
        wanted = self._raw.write_concern
        if self.replicated and wanted.is_server_default:
            wanted = WriteConcern(w="majority", j=True)
        self._concern = wanted
        self._use_database(
            self._raw.get_database(
                self.settings.database, codec_options=AS_DOCUMENTS, write_concern=wanted
            )
        )

    def _use_database(self, database: Any) -> None:
        self._database = database
        self.collections = _Collections(partial(self._collection, AS_DOCUMENTS))
        self.undecoded = _Collections(partial(self._collection, AS_LIBRARY))

    def _make(self) -> None:
        options: dict[str, Any] = dict(self.settings.credentials)
        given = self.settings.url.lower()
        seconds = min(self.settings.connect_timeout, self.settings.timeout)
        milliseconds = max(1, int(seconds * 1000))
        defaults = {
            "appname": "aiostorage",
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
        }
        options |= {k: v for k, v in defaults.items() if f"{k.lower()}=" not in given}
        with translated(self.settings.location, writing=False):
            if not self._motor:
                self._raw = AsyncMongoClient(self.settings.url, **options)
                return
            try:
                from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415  not for pymongo
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    "motor is not installed: pip install 'aiostorage-orion[mongodb]', or pass "
                    "client='pymongo'"
                ) from error
            self._raw = AsyncIOMotorClient(self.settings.url, io_loop=self.loop, **options)

    async def _close(self) -> None:
        raw = self._taken()

        async def close() -> None:
            with pymongo.timeout(CLEAN_UP_TIMEOUT):
                await (anyio.to_thread.run_sync(raw.close) if self._motor else raw.close())

        if raw is not None:
            await shielded(None, close)

    def _taken(self) -> Any:
        """Return the library's client, which nothing here refers to any more."""
        raw, self._raw, self._blocking = self._raw, None, None
        self._use_database(None)
        return raw

    # -------------------------------------------------------------------------------- commands

    @staticmethod
    def bound(seconds: float | None) -> AbstractContextManager[None]:
        """Bound the calls inside to so many seconds, in a task that is not cancelled."""
        return pymongo.timeout(seconds)

    def _collection(self, options: CodecOptions[dict[str, Any]], name: str) -> Any:
        if self._database is None:
            raise StorageClosedError
        return self._database.get_collection(name, codec_options=options)

    async def collection_names(self) -> set[str]:
        """Return the names of the collections in the database."""
        return set(await self._database.list_collection_names())

    async def drop_database(self) -> None:
        """Delete the database with all that is in it."""
        await self._raw.drop_database(self.settings.database)

    async def aggregate(
        self, collection: str, pipeline: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        """Return all that an aggregation yields, as documents of every engine."""
        cursor = self.collections[collection].aggregate(pipeline, **options)
        if not self._motor:
            cursor = await cursor
        found: list[dict[str, Any]] = await cursor.to_list(None)
        return found

    async def aggregated_in_parts(
        self, collection: str, pipeline: Sequence[Any], size: int
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield what an aggregation yields, up to `size` documents at a time.

        The server may use its disk.
        """
        options: dict[str, Any] = {"batchSize": size, "allowDiskUse": True}
        cursor = self.collections[collection].aggregate(pipeline, **options)
        if not self._motor:
            cursor = await cursor
        while found := await cursor.to_list(size):
            yield found

    async def find_committed(
        self, collection: str, where: Mapping[str, Any], limit: int, since: tuple[int, int] | None
    ) -> tuple[list[dict[str, Any]], tuple[int, int]]:
        """Return the first documents by ``_id`` that a majority of the members has.

        Parameters
        ----------
        since
            A time of the store, as below: what was written until then is taken into account. The
            majority may reach that time later than the primary; the call waits for it.

        Returns
        -------
        documents, moment
            The documents, and the time of the store's last change that was taken into account: the
            second, and a number in it.
        """
        committed = self.collections[collection].with_options(read_concern=ReadConcern("majority"))
        session = self._raw.start_session()
        if self._motor:
            session = await session
        async with session:
            if since is not None:
                session.advance_operation_time(Timestamp(*since))
            cursor = committed.find(where, session=session).sort("_id", 1).limit(limit)
            found: list[dict[str, Any]] = await cursor.to_list(None)
            moment = session.operation_time
            return found, (moment.time, moment.inc)

    async def collection_uuid(self, collection: str) -> str | None:
        """Return the UUID of a collection as text; None if the collection does not exist."""
        command = {"listCollections": 1, "filter": {"name": collection}}
        found = (await self._database.command(command))["cursor"]["firstBatch"]
        return str(found[0]["info"]["uuid"].as_uuid()) if found else None

    async def watch(self, collection: str, pipeline: Sequence[Any], **options: Any) -> Any:
        """Return a change stream of a collection, which begins with the first look at it."""
        stream = self.collections[collection].watch(pipeline, **options)
        return stream if self._motor else await stream

    async def now(self) -> datetime:
        """Return the time by the server's clock."""
        moment: datetime = (await self._database.command("hello"))["localTime"]
        return moment.replace(tzinfo=UTC)

    async def command(self, command: dict[str, Any], session: Any) -> dict[str, Any]:
        """Return the answer to a command in a transaction."""
        answer: dict[str, Any] = await self._database.command(command, session=session)
        return answer

    async def admin_command(self, name: str) -> dict[str, Any]:
        """Return the answer to a command that asks the server about itself."""
        answer: dict[str, Any] = await self._raw.admin.command(name)
        return answer

    async def aggregated(
        self, collection: str, pipeline: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the results of an aggregation, in BSON's own types."""
        cursor = self.undecoded[collection].aggregate(list(pipeline), allowDiskUse=True)
        found: list[dict[str, Any]] = await (cursor if self._motor else await cursor).to_list(None)
        return found

    async def create_index(self, collection: str, keys: Sequence[Any], **options: Any) -> None:
        """Create an index unless it exists.

        A member of the replica set that is down does not block it.
        """
        quorum = {"commitQuorum": "majority"} if self.replicated else {}
        index = pymongo.IndexModel(keys, **options)
        await self._database[collection].create_indexes([index], **quorum)

    async def in_transaction(self, action: Callable[[Any], Awaitable[T]]) -> T:
        """Run `action(session)` in a transaction, again if the server wants that."""
        session = self._new_session()
        call = self._run_in_thread if self._motor else _awaited
        return await self._attempted(session, call, partial(action, session), _awaited)

    async def in_short_transaction(self, action: Callable[[Client, Any], Awaitable[T]]) -> T:
        """Run `action(client, session)` in a transaction, again if the server wants that.

        The action may wait for nothing but the commands of the client that it gets: with motor, it
        runs in a thread from its first command to the commit.
        """
        if not self._motor:
            return await self.in_transaction(partial(action, self))
        session = self._new_session()
        in_thread = partial(action, self._in_thread(), session)

        async def run(step: Callable[[], Awaitable[None]]) -> None:
            await self._run_in_thread(lambda: run_at_once(step()))

        return await self._attempted(session, _called, in_thread, run)

    async def _attempted(
        self,
        session: Any,
        call: Callable[[Callable[[], Any]], Awaitable[object]],
        action: Callable[[], Awaitable[T]],
        run: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> T:
        transaction = AttemptedTransaction(session, call, self._concern, action)
        try:
            await transaction.commit(run)
        except (asyncio.CancelledError, pymongo.errors.PyMongoError) as error:
            await self._freed(session, error)
            if not isinstance(error, asyncio.CancelledError):
                await self._ended(session)
            raise
        await self._ended(session)
        result: T = transaction.result
        return result

    def _new_session(self) -> Any:
        return (self._raw.delegate if self._motor else self._raw).start_session()

    async def _ended(self, session: Any) -> None:
        """End a session that has no transaction any more, which sends nothing."""
        ended = session.end_session()
        if not self._motor:
            await ended

    def _run_in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Call a function in a thread of motor's pool."""
        from motor.frameworks import asyncio as motor_threads  # noqa: PLC0415  not for pymongo

        run: Callable[..., Awaitable[Any]] = motor_threads.run_on_executor
        return run(self.loop, function)

    def _in_thread(self) -> Client:
        """Return the same client for a thread, in which its commands block."""
        if self._blocking is None:
            self._blocking = copy(self)
            self._blocking._use_database(BlockingDatabase(self._database.delegate))  # noqa: SLF001
        return self._blocking

    async def _freed(self, session: Any, error: BaseException) -> None:
        """Have the server end a transaction if it may be unfinished."""
        if not isinstance(error, pymongo.errors.OperationFailure) or error.timeout:
            # it would hold what it has written for a minute
            kill = {"killSessions": [session.session_id]}
            with suppress(pymongo.errors.PyMongoError):
                await self.beyond_limit(lambda: self._raw.admin.command(kill))

    async def beyond_limit(self, action: Callable[[], Awaitable[object]]) -> None:
        """Await a command that is needed although the time limit is over; it gets a short one."""

        async def act() -> None:
            with pymongo.timeout(CLEAN_UP_TIMEOUT):
                await action()

        # limits are kept in the context, and none can be longer than the one around it
        task = asyncio.create_task(act(), context=Context())
        await run_to_completion(lambda: task)

    async def changes(
        self, pipeline: Sequence[Any], unwanted: Callable[[], bool]
    ) -> AsyncIterator[Any]:
        """Yield the changes in the database, until they are no longer wanted.

        None comes first, as soon as no change can be missed.
        """
        database = self._raw[self.settings.database]
        stream = database.watch(pipeline, max_await_time_ms=500)
        if not self._motor:
            stream = await stream
        async with stream:
            await stream.try_next()  # opens it, where that is put off until the first look
            yield None
            while not unwanted():
                change = await stream.try_next()
                if change is not None:
                    yield change

    def bucket(self, name: str, chunk: int) -> Any:
        """Return a GridFS bucket."""
        database = self._raw.get_database(self.settings.database, write_concern=self._concern)
        if self._motor:
            from motor.motor_asyncio import AsyncIOMotorGridFSBucket  # noqa: PLC0415  as above

            return AsyncIOMotorGridFSBucket(database, name, chunk_size_bytes=chunk)
        from gridfs import AsyncGridFSBucket  # noqa: PLC0415  for large states only

        return AsyncGridFSBucket(database, name, chunk_size_bytes=chunk)


def _awaited(function: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    return function()


async def _called(function: Callable[[], T]) -> T:
    return function()


def _close_quickly(raw: Any) -> None:
    with pymongo.timeout(CLEAN_UP_TIMEOUT):
        raw.close()


def cancellations() -> int:
    """Count how often the running task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
