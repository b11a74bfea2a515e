"""Elections while workers are at work: nothing is lost, nothing happens twice, no worker dies."""

from __future__ import annotations

import asyncio
import gc
import queue
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from aiostorage import (
    BackendError,
    Experiment,
    RetryPolicy,
    Storage,
    TemporaryBackendError,
    Trial,
    open_storage,
)
from aiostorage._core import lock_queue
from aiostorage.drivers.mongodb import change_streams
from aiostorage.testing import ReplicaSet
from aiostorage.testing.contract.change_feed_laws import check_chains
from tests.mongo.worker_failover import TASKS
from tests.processes.support import DEADLINE, Events, Worker, starter

PROCESSES = 4
TRIALS = 96
NEVER = 600.0
"""Seconds after which a test has failed long since."""

SLACK = 8.0
"""Seconds that a busy machine may add."""

SCRIPT = Path(__file__).with_name("worker_failover.py")

pytestmark = [
    pytest.mark.timeout(240),
    # PyMongo leaves sockets of servers that are gone to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(params=["motor", "pymongo"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def replica_set(replica_set_of_3: ReplicaSet) -> ReplicaSet:
    return replica_set_of_3


@pytest.fixture
def url(replica_set: ReplicaSet, mongodb_database: str) -> str:
    return replica_set.url_for(mongodb_database)


@pytest.fixture(autouse=True)
def no_socket_left() -> Iterator[None]:
    """Have the sockets collected here, and not where it disturbs another test."""
    yield
    gc.collect()


# ----------------------------------------------------------------------------------- under load


@dataclass
class FailoverWorkers:
    """Processes, all of which have to live to the end."""

    workers: list[Worker]
    events: Events
    completed: int = 0
    ended: set[int] = field(default_factory=set)

    def work_until(self, completed: int) -> None:
        """Wait until so many trials are completed."""
        while self.completed < completed:
            self.receive()

    def finish(self) -> None:
        """Wait until all of them have ended."""
        while len(self.ended) < len(self.workers):
            self.receive()

    def receive(self) -> None:
        try:
            worker, line = self.events.get(timeout=DEADLINE)
        except queue.Empty:
            complaints = "\n".join(worker.stderr for worker in self.workers)
            raise AssertionError(f"{self.completed} completed, and no more: {complaints}") from None
        if line is None:
            worker.succeed()
            self.ended.add(worker.pid)
        else:
            assert line == "completed"
            self.completed += 1


@dataclass
class FailoverRecord:
    """What the workers have logged, in the order in which it happened."""

    lines: list[tuple[float, list[str]]]

    @classmethod
    def of(cls, logs: Path) -> FailoverRecord:
        lines = [
            (float(at), words)
            for log in logs.iterdir()
            for at, *words in (line.split(" ") for line in log.read_text().splitlines())
        ]
        return cls(sorted(lines))

    def rests(self, word: str) -> list[tuple[str, ...]]:
        """Return the words after the worker's name, in all lines that begin with `word`."""
        return [tuple(rest) for _, (first, _, *rest) in self.lines if first == word]

    def pause(self, worker: str | None = None) -> float:
        """Return the longest time in which nothing succeeded, for all workers or for one."""
        times = [at for at, words in self.lines if worker in (None, words[1])]
        return max(after - before for before, after in pairwise(times))

    @property
    def workers(self) -> set[str]:
        return {words[1] for _, words in self.lines}


async def check_log(storage: Storage, experiment: Any, cursor: str) -> None:
    """Check that one who was away all the time finds all that has happened, as a newcomer does."""
    steps = []
    for begin in (cursor, "oldest"):
        changes, end = await storage.changes_since(experiment, begin, limit=10_000)
        assert (await storage.changes_since(experiment, end)).changes == []
        steps.append(check_chains(changes))
    assert steps[0] == steps[1]
    ends = [chain[-1][:3] for chain in steps[0].values()]
    assert ends == [("status", "reserved", "completed")] * TRIALS


def test_failover_under_load(
    replica_set: ReplicaSet,
    url: str,
    client: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()

    async def register(experiment: str, numbers: range) -> None:
        async with open_storage(url, client=client) as storage:
            await storage.register_trials(
                [Trial(experiment=experiment, params={"x": x}) for x in numbers]
            )

    async def prepare() -> tuple[str, str]:
        async with open_storage(url, client=client) as storage:
            made = await storage.create_experiment({"name": "failover"}, algo_state={"count": 0})
            return str(made.id), (await storage.changes_since(made)).cursor

    (experiment, cursor), half = asyncio.run(prepare()), TRIALS // 2
    asyncio.run(register(experiment, range(half)))
    begin = time.monotonic()
    events: Events = queue.SimpleQueue()
    with starter(tmp_path) as start:
        workers = [
            start(str(SCRIPT), url, client, experiment, logs / name, name, TRIALS, into=events)
            for name in map(str, range(PROCESSES))
        ]
        group = FailoverWorkers(workers, events)
        group.work_until(half // 4)
        killed = replica_set.kill_primary()
        group.work_until(half // 2)  # by then others than those that were under way are done, too
        replica_set.restart(killed)
        asyncio.run(register(experiment, range(half, TRIALS)))
        group.work_until(half + half // 4)
        stepped_down = replica_set.step_down()
        group.finish()
    seconds = time.monotonic() - begin

    async def look() -> tuple[list[Trial], bool, int, float]:
        async with open_storage(url, client=client) as storage:
            await check_log(storage, {"_id": experiment}, cursor)
            lock = await storage.get_algorithm_lock_info(uid=experiment)
            before = time.monotonic()
            async with storage.acquire_algorithm_lock({"_id": experiment}) as algorithm:
                waited = time.monotonic() - before
                count = algorithm.state["count"]
            trials = await storage.fetch_trials(uid=experiment)
        assert lock is not None
        assert trials is not None
        return trials, lock.locked, count, waited

    trials, locked, count, waited = asyncio.run(look())
    report = FailoverRecord.of(logs)
    words = Counter(words[0] for _, words in report.lines)
    longest = max(map(report.pause, report.workers))
    with capsys.disabled():
        print(
            f"\nfailover, {client}: {TRIALS} trials in {seconds:.1f} s; the longest pause was "
            f"{report.pause():.2f} s, of one worker {longest:.2f} s; {words['held']} holdings of "
            f"the lock; it was free after {waited:.2f} s"
        )

    assert (stepped_down.running, len(report.workers)) == (True, PROCESSES * TASKS)
    # each trial was given to one worker and completed by it, and the store has what he knows of it
    assert [trial.status for trial in trials] == ["completed"] * TRIALS
    assert sorted(report.rests("began")) == sorted((str(trial.id),) for trial in trials)
    stored = [(str(t.id), str({r.name: r.value for r in t.results}["who"])) for t in trials]
    assert sorted(report.rests("completed")) == sorted(stored)
    assert len({who for _, who in stored}) == TRIALS
    # every holder has seen the state of the one before it, and the last one released the lock
    assert count == words["held"] == words["holds"] > 0
    assert not locked
    assert waited < DEADLINE


# ----------------------------------------------------------------------------------- one by one


async def stocked(storage: Storage, trials: int, name: str = "failover") -> Experiment:
    """Make an experiment with so many trials."""
    experiment = await storage.create_experiment({"name": name}, algo_state={"count": 0})
    await storage.register_trials(
        [Trial(experiment=experiment.id, params={"x": x}) for x in range(trials)]
    )
    return experiment


@pytest.mark.parametrize("times", [1, 2], ids=["the library tries again", "we try again"])
def test_a_primary_that_steps_down_answers(
    replica_set: ReplicaSet, url: str, client: str, times: int
) -> None:
    """It has carried out what it was asked for, but cannot promise that this stays."""
    # as it does not really step down, nothing but their next look tells the clients who is primary
    soon = f"{url}&serverMonitoringMode=poll&heartbeatFrequencyMS=500"

    async def work() -> None:
        async with open_storage(soon, client=client) as storage:
            experiment = await stocked(storage, 3)
            primary = await asyncio.to_thread(replica_set.primary)
            failing = primary.fail_point(
                "commitTransaction",
                times=times,
                writeConcernError={"code": 11602, "errmsg": "stepping down"},
                errorLabels=["RetryableWriteError"],
            )
            point = await asyncio.to_thread(failing.__enter__)
            try:
                trial = await storage.reserve_trial(experiment)
            finally:
                await asyncio.to_thread(failing.__exit__, None, None, None)
            assert point.hits == times
            assert trial is not None
            assert trial.status == "reserved"
            assert len(await storage.fetch_trials_by_status(experiment, "reserved")) == 1
            await storage.complete_trial(trial, 1.0)

    asyncio.run(work())


def test_opening_waits_for_an_election(replica_set: ReplicaSet, url: str) -> None:
    """Without a majority there will be none: then it fails in time."""

    async def work(client: str) -> None:
        async with open_storage(url, client=client) as storage:
            assert await storage.reserve_trial(await stocked(storage, 1, client)) is not None

    async def work_by_both() -> None:
        await asyncio.gather(*map(work, ("motor", "pymongo")))

    async def fail() -> None:
        options = "serverSelectionTimeoutMS=1000"
        async with open_storage(f"{url}&{options}"):
            pytest.fail("there is no primary")

    killed = replica_set.kill_primary()
    asyncio.run(work_by_both())
    assert not killed.running

    replica_set.kill_primary()
    begin = time.monotonic()
    with pytest.raises(BackendError, match="no MongoDB server answers"):
        asyncio.run(fail())
    assert time.monotonic() - begin < 1 + SLACK


@pytest.mark.parametrize("client", ["pymongo"], indirect=True)
def test_without_a_majority(replica_set: ReplicaSet, url: str, client: str) -> None:
    """Calls fail after the policy's total time; afterwards nothing is held without an owner."""
    total = 2.0
    primary = replica_set.primary()
    others = [member for member in replica_set.members if member is not primary]

    async def timed(call: Awaitable[object]) -> float:
        begin = time.monotonic()
        with pytest.raises(TemporaryBackendError):
            await call
        return time.monotonic() - begin

    async def patiently(call: Callable[[], Awaitable[Trial | None]]) -> Trial | None:
        """Repeat a call: a new primary takes its time, perhaps more than the policy allows."""
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(TemporaryBackendError):
                    return await call()

    async def hold(storage: Storage, experiment: Experiment) -> None:
        async with storage.acquire_algorithm_lock(experiment, timeout=NEVER):
            pytest.fail("without a majority the lock cannot be ours")

    async def work() -> None:
        policy = RetryPolicy(total=total)
        async with open_storage(url, client=client, retry=policy, lock_lease=NEVER) as storage:
            experiment = await stocked(storage, 6)
            mine = await storage.reserve_trial(experiment)
            assert mine is not None
            for member in others:
                await asyncio.to_thread(member.kill)
            # the primary does not know yet: it carries out what it is asked for, all alone
            calls = [
                *(storage.reserve_trial(experiment) for _ in range(3)),
                storage.complete_trial(mine, 1.0),
                hold(storage, experiment),
            ]
            took = await asyncio.gather(*map(timed, calls))
            print(f"without a majority, {client}:", *(f"{seconds:.2f} s" for seconds in took))
            assert max(took) < total + SLACK

            await asyncio.to_thread(others[0].start)
            await asyncio.to_thread(replica_set.primary)
            left = [await patiently(lambda: storage.reserve_trial(experiment)) for _ in range(6)]
            assert [trial is not None for trial in left] == [True] * 5 + [False]
            async with storage.acquire_algorithm_lock(experiment, timeout=DEADLINE) as algorithm:
                assert algorithm.state == {"count": 0}
            stored = await storage.get_trial(mine)
            assert stored is not None
            if stored.status != "completed":  # its caller got no answer
                await storage.complete_trial(mine, 1.0)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("client", "how"), [("motor", "kill"), ("pymongo", "step down")], indirect=["client"]
)
def test_waiters_are_woken_after_an_election(
    replica_set: ReplicaSet, url: str, client: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change stream goes on at the next primary; no waiter has to poll."""
    monkeypatch.setattr(change_streams, "RECHECK_INTERVAL", NEVER)
    monkeypatch.setattr(lock_queue, "MAX_TICKET_LIFETIME", NEVER)

    async def work() -> None:
        options: dict[str, Any] = {"client": client, "lock_lease": 10 * NEVER}
        async with open_storage(url, **options) as holder, open_storage(url, **options) as waiter:
            experiment = await stocked(holder, 0)
            trial = Trial(experiment=experiment.id, params={"x": 1.0})

            async def wait() -> float:
                async with waiter.acquire_algorithm_lock(
                    experiment, timeout=NEVER, retry_interval=NEVER
                ):
                    return time.monotonic()

            async with holder.acquire_algorithm_lock(experiment):
                waiting = asyncio.create_task(wait())
                reserving = asyncio.create_task(waiter.reserve_trial(experiment, wait=NEVER))
                await asyncio.sleep(0.5)
                if how == "kill":
                    await asyncio.to_thread(replica_set.kill_primary)
                else:
                    await asyncio.to_thread(replica_set.step_down)
                await asyncio.to_thread(replica_set.primary)
                await asyncio.sleep(0.5)
                assert not waiting.done()
            released = time.monotonic()
            woken = await asyncio.wait_for(waiting, DEADLINE)
            await holder.register_trial(trial)
            registered = time.monotonic()
            assert await asyncio.wait_for(reserving, DEADLINE) is not None
            print(
                f"woken after an election ({how}), {client}: by the lock after "
                f"{woken - released:.2f} s, by a trial after {time.monotonic() - registered:.2f} s"
            )

    asyncio.run(work())


def test_what_is_answered_stays(tmp_path: Path) -> None:
    """What a primary has written all alone is not done, though it can be read there."""

    async def work(replica_set: ReplicaSet) -> None:
        url, primary = replica_set.url_for("stays"), await asyncio.to_thread(replica_set.primary)
        others = [member for member in replica_set.members if member is not primary]
        # it tries again before the primary knows that it is alone
        hasty = RetryPolicy(total=3.0, attempt_timeout=0.4, initial=0.0, jitter=0.0)
        async with (
            open_storage(url) as storage,
            open_storage(url, retry=hasty) as impatient,  # by the same connections
        ):
            experiment = await stocked(storage, 1)
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            for member in others:
                await asyncio.to_thread(member.kill)
            answered = True
            try:
                await impatient.complete_trial(trial, 1.0)
            except TemporaryBackendError:
                answered = False
            # now the others take over, without what the primary had alone
            await asyncio.to_thread(primary.kill)
            for member in others:
                await asyncio.to_thread(member.start)
            await asyncio.to_thread(replica_set.primary)
            assert await storage.count_completed_trials(experiment) == 0
            assert not answered
            await storage.complete_trial(trial, 1.0)
            assert await storage.count_completed_trials(experiment) == 1

    # one of its own: a member that would have to roll back takes up to a minute for that
    with ReplicaSet(tmp_path) as replica_set:
        asyncio.run(work(replica_set))


def test_a_reader_of_the_history_waits_for_the_majority(
    replica_set: ReplicaSet, mongodb_database: str
) -> None:
    """A change that the primary has, but not yet a majority, is not left out by a new reader."""

    async def work() -> None:
        async with (
            open_storage(replica_set.url_for(mongodb_database)) as storage,
            AsyncMongoClient[dict[str, Any]](replica_set.url) as server,
        ):
            experiment = await storage.create_experiment({"name": "tune"})
            trials = server[mongodb_database]["trials"]
            primary = await asyncio.to_thread(replica_set.primary)
            with ExitStack() as faults:
                point = primary.fail_point(name="disableSnapshotting")
                await asyncio.to_thread(faults.enter_context, point)
                writing = asyncio.create_task(
                    storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
                )
                async with asyncio.timeout(30):
                    while not await trials.count_documents({}):
                        await asyncio.sleep(0.01)
                reading = asyncio.create_task(storage.changes_since(experiment, "oldest"))
                await asyncio.wait({reading}, timeout=0.5)
                await asyncio.to_thread(faults.close)
            changes, cursor = await reading
            await writing
            changes += (await storage.changes_since(experiment, cursor)).changes
            assert [change.kind for change in changes] == ["inserted"]

    asyncio.run(work())
