"""The MongoDB engine beside a bare client doing the same commands, and beside Oríon's storage.

The two are measured in turn, in short blocks of one run: on a noisy machine, only two consecutive
blocks can be compared. The results are the median and the quartiles of the ratios.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from bson import ObjectId
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, MongoClient, ReturnDocument, WriteConcern

from aiostorage import open_storage
from benchmarks import oriondb
from benchmarks.workload import Measure, cycle, fill, make_trials, rate, reserve, stall_watched

__all__ = [
    "LIBRARIES",
    "WAYS",
    "ContentionResult",
    "FetchResult",
    "LoggedBareClient",
    "PairedResult",
    "beside_orion",
    "contention",
    "depth",
    "drop_databases",
    "mongod",
    "opened_client",
    "throughput",
]

Library = Literal["motor", "pymongo"]
Way = Literal["ours", "plain"]
LIBRARIES: tuple[Library, ...] = ("motor", "pymongo")
WAYS: tuple[Way, ...] = ("ours", "plain")
TASK_COUNTS = (1, 8, 64)
INDEX_HINT = "experiment_1_submit_time_1_partial"
DEFAULT_HISTORY = "30d"
WARM_UP_TRIALS = 50
"""Trials of a block that are not counted: they warm up connections and caches."""

MAX_RESERVATIONS_PER_SECOND = 5000
"""An upper bound, which tells how many trials to make beforehand."""


@contextmanager
def mongod(directory: Path) -> Iterator[str]:
    """Yield the URL of a replica set with one member, or the one in ``AIOSTORAGE_TEST_MONGODB``.

    Raises
    ------
    MongodError
        There is no server, and none could be started.
    """
    from aiostorage.testing.mongodb.deployments import Deployments  # noqa: PLC0415  it imports pytest

    with closing(Deployments(directory.joinpath)) as deployments:
        yield deployments.get("replica set").url


def drop_databases(url: str, prefix: str) -> None:
    """Drop the databases whose names begin so."""
    with MongoClient[Any](url) as client:
        for name in client.list_database_names():
            if name.startswith(prefix):
                client.drop_database(name)


@contextmanager
def _database(url: str) -> Iterator[str]:
    """Yield the name of a database, which is dropped afterwards."""
    name = f"aiostorage_bench_{uuid4().hex[:12]}"
    try:
        yield name
    finally:
        with MongoClient[Any](url) as client:
            client.drop_database(name)


# ------------------------------------------------------------------------------ the bare client


class BareClient:
    """A client library alone, with the commands that the engine sends."""

    def __init__(self, client: Any, database: str, experiment: str) -> None:
        self._experiment = ObjectId(experiment)
        self._trials = client.get_database(
            database,
            codec_options=CodecOptions[dict[str, Any]](tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern(w="majority", j=True),
        ).trials

    async def reserve(self, session: Any = None) -> dict[str, Any]:
        """Reserve one trial."""
        trial: dict[str, Any] | None = await self._trials.find_one_and_update(
            {
                "experiment": {"$eq": self._experiment},
                "status": {"$in": ["new", "suspended", "interrupted"]},
            },
            {
                "$currentDate": {"start_time": True, "heartbeat": True},
                "$set": {"status": "reserved", "worker": uuid4().hex},
            },
            sort=[("submit_time", 1)],
            hint=INDEX_HINT,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if trial is None:
            raise AssertionError("the experiment ran out of trials; make more")
        return trial

    async def cycle(self) -> None:
        """Take one trial from its reservation to its completion."""
        trial = await self.reserve()
        held = {
            "experiment": {"$eq": self._experiment},
            "id": {"$eq": trial["id"]},
            "status": {"$eq": "reserved"},
            "worker": {"$eq": trial["worker"]},
        }
        await self._update(held, {"$currentDate": {"heartbeat": True}})
        results = [{"name": "objective", "type": "objective", "value": 0.5}]
        update = {
            "$currentDate": {"end_time": True, "heartbeat": True},
            "$set": {"results": results, "status": "completed"},
        }
        await self._complete(trial, held, update)

    async def _complete(
        self, _trial: Mapping[str, Any], held: Mapping[str, Any], update: Mapping[str, Any]
    ) -> None:
        await self._update(held, update)

    async def _update(
        self, held: Mapping[str, Any], update: Mapping[str, Any], session: Any = None
    ) -> None:
        if (await self._trials.update_one(held, update, session=session)).matched_count != 1:
            raise AssertionError("a reserved trial was lost")


class LoggedBareClient(BareClient):
    """A client library alone, which writes a row of the history with each change.

    As in aiostorage, a reservation or completion and its row are one transaction, and the row is
    added only if none has a higher number of the attempt.
    """

    def __init__(self, client: Any, database: str, experiment: str) -> None:
        super().__init__(client, database, experiment)
        self._client = client
        self._rows = client.get_database(
            database, codec_options=self._trials.codec_options
        ).trial_changes

    async def reserve(self, _session: Any = None) -> dict[str, Any]:
        """Reserve one trial."""
        reserve = super().reserve

        async def work(session: Any) -> dict[str, Any]:
            trial = await reserve(session)
            await self._log(trial, "reserved", "new", "reserved", session)
            return trial

        trial: dict[str, Any] = await self._in_transaction(work)
        return trial

    async def _complete(
        self, trial: Mapping[str, Any], held: Mapping[str, Any], update: Mapping[str, Any]
    ) -> None:
        async def work(session: Any) -> None:
            await self._update(held, update, session)
            await self._log(trial, "status", "reserved", "completed", session)

        await self._in_transaction(work)

    async def _log(
        self, trial: Mapping[str, Any], kind: str, before: str, after: str, session: Any
    ) -> None:
        now, before_it = datetime.now(UTC), 0 if kind == "reserved" else 1
        uid = f"{int(now.timestamp() * 1000) * 4096:015x}{uuid4().hex[:8]}"
        later = [{"attempt": {"$gt": before_it}}, {"_id": {"$gte": uid}}]
        row = {
            "_id": uid,
            "kind": kind,
            "before": before,
            "after": after,
            "holder": trial["worker"],
            "attempt": 1,
            "time": now,
            "reason": None,
        }
        added = await self._rows.update_one(
            {"owner": self._experiment, "name": trial["id"], "$or": later},
            {"$setOnInsert": row},
            upsert=True,
            session=session,
        )
        if added.upserted_id != uid:
            raise AssertionError("a trial has a later row")

    async def _in_transaction(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        session = self._client.start_session()
        if not isinstance(self._client, AsyncMongoClient):
            session = await session
        async with session:
            concern = self._trials.write_concern
            return await session.with_transaction(work, write_concern=concern)


@asynccontextmanager
async def opened_client(url: str, library: Library) -> AsyncIterator[Any]:
    """Yield a client of a library."""
    if library == "pymongo":
        async with AsyncMongoClient[Any](url) as client:
            yield client
    else:
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415  not for pymongo

        motor: Any = AsyncIOMotorClient(url)
        with closing(motor) as client:
            yield client


# ------------------------------------------------------------------------- two beside each other

Block = Callable[[], Awaitable[Measure]]


@dataclass(frozen=True)
class PairedResult:
    """Ours beside another way of doing the same, in alternating blocks.

    Attributes
    ----------
    ours, theirs
        Operations per second, medians of the blocks.
    ratios
        The ratio of each block of ours to the neighbouring one of theirs.
    stall
        The longest time that the event loop was blocked while ours ran, in seconds.
    """

    what: str
    library: Library
    tasks: int
    ours: float
    theirs: float
    ratios: tuple[float, ...]
    stall: float

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile of the ratios, their median, and the upper quartile."""
        low, middle, high = statistics.quantiles(self.ratios, method="inclusive")
        return low, middle, high


async def _pair(
    what: str, library: Library, tasks: int, rounds: int, *, ours: Block, theirs: Block
) -> PairedResult:
    mine, yours = [await ours()], [await theirs()]  # not counted: these two open connections
    for number in range(rounds):
        for block in (ours, theirs) if number % 2 else (theirs, ours):
            (mine if block is ours else yours).append(await block())
    return PairedResult(
        what,
        library,
        tasks,
        statistics.median(one.rate for one in mine[1:]),
        statistics.median(one.rate for one in yours[1:]),
        tuple(one.rate / other.rate for one, other in zip(mine[1:], yours[1:], strict=True)),
        max(one.stall for one in mine[1:]),
    )


def throughput(
    url: str, count: int, rounds: int, libraries: tuple[Library, ...] = LIBRARIES
) -> Iterator[PairedResult]:
    """Measure ours beside the bare client, reservations and cycles, for 1, 8 and 64 tasks.

    Without a history and with one, which the bare client then writes, too.

    Parameters
    ----------
    count
        Operations of one block; a quarter of them with one task, half with 8.
    rounds
        Counted blocks of each side.
    """
    for library in libraries:
        for tasks in TASK_COUNTS:
            share = count * {1: 1, 8: 2, 64: 4}[tasks] // 4
            yield from asyncio.run(_beside_bare(url, library, tasks, share, rounds))


async def _beside_bare(
    url: str, library: Library, tasks: int, count: int, rounds: int
) -> list[PairedResult]:
    measured = []
    for history, peer in (("off", BareClient), (DEFAULT_HISTORY, LoggedBareClient)):
        with _database(url) as database:
            async with (
                open_storage(url, client=library, database=database, history=history) as storage,
                opened_client(url, library) as client,
            ):
                for what, action in (("reserve", reserve), ("cycle", cycle)):
                    trials = 2 * (rounds + 1) * (count + WARM_UP_TRIALS)
                    experiment = await fill(storage, what, trials)
                    bare = peer(client, database, str(experiment.id))

                    async def ours(
                        storage: Any = storage, action: Any = action, experiment: Any = experiment
                    ) -> Measure:
                        return await rate(lambda: action(storage, experiment), tasks, count)

                    async def theirs(bare: BareClient = bare, what: str = what) -> Measure:
                        one = bare.reserve if what == "reserve" else bare.cycle
                        return await rate(one, tasks, count)

                    name = what if history == "off" else f"{what}, with history"
                    measured.append(
                        await _pair(name, library, tasks, rounds, ours=ours, theirs=theirs)
                    )
    return measured


def beside_orion(url: str, count: int, rounds: int) -> Iterator[PairedResult]:
    """Measure ours beside Oríon's own storage on MongoDB, which is for threads.

    Parameters
    ----------
    count, rounds
        As for `throughput`.
    """
    for library in LIBRARIES:
        for tasks in TASK_COUNTS:
            share = count * {1: 1, 8: 2, 64: 4}[tasks] // 4
            yield from asyncio.run(_beside_orion(url, library, tasks, share, rounds))


async def _beside_orion(
    url: str, library: Library, tasks: int, count: int, rounds: int
) -> list[PairedResult]:
    measured = []
    trials = 2 * (rounds + 1) * (count + WARM_UP_TRIALS)
    for what, action in (("reserve", reserve), ("cycle", cycle)):
        with _database(url) as database, _database(url) as theirs_database:
            orion = _OrionStorage(url, theirs_database, trials)
            async with open_storage(url, client=library, database=database) as storage:
                experiment = await fill(storage, what, trials)

                async def ours(
                    storage: Any = storage, action: Any = action, experiment: Any = experiment
                ) -> Measure:
                    return await rate(lambda: action(storage, experiment), tasks, count)

                async def theirs(orion: _OrionStorage = orion, what: str = what) -> Measure:
                    one = orion.reserve if what == "reserve" else orion.cycle
                    return Measure(await asyncio.to_thread(_in_threads, one, tasks, count), 0.0)

                measured.append(await _pair(what, library, tasks, rounds, ours=ours, theirs=theirs))
    return measured


class _OrionStorage:
    """Oríon's storage, on a database that it makes itself."""

    def __init__(self, url: str, database: str, trials: int) -> None:
        place, _, options = url.partition("?")
        host = f"{place.rstrip('/')}/{database}?{options}"
        config = {
            "type": "legacy",
            "database": {"type": "mongodb", "host": host, "name": database},
        }
        self._storage = oriondb.opened(config)
        self._experiment = oriondb.ExperimentId(uuid4().hex)
        made = make_trials(self._experiment.id, trials)
        self._storage._db.write("trials", [trial.to_dict() for trial in made])  # noqa: SLF001

    def reserve(self) -> Any:
        """Reserve one trial."""
        trial = self._storage.reserve_trial(self._experiment)
        if trial is None:
            raise AssertionError("the experiment ran out of trials; make more")
        return trial

    def cycle(self) -> None:
        """Take one trial from its reservation to its completion."""
        from orion.core.worker.trial import Trial  # noqa: PLC0415

        trial = self.reserve()
        self._storage.update_heartbeat(trial)
        trial.results = [Trial.Result(name="objective", type="objective", value=0.5)]
        self._storage.push_trial_results(trial)
        self._storage.set_trial_status(trial, status="completed", was="reserved")


def _in_threads(action: Callable[[], object], threads: int, count: int) -> float:
    def work() -> None:
        for _ in range(count // threads):
            action()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count // threads * threads / (time.perf_counter() - begin)


# ------------------------------------------------------------------------------- large experiments


@dataclass(frozen=True)
class FetchResult:
    """The time of fetching all trials of an experiment at once.

    Attributes
    ----------
    seconds, stall
        How long it took, and the longest time that the event loop was blocked meanwhile; with
        Python's garbage collector off, which would take longer than all the rest.
    """

    library: Library
    trials: int
    seconds: float
    stall: float


async def depth(
    url: str, library: Library, *, many: int, few: int, count: int, rounds: int
) -> tuple[PairedResult, FetchResult]:
    """Measure reservations with few trials in the database beside those with many; fetch the many.

    Each side has one task, since a queue would hide what the server does. In `PairedResult`, `ours`
    is the database with many trials.
    """
    with _database(url) as one, _database(url) as other:
        async with (
            open_storage(url, client=library, database=one) as small,
            open_storage(url, client=library, database=other) as large,
        ):
            crowd = await fill(large, "bench", many)
            # the garbage collector would scan the result while it grows
            gc.disable()
            start = time.perf_counter()
            async with stall_watched() as stall:
                fetched = await large.fetch_trials(crowd)
            seconds = time.perf_counter() - start
            gc.enable()
            assert fetched is not None
            assert len(fetched) == many
            del fetched

            async def at_many() -> Measure:
                return await rate(lambda: reserve(large, crowd), 1, count)

            async def at_few() -> Measure:
                experiment = await fill(small, uuid4().hex, few)
                measure = await rate(lambda: reserve(small, experiment), 1, count)
                await small.delete_trials(experiment)
                return measure

            paired = await _pair(f"{many} trials", library, 1, rounds, ours=at_many, theirs=at_few)
    return paired, FetchResult(library, many, seconds, stall())


# ------------------------------------------------------------------------------------ contention


@dataclass(frozen=True)
class ContentionResult:
    """Many workers that reserve trials of one experiment.

    Attributes
    ----------
    rate
        Reservations per second of all workers together.
    conflicts
        Write conflicts in the server per reservation.
    """

    way: Way
    processes: int
    tasks: int
    rate: float
    conflicts: float


def contention(url: str, way: Way, processes: int, tasks: int, seconds: float) -> ContentionResult:
    """Measure workers in several processes.

    Parameters
    ----------
    way
        ``plain`` is the bare client.
    seconds
        How long they reserve.
    """
    with _database(url) as database, MongoClient[Any](url) as client:
        experiment = asyncio.run(
            _filled(url, database, round(seconds * MAX_RESERVATIONS_PER_SECOND))
        )
        context = multiprocessing.get_context("spawn")
        ready, counts = context.Barrier(processes + 1), context.Queue()
        work = _ReservingProcess(url, database, way, experiment, tasks, seconds)
        workers = [
            context.Process(target=work, args=(ready, counts), daemon=True)
            for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        ready.wait(120)
        before = _conflicts(client)
        found = [counts.get(timeout=seconds + 120) for _ in workers]
        conflicts = _conflicts(client) - before
        for worker in workers:
            worker.join()
    done = sum(count for count, _ in found)
    total = sum(count / took for count, took in found)
    return ContentionResult(way, processes, tasks, total, conflicts / done)


async def _filled(url: str, database: str, count: int) -> str:
    async with open_storage(url, client="pymongo", database=database) as storage:
        return str((await fill(storage, "bench", count)).id)


def _conflicts(client: MongoClient[Any]) -> int:
    return int(client.admin.command("serverStatus")["metrics"]["operation"]["writeConflicts"])


@dataclass(frozen=True)
class _ReservingProcess:
    """The work of a process: reserve trials from `tasks` tasks, for `seconds` seconds."""

    url: str
    database: str
    way: Way
    experiment: str
    tasks: int
    seconds: float

    def __call__(self, ready: Any, counts: Any) -> None:
        try:
            counts.put(asyncio.run(self._run(ready)))
        except BaseException:
            ready.abort()  # so that the others do not wait for this one
            raise

    async def _run(self, ready: Any) -> tuple[int, float]:
        done = 0
        async with (
            open_storage(self.url, client="pymongo", database=self.database) as storage,
            opened_client(self.url, "pymongo") as client,
        ):
            bare = BareClient(client, self.database, self.experiment)

            async def one() -> None:
                if self.way == "plain":
                    await bare.reserve()
                elif await storage.reserve_trial({"_id": self.experiment}) is None:
                    raise AssertionError("the experiment ran out of trials; make more")

            async def work() -> None:
                nonlocal done
                while time.perf_counter() - begin < self.seconds:
                    await one()
                    done += 1

            await asyncio.gather(*(one() for _ in range(self.tasks)))  # opens connections
            ready.wait(120)
            begin = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(self.tasks)))
            return done, time.perf_counter() - begin
