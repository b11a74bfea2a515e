"""The client libraries: the one module that imports motor and PyMongo's clients.

Both have one pool of connections for an event loop; drivers of one process with the same settings
share it, and with it the one change stream that a process has. What differs between the two stands
here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import anyio
import bson
import pymongo
from bson import DBRef, Int64, ObjectId
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern

from aiostorage._core.cancellation import run_to_completion, shielded
from aiostorage.drivers.mongodb.server_errors import brief, translated
from aiostorage.drivers.mongodb.settings import Settings
from aiostorage.errors import BackendError, ConfigurationError, TemporaryBackendError

__all__ = [
    "MARGIN",
    "Client",
    "UpdateOne",
    "as_stored",
    "cancellations",
    "connect",
]

T = TypeVar("T")

OLDEST: Final = (9, "4.4")
"""The wire version of the oldest server that has all that is needed, and its name."""

PARTIAL: Final = 17
"""The wire version (6.0) since which a partial index may have an ``$in``."""

SELECTION: Final = 15_000
"""Milliseconds to look for a server, where the URL says nothing."""

CLOSING: Final = 2.0
"""Seconds to tell the server that we go."""

MARGIN: Final = 0.95
"""Part of the time left that the server gets, so that its answer comes before ours is given up."""


class _Plain(TypeDecoder):
    """Makes what BSON tells apart what it is in every other engine."""

    def __init__(self, bson_type: type, transform: Callable[[Any], Any]) -> None:
        self._type = bson_type
        self._transform = transform

    @property
    def bson_type(self) -> type:
        return self._type

    def transform_bson(self, value: Any) -> Any:
        return self._transform(value)


_LIBRARY: Final[CodecOptions[dict[str, Any]]] = CodecOptions(tz_aware=True, tzinfo=UTC)

_DOCUMENTS: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    type_registry=TypeRegistry(
        [_Plain(Int64, int), _Plain(ObjectId, str), _Plain(DBRef, lambda ref: dict(ref.as_doc()))]
    ),
)


def as_stored(document: dict[str, Any]) -> dict[str, Any]:
    """Answer a document as it comes back: times to the millisecond, say."""
    return bson.decode(bson.encode(document), _DOCUMENTS)


_clients: Final[dict[Any, Client]] = {}
"""By process, event loop and settings. Those of a parent process stay: dropped, they would hang."""


async def connect(settings: Settings) -> Client:
    """Answer the client of this process and event loop; `Client.release` it afterwards.

    Raises
    ------
    BackendError
        No server answers, or it is too old.
    PermissionDenied
        It does not let us in.
    """
    loop = asyncio.get_running_loop()
    for key in list(_clients):
        if key[0] == os.getpid() and key[1].is_closed() and (old := _clients.pop(key, None)):
            await old.abandon()
    key = os.getpid(), loop, settings
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = Client(settings, loop, lambda: _clients.pop(key, None))
    client.users += 1
    try:
        await client.start()
    except BaseException:
        await client.release()
        raise
    return client


class Client:
    """A pool of connections, and what the server behind it can do.

    Attributes
    ----------
    replicated : bool
        Whether it is a replica set (or a sharded cluster), with transactions and change streams.
    partial : bool
        Whether a partial index may have an ``$in``.
    users : int
        How many drivers hold it.
    """

    def __init__(
        self, settings: Settings, loop: asyncio.AbstractEventLoop, forget: Callable[[], object]
    ) -> None:
        self.settings = settings
        self.loop = loop
        self.users = 0
        self.replicated = False
        self.partial = True
        self.shared: dict[str, Any] = {}  # what its drivers have in common, such as the stream
        self._forget = forget
        self._starting = asyncio.Lock()
        self._raw: Any = None
        self._motor = settings.library == "motor"
        self._concern = WriteConcern()
        self._database: Any = None
        # making one costs as much as many an operation
        self._collections: dict[str, Any] = {}
        self._plain: dict[str, Any] = {}

    # ------------------------------------------------------------------------ open and close

    async def start(self) -> None:
        """Connect unless that is done."""
        async with self._starting:
            if self._database is None:
                try:
                    await self._connect()
                except BaseException:
                    await self._close()
                    raise

    async def release(self) -> None:
        """Let go; the last one closes the connections."""
        self.users -= 1
        if not self.users:
            self._forget()
            await self._close()

    async def abandon(self) -> None:
        """Let go of what a closed event loop left behind."""
        if self._motor:
            await self._close()
        elif self._raw is not None:
            self._raw._closed = True  # noqa: SLF001  else its finaliser warns, and none can await

    async def _connect(self) -> None:
        # options and certificates are read, and a mongodb+srv name is looked up
        try:
            await shielded(None, lambda: anyio.to_thread.run_sync(self._make))
        except OSError as error:
            raise ConfigurationError(
                f"{self.settings.location}: a certificate cannot be used: {error}"
            ) from error
        with translated(self.settings.location, writing=False), self.limit(opening=True):
            try:
                hello = await self._raw.admin.command("hello")
            except pymongo.errors.ServerSelectionTimeoutError as error:
                raise BackendError(
                    f"no MongoDB server answers at {self.settings.location}: {brief(error)}; check "
                    "host, port, replica set name and TLS, and that the server runs"
                ) from error
            except pymongo.errors.ConfigurationError as error:  # its wire version, says PyMongo
                raise BackendError(f"{self.settings.location}: {error}") from error
        oldest, name = OLDEST
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
        self.partial = hello["maxWireVersion"] >= PARTIAL
        wanted = self._raw.write_concern
        if self.replicated and wanted.is_server_default:
            wanted = WriteConcern(w="majority", j=True)
        self._concern = wanted
        self._database = self._raw.get_database(
            self.settings.database, codec_options=_DOCUMENTS, write_concern=wanted
        )

    def _make(self) -> None:
        options: dict[str, Any] = dict(self.settings.credentials)
        given = self.settings.url.lower()
        defaults = {
            "appname": "aiostorage",
            "serverSelectionTimeoutMS": SELECTION,
            "connectTimeoutMS": SELECTION,
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
                    "motor is not installed: pip install 'aiostorage[mongodb]', or pass "
                    "client='pymongo'"
                ) from error
            self._raw = AsyncIOMotorClient(self.settings.url, io_loop=self.loop, **options)

    async def _close(self) -> None:
        raw, self._raw, self._database = self._raw, None, None
        self._collections.clear()
        self._plain.clear()

        async def close() -> None:
            with pymongo.timeout(CLOSING):
                await (anyio.to_thread.run_sync(raw.close) if self._motor else raw.close())

        if raw is not None:
            await shielded(None, close)

    # -------------------------------------------------------------------------------- commands

    @contextmanager
    def limit(self, seconds: float | None = None, *, opening: bool = False) -> Iterator[None]:
        """Bound what is called inside: the server stops it when the time is over.

        Parameters
        ----------
        seconds
            How long; default: `time_left`.
        opening
            The URL's own time for finding a server holds, not ours.
        """
        with nullcontext() if opening else self.bound(seconds or self.time_left()):
            yield

    @staticmethod
    def bound(seconds: float) -> AbstractContextManager[None]:
        """Bound what is called inside, in a task that nobody cancels."""
        return pymongo.timeout(seconds)

    def time_left(self) -> float:
        """Answer how many seconds an operation has that begins now."""
        left = (anyio.current_effective_deadline() - self.loop.time()) * MARGIN
        return max(min(left, self.settings.timeout), 0.001)

    def collection(self, name: str) -> Any:
        """Answer a collection whose documents are those of every engine."""
        found = self._collections.get(name)
        if found is None:
            found = self._collections[name] = self._database[name]
        return found

    async def collection_names(self) -> set[str]:
        """Answer which collections there are in the database."""
        return set(await self._database.list_collection_names())

    async def find_one_and_update(
        self, name: str, where: dict[str, Any], update: Any, *more: Any, **options: Any
    ) -> dict[str, Any] | None:
        """Do what the libraries call so, and make the answer a document of every engine.

        They would, by the collection's options; but then PyMongo does not survive the error that
        a primary answers which steps down meanwhile: it wants to write into a document that is
        read-only (`_check_command_response`, up to 4.20 at least).
        """
        plain = self._plain.get(name)
        if plain is None:
            plain = self._plain[name] = self._database.get_collection(name, codec_options=_LIBRARY)
        found = await plain.find_one_and_update(where, update, *more, **options)
        return None if found is None else as_stored(found)

    async def now(self) -> datetime:
        """Answer the server's clock."""
        moment: datetime = (await self._database.command("hello"))["localTime"]
        return moment.replace(tzinfo=UTC)

    async def create_index(self, collection: str, keys: Sequence[Any], **options: Any) -> None:
        """Create an index unless it is there.

        A member of the replica set that is down does not hold it up.
        """
        quorum = {"commitQuorum": "majority"} if self.replicated else {}
        index = pymongo.IndexModel(keys, **options)
        await self._database[collection].create_indexes([index], **quorum)

    async def in_transaction(self, action: Callable[[Any], Awaitable[T]]) -> T:
        """Run `action(session)` in a transaction, again if the server wants that."""
        session = self._raw.start_session()
        if self._motor:
            session = await session
        async with session:
            try:
                result: T = await session.with_transaction(action, write_concern=self._concern)
            except (asyncio.CancelledError, pymongo.errors.PyMongoError) as error:
                if not isinstance(error, pymongo.errors.OperationFailure) or error.timeout:
                    # it would hold what it has written for a minute
                    kill = {"killSessions": [session.session_id]}
                    with suppress(pymongo.errors.PyMongoError):
                        await self.afresh(lambda: self._raw.admin.command(kill))
                raise
            return result

    async def afresh(self, action: Callable[[], Awaitable[object]]) -> None:
        """Await what has to be done although the limit has run out; it gets a short one."""

        async def act() -> None:
            with pymongo.timeout(CLOSING):
                await action()

        # limits are kept in the context, and none can be longer than the one around it
        task = asyncio.create_task(act(), context=Context())
        await run_to_completion(lambda: task)

    async def changes(
        self, pipeline: Sequence[Any], unwanted: Callable[[], bool]
    ) -> AsyncIterator[Any]:
        """Yield what happens in the database, until that is no longer wanted.

        None comes first, as soon as nothing can be missed.
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
        """Answer a GridFS bucket."""
        database = self._raw.get_database(self.settings.database, write_concern=self._concern)
        if self._motor:
            from motor.motor_asyncio import AsyncIOMotorGridFSBucket  # noqa: PLC0415  as above

            return AsyncIOMotorGridFSBucket(database, name, chunk_size_bytes=chunk)
        from gridfs import AsyncGridFSBucket  # noqa: PLC0415  for large states only

        return AsyncGridFSBucket(database, name, chunk_size_bytes=chunk)


def cancellations() -> int:
    """Count how often the running task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
