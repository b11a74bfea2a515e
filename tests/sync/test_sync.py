"""The synchronous facade: every method, its context managers, and many threads on one."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import (
    DuplicateKeyError,
    FailedUpdate,
    LockAcquisitionTimeout,
    LockLost,
    RunningLoopError,
    StorageClosedError,
    SyncStorage,
    Trial,
    TrialLost,
    open_storage,
)
from aiostorage._core.collection_access import CollectionAccess
from aiostorage.sync.collection_calls import call_collections

Make = Callable[..., SyncStorage]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make facades; they are closed afterwards."""
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
    made = []

    def make(**settings: Any) -> SyncStorage:
        made.append(SyncStorage(open_storage(url, **settings)))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make: Make) -> SyncStorage:
    return make()


def trial(experiment: Any, x: float) -> Trial:
    return Trial(experiment=experiment.id, params=[{"name": "x", "type": "real", "value": x}])


def facade_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aiostorage"]


def test_experiments(storage: SyncStorage) -> None:
    config: dict[str, Any] = {"name": "tune", "version": 1, "algorithm": {"random": {"seed": 1}}}
    experiment = storage.create_experiment(config)
    assert experiment.id == config["_id"]
    with pytest.raises(DuplicateKeyError) as raised:
        storage.create_experiment({"name": "tune", "version": 1})
    assert type(raised.value) is DuplicateKeyError
    assert storage.update_experiment(experiment, max_trials=5) is True
    assert storage.update_experiment(experiment, where={"name": "odd"}, max_trials=6) is False
    (found,) = storage.fetch_experiments({"name": "tune"}, {"max_trials": 1})
    assert found == {"_id": experiment.id, "max_trials": 5}
    storage.register_trial(trial(experiment, 1.0))
    assert storage.delete_experiment(experiment, cascade=False) == 1
    assert storage.fetch_experiments({}) == []
    assert storage.get_algorithm_lock_info(experiment) is not None
    assert storage.delete_trials(uid=experiment.id) == 1
    assert storage.fetch_trials(uid=experiment.id) is None


def test_trials(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    first = storage.register_trial(trial(experiment, 0.5))
    storage.register_trials([trial(experiment, float(x)) for x in range(1, 8)])
    assert len(storage.fetch_trials(experiment) or []) == 8
    assert len(storage.fetch_trials(experiment, where={"id": first.id}) or []) == 1
    assert storage.get_trial(uid=first.id, experiment_uid=experiment.id) == first

    one = storage.reserve_trial(experiment)
    assert one is not None
    assert one.id == first.id
    more = storage.reserve_trials(experiment, 3)
    assert len(more) == 3
    assert len(storage.fetch_pending_trials(experiment)) == 4
    assert len(storage.fetch_trials_by_status(experiment, "reserved")) == 4
    assert storage.update_heartbeat(one) == 1

    storage.complete_trial(one, 0.25)
    assert one.status == "completed"
    assert storage.retrieve_result(first).objective == one.objective
    more[0].results = one.results
    assert storage.push_trial_results(more[0]) == 1
    storage.set_trial_status(more[0], "completed", was="reserved")
    storage.set_trial_status(more[1], "broken")
    assert storage.count_completed_trials(experiment) == 2
    assert storage.count_broken_trials(experiment) == 1
    assert len(storage.fetch_noncompleted_trials(experiment)) == 6
    assert storage.update_trial(more[2], exp_working_dir="/here") == 1
    assert storage.update_trials(experiment, where={"status": "new"}, exp_working_dir="/x") == 4
    assert storage.delete_trials(experiment, where={"status": "new"}) == 4


def test_lost_trials(make: Make) -> None:
    storage = make(lost_after=0.05)
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trial(trial(experiment, 1.0))
    lost = storage.reserve_trial(experiment)
    assert lost is not None
    time.sleep(0.1)
    assert [found.id for found in storage.fetch_lost_trials(experiment)] == [lost.id]
    assert [found.id for found in storage.recover_lost_trials(experiment)] == [lost.id]
    with pytest.raises(TrialLost) as raised:
        storage.complete_trial(lost, 1)
    assert type(raised.value) is TrialLost


def test_benchmarks(storage: SyncStorage) -> None:
    config: dict[str, Any] = {"name": "bench"}
    assert storage.create_benchmark(config) == 1
    assert storage.fetch_benchmark({"name": "bench"}) == [config]
    assert storage.delete_benchmark({"name": "bench"}) == 1
    assert storage.fetch_benchmark({}, {"name": 1}) == []


def test_lock_records(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune", "algorithm": {"random": {}}})
    with pytest.raises(DuplicateKeyError):
        storage.initialize_algorithm_lock(experiment.id, {})
    assert storage.delete_algorithm_lock(experiment) == 1
    assert storage.get_algorithm_lock_info(experiment) is None
    assert storage.write_algorithm_lock(experiment.id, {"a": 1}, 1, {"seed": 1}) == 1
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert (info.locked, info.state, info.configuration) == (True, {"seed": 1}, {"a": 1})
    assert storage.release_algorithm_lock(experiment, new_state={"seed": 2}) == 1
    assert storage.release_algorithm_lock(uid=experiment.id) == 0
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == {"seed": 2}


def test_iter_trials(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trials([trial(experiment, float(x)) for x in range(23)])
    found = storage.iter_trials(experiment, batch_size=5)
    assert isinstance(found, Iterator)
    assert [one.params["x"] for one in found] == list(range(23))
    documents = list(storage.iter_trials(experiment, selection={"status": 1}, where={}))
    assert {document["status"] for document in documents} == {"new"}

    # left early, and used while it runs
    for one in storage.iter_trials(experiment, batch_size=2):
        storage.update_trial(one, exp_working_dir="/seen")
        if one.params["x"] == 10:
            break
    seen = storage.fetch_trials(experiment, where={"exp_working_dir": "/seen"}) or []
    assert len(seen) == 11
    with pytest.raises(ValueError, match="batch_size"):
        next(storage.iter_trials(experiment, batch_size=0))


def test_what_a_person_sees(storage: SyncStorage) -> None:
    assert storage.location in repr(storage)


# ------------------------------------------------------------------------- context managers


def test_a_body_that_completes_its_trial(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trial(trial(experiment, 1.0))
    with storage.reserved_trial(experiment) as mine:
        assert mine is not None
        storage.complete_trial(mine, 1.0)
    assert storage.count_completed_trials(experiment) == 1
    with storage.reserved_trial(experiment) as nothing:
        assert nothing is None


class OddError(Exception):
    """An error of the body's own."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OddError("mine"), "broken"),
        (StopIteration(3), "broken"),
        (StopAsyncIteration(3), "broken"),
        (TimeoutError("mine"), "broken"),
        (RuntimeError("mine"), "broken"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(3), "interrupted"),
        (GeneratorExit(), "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_a_body_that_raises(storage: SyncStorage, error: BaseException, status: str) -> None:
    """The error is that of the body, with no frame or cause of ours added to it."""
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trial(trial(experiment, 1.0))
    with pytest.raises(type(error)) as raised, storage.reserved_trial(experiment):
        raise error
    assert raised.value is error
    assert error.__cause__ is error.__context__ is None
    assert {Path(entry.path).name for entry in raised.traceback} == {"test_sync.py"}
    assert len(storage.fetch_trials_by_status(experiment, status)) == 1

    with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state({"seed": 1})
    with (
        pytest.raises(type(error)) as raised,
        storage.acquire_algorithm_lock(experiment) as algorithm,
    ):
        algorithm.state["seed"] = 2
        raise error
    assert raised.value is error
    assert algorithm.state == {"seed": 1}
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert (info.locked, info.state) == (False, {"seed": 1})


def test_a_body_that_does_not_complete_its_trial(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trial(trial(experiment, 1.0))
    with storage.reserved_trial(experiment):
        pass
    assert len(storage.fetch_trials_by_status(experiment, "interrupted")) == 1


def test_a_trial_that_is_taken_over(storage: SyncStorage, caplog: pytest.LogCaptureFixture) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trial(trial(experiment, 1.0))

    def take_over(theirs: Trial | None) -> Trial:
        assert theirs is not None
        storage.update_trial(theirs, status="interrupted", worker=None)
        mine = storage.reserve_trial(experiment)
        assert mine is not None
        time.sleep(0.2)
        return mine

    with pytest.raises(TrialLost) as raised:
        with storage.reserved_trial(experiment, heartbeat=0.02, on_lost="raise") as theirs:
            mine = take_over(theirs)
    assert type(raised.value) is TrialLost
    assert raised.value.holder in (mine.worker, None)  # a heartbeat may have come in between
    storage.complete_trial(mine, 1)

    # a heartbeat has found it, and the body goes on; it ends, or tries to write
    for writes in (False, True):
        storage.register_trial(trial(experiment, 3.0 + writes))
        with storage.reserved_trial(experiment, heartbeat=0.02) as theirs:
            mine = take_over(theirs)
            if writes:
                assert theirs is not None
                storage.complete_trial(theirs, 1)
        assert len(caplog.records) == 1
        caplog.clear()
        storage.complete_trial(mine, 1)

    # what the body itself found out comes first
    storage.register_trial(trial(experiment, 2.0))
    with pytest.raises(OddError), storage.reserved_trial(experiment, heartbeat=0.02) as theirs:
        take_over(theirs)
        raise OddError


def test_a_lock_that_is_taken_over(make: Make) -> None:
    storage = make(lock_lease=0.15)
    experiment = storage.create_experiment({"name": "tune"})
    with pytest.raises(LockLost), storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state({"late": True})
        storage.release_algorithm_lock(experiment, new_state={"seed": 5})
        time.sleep(0.3)
    with storage.acquire_algorithm_lock(experiment) as algorithm:
        assert algorithm.state == {"seed": 5}


def test_a_lock_that_others_hold(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    with storage.acquire_algorithm_lock(experiment) as algorithm:
        with (
            pytest.raises(LockAcquisitionTimeout) as raised,
            storage.acquire_algorithm_lock(experiment, timeout=0.1, retry_interval=0.02),
        ):
            pytest.fail("two hold it")
        assert raised.value.holder == algorithm.owner
        assert raised.value.waited >= 0.1


def test_a_context_is_good_for_one_use(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    once = storage.acquire_algorithm_lock(experiment)
    with once:
        pass
    with pytest.raises((RuntimeError, AttributeError)), once:
        pytest.fail("twice")


def test_context_variables_reach_the_storage(storage: SyncStorage) -> None:
    """Such as PyMongo's ``timeout``."""
    asked = contextvars.ContextVar[int]("asked")

    async def look() -> int:
        return asked.get()

    asked.set(7)
    assert storage._portal.call(look) == 7


# ---------------------------------------------------------------------------------- lifetime


def test_with_opens_and_closes(make: Make) -> None:
    with make() as storage:
        storage.create_experiment({"name": "tune"})
        assert len(facade_threads()) == 1
    assert facade_threads() == []
    for _ in range(2):
        with pytest.raises(StorageClosedError):
            storage.fetch_experiments({})
    with pytest.raises(StorageClosedError), storage:
        pytest.fail("open again")
    with pytest.raises(StorageClosedError), storage.acquire_algorithm_lock({"_id": 1}):
        pytest.fail("open again")
    with pytest.raises(StorageClosedError):
        next(storage.iter_trials({"_id": 1}))
    storage.close()
    assert facade_threads() == []


def test_nothing_is_started_before_the_first_call(make: Make) -> None:
    storage = make()
    assert facade_threads() == []
    storage.close()
    assert facade_threads() == []
    with pytest.raises(StorageClosedError):
        storage.fetch_experiments({})


def test_a_facade_that_nobody_has_any_more_ends(tmp_path: Path) -> None:
    storage = SyncStorage(open_storage(f"sqlite:///{tmp_path}/store.db"))
    storage.create_experiment({"name": "tune"})
    (thread,) = facade_threads()
    del storage
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_what_nobody_has_any_more_nobody_holds(storage: SyncStorage) -> None:
    """Ctrl-C may come before the first line of ``__exit__``."""
    experiment = storage.create_experiment({"name": "tune"}, algo_state={"seed": 1})
    dropped = storage.acquire_algorithm_lock(experiment)
    dropped.__enter__().set_state({"half": "made"})
    del dropped
    gc.collect()
    with storage.acquire_algorithm_lock(experiment, timeout=2) as algorithm:
        assert algorithm.state == {"seed": 1}


def test_close_while_others_call(make: Make) -> None:
    """Every call ends: with an answer, or with the error that says why it has none."""
    for _ in range(5):
        storage = make()
        experiment = storage.create_experiment({"name": str(time.monotonic_ns())})
        ended: list[str] = []

        def call(
            storage: SyncStorage = storage, experiment: Any = experiment, ended: list[str] = ended
        ) -> None:
            try:
                while True:
                    storage.count_completed_trials(experiment)
            except StorageClosedError:
                ended.append("closed")

        threads = [threading.Thread(target=call, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        storage.close()
        for thread in threads:
            thread.join(10)
        assert ended == ["closed"] * 8


def test_close_while_others_hold_and_wait(make: Make) -> None:
    """The lock is put back before the storage is closed."""
    storage, ended = make(), []
    experiment = storage.create_experiment({"name": "tune"})
    inside = threading.Event()
    closed = threading.Event()

    def hold() -> None:
        try:
            with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state({"half": "made"})
                inside.set()
                closed.wait(10)
        except StorageClosedError:
            ended.append("holder")

    def wait() -> None:
        inside.wait(10)
        try:
            with storage.acquire_algorithm_lock(experiment):
                ended.append("got it")
        except StorageClosedError:
            ended.append("waiter")

    threads = [threading.Thread(target=target, daemon=True) for target in (hold, wait)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    time.sleep(0.05)
    storage.close()
    closed.set()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == ["holder", "waiter"]
    if "memory" not in repr(storage):
        with make() as another:
            info = another.get_algorithm_lock_info(experiment)
            assert info is not None
            assert (info.locked, info.state) == (False, None)
            assert call_collections(another, CollectionAccess.find, "lock_waiters", {}) == []


def test_a_loop_that_died(storage: SyncStorage) -> None:
    """Whoever waits for it is told, and whoever calls it later."""

    async def die() -> None:
        raise SystemExit(3)

    told: list[BaseException] = []
    experiment = storage.create_experiment({"name": "tune"})

    def hold() -> None:
        try:
            with storage.acquire_algorithm_lock(experiment):
                time.sleep(0.5)
        except StorageClosedError as error:
            told.append(error)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    time.sleep(0.1)
    with pytest.raises(SystemExit):
        storage._portal.call(die)
    thread.join(10)
    with pytest.raises(StorageClosedError, match="SystemExit"):
        storage.fetch_experiments({})
    assert len(told) == 1
    storage.close()


def test_a_call_from_the_loop_itself_would_wait_for_itself(make: Make) -> None:
    storage = SyncStorage(make()._storage, in_running_loop=True)

    async def call() -> None:
        storage.fetch_experiments({})

    with pytest.raises(RunningLoopError, match="wait for itself"):
        storage._portal.call(call)

    async def close() -> None:
        storage.close()

    with pytest.raises(RunningLoopError):
        storage._portal.call(close)
    storage.close()


# ----------------------------------------------------------------------------------- threads


def test_threads_share_one_facade(storage: SyncStorage) -> None:
    """32 threads reserve and complete 640 trials: none twice, none lost."""
    experiment = storage.create_experiment({"name": "tune"})
    storage.register_trials([trial(experiment, float(x)) for x in range(640)])
    start = threading.Barrier(32)

    def work() -> list[str]:
        done = []
        start.wait(30)
        while (mine := storage.reserve_trial(experiment)) is not None:
            storage.complete_trial(mine, mine.params["x"])
            done.append(mine.id)
        return done

    with ThreadPoolExecutor(32) as pool:
        done = [uid for each in [pool.submit(work) for _ in range(32)] for uid in each.result()]
    assert len(done) == len(set(done)) == 640
    assert storage.count_completed_trials(experiment) == 640
    for one in storage.iter_trials(experiment):
        assert one.objective is not None
        assert one.objective.value == one.params["x"]


def test_threads_take_turns_with_the_lock(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})

    def work() -> None:
        for _ in range(5):
            with storage.acquire_algorithm_lock(experiment) as algorithm:
                count = algorithm.state["count"] if algorithm.state else 0
                algorithm.set_state({"count": count + 1})

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(work) for _ in range(8)]:
            each.result()
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == {"count": 40}


def test_a_running_loop_is_told_of(make: Make) -> None:
    storage = make()
    storage.create_experiment({"name": "tune"})

    async def main() -> None:
        calls: dict[str, Callable[[], object]] = {
            "fetch_experiments": lambda: storage.fetch_experiments({}),
            "reserved_trial": lambda: storage.reserved_trial({"_id": 1}),
            "iter_trials": lambda: next(storage.iter_trials({"_id": 1})),
        }
        for name, call in calls.items():
            with pytest.raises(RunningLoopError, match=rf"await Storage\.{name}\(\)"):
                call()
        with pytest.raises(RunningLoopError, match=r"Storage\.aclose\(\)"):
            storage.close()
        with pytest.raises(RunningLoopError, match=r"Storage\.open\(\)"), storage:
            pass
        found = await anyio.to_thread.run_sync(storage.fetch_experiments, {})
        assert len(found) == 1

    anyio.run(main)


def test_errors_are_not_wrapped(storage: SyncStorage) -> None:
    experiment = storage.create_experiment({"name": "tune"})
    stored = storage.register_trial(trial(experiment, 1.0))
    with pytest.raises(FailedUpdate) as raised:
        storage.set_trial_status(stored, "completed", was="reserved")
    assert type(raised.value) is FailedUpdate
    assert raised.value.status == "new"
    with pytest.raises(ValueError, match="odd"):
        storage.set_trial_status(stored, "odd")
