"""The algorithm lock as Oríon takes it: by keywords, of its type, released from outside."""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

if sys.version_info >= (3, 12):
    pytest.skip("Oríon 0.2.7 does not run on Python 3.12 and later", allow_module_level=True)

from orion.storage.base import (
    LockAcquisitionTimeout,
    LockedAlgorithmState,
    MissingArguments,
)

from aiostorage import LockLost
from aiostorage.orion import AioStorage
from aiostorage.testing.contract.helpers import case

from .stored_experiment import MinimalExperiment


@pytest.fixture
def storage(url: str) -> AioStorage:
    return AioStorage({"url": url})


@pytest.fixture
def experiment(storage: AioStorage) -> MinimalExperiment:
    return MinimalExperiment(storage)


NEVER_STORED = MinimalExperiment(None)


# ---------------------------------------------------------------------------------- keywords


def test_by_uid(storage: AioStorage, experiment: MinimalExperiment) -> None:
    with storage.acquire_algorithm_lock(uid=experiment.id, timeout=5, retry_interval=1) as held:
        held.set_state([1])
    with storage.acquire_algorithm_lock(experiment, uid=experiment.id) as held:
        assert held.state == [1]
    with storage.acquire_algorithm_lock(experiment, 5, 1):  # as in Oríon's protocol
        pass


def test_of_no_experiment_or_of_two(storage: AioStorage, experiment: MinimalExperiment) -> None:
    with pytest.raises(MissingArguments), storage.acquire_algorithm_lock():
        pass
    with pytest.raises(AssertionError), storage.acquire_algorithm_lock(experiment, uid="odd"):
        pass


# -------------------------------------------------------------------------------- Oríon's type


def test_the_state_is_of_orions_type(storage: AioStorage, experiment: MinimalExperiment) -> None:
    with storage.acquire_algorithm_lock(experiment) as held:
        assert isinstance(held, LockedAlgorithmState)
        assert held.locked
        held.set_state({"n": [1]})
    info = storage.get_algorithm_lock_info(experiment)
    assert isinstance(info, LockedAlgorithmState)
    assert (info.state, info.configuration, info.locked) == ({"n": [1]}, {"random": {}}, False)
    assert info.heartbeat is not None
    assert abs(info.heartbeat - dt.datetime.utcnow()) < dt.timedelta(seconds=30)  # noqa: DTZ003
    with storage.acquire_algorithm_lock(experiment) as held:
        other = storage.get_algorithm_lock_info(experiment)
        assert other is not None
        assert other.locked
        assert other.owner
        held.state["n"].append(2)  # saved without `set_state`, as Oríon's own saves it
    with storage.acquire_algorithm_lock(experiment) as held:
        assert held.state == {"n": [1, 2]}
        held.state["n"].append(3)
        held.reset()
        assert held.state == {"n": [1, 2]}
        held.set_state("other")
        held.reset()
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == {"n": [1, 2]}


# ------------------------------------------------------------------------------------ no record


def test_without_a_record_it_times_out(storage: AioStorage, experiment: MinimalExperiment) -> None:
    storage.delete_algorithm_lock(experiment)
    start = time.monotonic()
    with (
        pytest.raises(LockAcquisitionTimeout, match="no algorithm record"),
        storage.acquire_algorithm_lock(experiment, timeout=0.3, retry_interval=0.1),
    ):
        pytest.fail("there is no lock")
    assert 0.3 <= time.monotonic() - start < 10
    with (
        pytest.raises(LockAcquisitionTimeout, match="not in the storage"),
        storage.acquire_algorithm_lock(NEVER_STORED, timeout=60),
    ):
        pytest.fail("there is no experiment")


def test_a_record_that_is_made_meanwhile(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    storage.delete_algorithm_lock(experiment)
    timer = threading.Timer(0.2, storage.initialize_algorithm_lock, (experiment.id, {"tpe": {}}))
    timer.start()
    try:
        with storage.acquire_algorithm_lock(experiment, timeout=30, retry_interval=0.05) as held:
            assert held.configuration == {"tpe": {}}
    finally:
        timer.join()


# ---------------------------------------------------------------------------- written once more


def test_written_over_the_one_that_is_there(
    storage: AioStorage, experiment: MinimalExperiment
) -> None:
    """As `orion db upgrade` of Oríon's development version does for each experiment."""
    with storage.acquire_algorithm_lock(experiment) as held:
        held.set_state({"n": 1})
    assert storage.write_algorithm_lock(experiment.id, {"tpe": {}}) == 1
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert (info.state, info.configuration, info.locked) == ({"n": 1}, {"tpe": {}}, False)
    assert storage._db.count("algo", {"experiment": experiment.id}) == 1

    when = dt.datetime(2024, 3, 1)  # noqa: DTZ001  as Oríon does
    storage.write_algorithm_lock(experiment.id, {"asha": {}}, 1, {"n": 2}, when)
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert (info.state, info.configuration, info.locked) == ({"n": 2}, {"asha": {}}, True)
    assert (info.heartbeat, info.owner) == (when, None)
    assert storage.write_algorithm_lock(experiment.id, {"asha": {}}, locked=0) == 1
    with storage.acquire_algorithm_lock(experiment, timeout=5) as held:
        assert held.state == {"n": 2}

    storage.delete_algorithm_lock(experiment)
    assert storage.write_algorithm_lock(experiment.id, {"random": {}}, state={"n": 3}) == 1
    info = storage.get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == {"n": 3}


# ------------------------------------------------------------------------ released from outside


def release(storage: AioStorage, uid: Any) -> None:
    assert storage.release_algorithm_lock(uid=uid) == 1


def release_and_wait(storage: AioStorage, uid: Any) -> None:
    """Let the renewal of the lease notice it."""
    release(storage, uid)
    time.sleep(0.5)


def let_another_take_it(storage: AioStorage, uid: Any) -> None:
    release(storage, uid)
    with storage.acquire_algorithm_lock(uid=uid, timeout=5, retry_interval=0.05) as other:
        other.set_state({"by": "another"})


def delete(storage: AioStorage, uid: Any) -> None:
    assert storage.delete_algorithm_lock(uid=uid) == 1


OUTSIDE = [release, release_and_wait, let_another_take_it, delete]


@pytest.fixture
def two(url: str) -> tuple[AioStorage, AioStorage]:
    """Two storages that share no queue in memory, with a short lease."""
    return (
        AioStorage({"url": url, "lock_lease": 0.6}),
        AioStorage({"url": url, "lock_lease": 0.6000001}),
    )


def nothing_set(held: LockedAlgorithmState) -> None:
    assert held.state == {"n": [1]}


def the_same_set(held: LockedAlgorithmState) -> None:
    held.set_state({"n": [1]})


def set_and_reset(held: LockedAlgorithmState) -> None:
    held.set_state({"n": [2]})
    held.reset()


def a_new_one(held: LockedAlgorithmState) -> None:
    held.set_state({"n": [2]})


def changed_in_place(held: LockedAlgorithmState) -> None:
    held.state["n"].append(2)


WORK = {
    nothing_set: False,
    the_same_set: False,
    set_and_reset: False,
    a_new_one: True,
    changed_in_place: True,
}
"""What the holder does, and whether that makes a state which has to be saved."""


@pytest.mark.parametrize("outside", OUTSIDE)
def test_released_from_outside(two: tuple[AioStorage, AioStorage], outside: Any) -> None:
    """In all cases at once, each with an experiment of its own, for some of them wait."""

    def check(work: Any) -> None:
        with case(work.__name__):
            check_released(two, outside, work, is_new=WORK[work])

    with ThreadPoolExecutor(len(WORK)) as pool:
        list(pool.map(check, WORK))


def check_released(
    two: tuple[AioStorage, AioStorage], outside: Any, work: Any, *, is_new: bool
) -> None:
    mine, other = two
    experiment = MinimalExperiment(mine, name=work.__name__)
    with mine.acquire_algorithm_lock(experiment) as held:
        held.set_state({"n": [1]})

    def hold() -> None:
        with mine.acquire_algorithm_lock(experiment, retry_interval=0.05) as held:
            outside(other, experiment.id)
            work(held)

    if is_new:
        with pytest.raises(LockAcquisitionTimeout, match="the state was not saved") as lost:
            hold()
        assert isinstance(lost.value.__cause__, LockLost)
    else:
        hold()
    info = mine.get_algorithm_lock_info(experiment)
    if outside is delete:
        assert info is None
    else:
        assert info is not None
        by_another = outside is let_another_take_it
        assert info.state == ({"by": "another"} if by_another else {"n": [1]})
        assert not info.locked


def test_the_first_state_is_new(two: tuple[AioStorage, AioStorage]) -> None:
    mine, other = two
    experiment = MinimalExperiment(mine)

    def hold(state: Any) -> None:
        with mine.acquire_algorithm_lock(experiment) as held:
            held.set_state(state)
            release(other, experiment.id)

    hold(None)
    with pytest.raises(LockAcquisitionTimeout):
        hold({})


def test_an_error_of_the_block_is_its_own(two: tuple[AioStorage, AioStorage]) -> None:
    mine, other = two
    experiment = MinimalExperiment(mine)
    with (
        pytest.raises(KeyError, match="mine"),
        mine.acquire_algorithm_lock(experiment) as held,
    ):
        held.set_state({"n": 1})
        release(other, experiment.id)
        raise KeyError("mine")
