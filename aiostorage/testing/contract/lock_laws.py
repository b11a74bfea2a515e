"""The contract on the algorithm lock: one holder, whose state is saved or left alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

from aiostorage.errors import (
    DuplicateKeyError,
    EncodingError,
    LockAcquisitionTimeout,
    LockError,
    LockLost,
)
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import Open, gather, make_config

__all__ = ["LockLaws", "LockLossLaws", "LockRecordLaws"]


class _Stop(BaseException):
    """Stands for KeyboardInterrupt, which would end the event loop as well."""


async def _with_state(storage: AsyncStorageProtocol, state: Any) -> Experiment:
    return await storage.create_experiment(make_config(), algo_state=state)


async def _state(storage: AsyncStorageProtocol, experiment: Experiment) -> Any:
    info = await storage.get_algorithm_lock_info(experiment)
    assert info is not None
    return info.state


async def _is_free(storage: AsyncStorageProtocol, experiment: Experiment) -> None:
    async with storage.acquire_algorithm_lock(experiment, timeout=0):
        pass


class LockLaws:
    """Law 9: mutual exclusion, fairness, and the state."""

    async def test_state_is_handed_out_and_saved(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state is None
            assert algorithm.configuration == {"random": {"seed": 1}}
            assert algorithm.locked
            assert algorithm.owner
            algorithm.set_state({"rng": [1, 2]})
            assert await _state(storage, experiment) is None
        assert await _state(storage, experiment) == {"rng": [1, 2]}
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state == {"rng": [1, 2]}
            algorithm.state["rng"].append(3)  # in place
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state == {"rng": [1, 2, 3]}
            algorithm.set_state({})
            algorithm.reset()
            assert algorithm.state == {"rng": [1, 2, 3]}
        assert await _state(storage, experiment) == {"rng": [1, 2, 3]}

    async def test_states_are_copies(self, storage: AsyncStorageProtocol) -> None:
        passed = {"rng": [1]}
        experiment = await _with_state(storage, passed)
        passed["rng"].append(2)
        info = await storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.state == {"rng": [1]}
        info.state["rng"].append(3)
        info.configuration["random"]["seed"] = 9
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state == {"rng": [1]}
            assert algorithm.configuration == {"random": {"seed": 1}}
            kept = {"new": [1]}
            algorithm.set_state(kept)
        kept["new"].append(2)
        algorithm.state["new"].append(3)
        assert await _state(storage, experiment) == {"new": [1]}

    @pytest.mark.parametrize("error", [LookupError, _Stop, asyncio.CancelledError])
    async def test_state_is_put_back_on_any_exception(
        self, storage: AsyncStorageProtocol, error: type[BaseException]
    ) -> None:
        experiment = await _with_state(storage, {"rng": [1]})
        with pytest.raises(error):
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.state["rng"].append(2)
                algorithm.set_state({"half": "made"})
                raise error
        assert algorithm.state == {"rng": [1]}
        assert await _state(storage, experiment) == {"rng": [1]}
        await _is_free(storage, experiment)

    @pytest.mark.parametrize("native", [True, False])
    async def test_state_is_put_back_on_cancellation(
        self, storage: AsyncStorageProtocol, native: bool
    ) -> None:
        experiment = await _with_state(storage, {"rng": [1]})
        inside, scope = anyio.Event(), anyio.CancelScope()

        async def work() -> None:
            with scope:
                async with storage.acquire_algorithm_lock(experiment) as algorithm:
                    algorithm.state["rng"].append(2)
                    inside.set()
                    await anyio.sleep_forever()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel() if native else scope.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is native
        assert await _state(storage, experiment) == {"rng": [1]}
        await _is_free(storage, experiment)

    async def test_a_state_that_cannot_be_stored(self, storage: AsyncStorageProtocol) -> None:
        experiment = await _with_state(storage, {"rng": 1})
        with pytest.raises(EncodingError) as raised:
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state({"a": [object()]})
        assert "a" in raised.value.path
        assert await _state(storage, experiment) == {"rng": 1}
        await _is_free(storage, experiment)
        with pytest.raises(EncodingError):
            await storage.release_algorithm_lock(experiment, new_state=object())
        with pytest.raises(EncodingError):
            await storage.create_experiment(make_config("other"), algo_state=object())
        assert len(await storage.fetch_experiments({})) == 1

    @pytest.mark.parametrize(
        "state",
        [
            (1, (2, [3])),
            {"set": {1, 2}, "frozen": frozenset("a")},
            b"\0\xff",
            {"int": 2**200, "small": -(2**100)},
            1 + 2j,
            {"at": datetime(2026, 1, 1, 1, 2, 3, 4, tzinfo=UTC), "took": timedelta(days=1)},
            {1: "int key", ("a", 2): "tuple key"},
            [],
            {},
            0,
            False,
            "",
        ],
        ids=repr,
    )
    async def test_round_trip_of_states(self, storage: AsyncStorageProtocol, state: Any) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.set_state(state)
        found = await _state(storage, experiment)
        assert found == state
        assert type(found) is type(state)

    async def test_round_trip_of_arrays(self, storage: AsyncStorageProtocol) -> None:
        np = pytest.importorskip("numpy")
        experiment = await storage.create_experiment(make_config())
        # beyond what MongoDB holds in one document, and not to be compressed
        large = np.random.default_rng(1).bytes(17 << 20)
        array = np.arange(6, dtype="float32").reshape(2, 3)
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.set_state({"array": array, "large": large})
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state["large"] == large
            assert algorithm.state["array"].dtype == array.dtype
            assert (algorithm.state["array"] == array).all()
            algorithm.set_state("small")
        assert await _state(storage, experiment) == "small"

    async def test_one_at_a_time(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await _with_state(storage, 0)
        inside = 0

        async def work(number: int) -> None:
            nonlocal inside
            mine = (storage, other)[number % 2]
            async with mine.acquire_algorithm_lock(experiment, timeout=60) as algorithm:
                inside += 1
                assert inside == 1
                found = algorithm.state
                await anyio.sleep(0.001)
                algorithm.set_state(found + 1)
                inside -= 1

        await gather(map(work, range(24)))
        assert await _state(storage, experiment) == 24

    async def test_locks_of_different_experiments_are_different(
        self, storage: AsyncStorageProtocol
    ) -> None:
        one = await storage.create_experiment(make_config("one"))
        two = await storage.create_experiment(make_config("two"))
        async with storage.acquire_algorithm_lock(one), storage.acquire_algorithm_lock(two, 0):
            pass

    @pytest.mark.usefixtures("cancels")
    async def test_first_come_first_served(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        order: list[int] = []

        async def wait(number: int) -> None:
            async with storage.acquire_algorithm_lock(experiment, timeout=60):
                order.append(number)

        async with asyncio.TaskGroup() as group, storage.acquire_algorithm_lock(experiment):
            tasks = []
            for number in range(10):
                tasks.append(group.create_task(wait(number)))
                await anyio.sleep(0.002)
            tasks[3].cancel()
        assert order == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    async def test_nobody_is_passed_over(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        order: list[str] = []

        async def wait(name: str, mine: AsyncStorageProtocol) -> None:
            async with mine.acquire_algorithm_lock(experiment, timeout=60, retry_interval=0.01):
                order.append(name)

        async with asyncio.TaskGroup() as group, storage.acquire_algorithm_lock(experiment):
            group.create_task(wait("other's first", other))
            await anyio.sleep(0.2)  # until it stands in the store's queue
            for number in range(3):
                group.create_task(wait(f"ours {number}", storage))
                await anyio.sleep(0.002)
        assert order[0] == "other's first"
        assert len(order) == 4

    async def test_timeout_says_who_holds_it_since_when(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment):
            info = await other.get_algorithm_lock_info(experiment)
            assert info is not None
            for mine in (storage, other):
                with pytest.raises(LockAcquisitionTimeout) as raised:
                    async with mine.acquire_algorithm_lock(
                        experiment, timeout=0.2, retry_interval=0.05
                    ):
                        raise AssertionError("two hold the lock")
                error = raised.value
                assert isinstance(error, TimeoutError)
                assert 0.2 <= error.waited < 5
                assert error.holder == info.owner
                assert error.since == info.since
                assert str(info.owner) in str(error)
        await _is_free(other, experiment)

    async def test_timeout_of_zero(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment, timeout=0):
            for mine in (storage, other):
                with anyio.fail_after(5), pytest.raises(LockAcquisitionTimeout):
                    await _is_free(mine, experiment)
        for mine in (storage, other):
            await _is_free(mine, experiment)

    @pytest.mark.usefixtures("cancels")
    async def test_who_gives_up_is_in_nobodys_way(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment):
            with pytest.raises(LockAcquisitionTimeout):
                async with other.acquire_algorithm_lock(experiment, 0.1, 0.02):
                    pass
            with anyio.move_on_after(0.1):
                async with other.acquire_algorithm_lock(experiment, 60, 0.02):
                    pass
        await _is_free(storage, experiment)
        await _is_free(other, experiment)

    async def test_retry_interval_must_be_positive(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        with pytest.raises(ValueError, match="retry_interval"):
            async with storage.acquire_algorithm_lock(experiment, retry_interval=0):
                pass


LEASE: Final = 0.4
"""Seconds of a lease in tests that wait for its end."""


class LockLossLaws:
    """Law 9: leases, takeover, and holders that come back too late."""

    @pytest.mark.usefixtures("apart")
    async def test_the_lease_is_renewed(self, opening: Open) -> None:
        storage, other = await opening(lock_lease=LEASE), await opening(lock_lease=LEASE)
        experiment = await _with_state(storage, 1)
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            with pytest.raises(LockAcquisitionTimeout):
                async with other.acquire_algorithm_lock(experiment, 3 * LEASE, 0.02):
                    pass
            algorithm.set_state(2)
        assert await _state(storage, experiment) == 2

    @pytest.mark.usefixtures("threads")
    async def test_an_expired_lease_is_taken_over(self, opening: Open) -> None:
        storage = await opening(lock_lease=LEASE)
        experiment = await _with_state(storage, "old")
        stalled, taken = threading.Event(), threading.Event()

        async def stall() -> None:
            """Hold the lock, and the event loop so that nothing can be renewed."""
            late = await opening(lock_lease=LEASE)
            try:
                async with late.acquire_algorithm_lock(experiment) as algorithm:
                    algorithm.set_state("late")
                    stalled.set()
                    taken.wait(30)
            finally:
                await late.aclose()

        holder = asyncio.create_task(anyio.to_thread.run_sync(_in_a_loop_of_its_own, stall))
        await anyio.to_thread.run_sync(stalled.wait, 30)
        async with storage.acquire_algorithm_lock(experiment, 30, 0.02) as algorithm:
            assert algorithm.state == "old"
            taken.set()
            with pytest.raises(LockLost) as raised:
                await holder
            assert raised.value.holder == algorithm.owner
            assert str(algorithm.owner) in str(raised.value)
            algorithm.set_state("new")
        assert await _state(storage, experiment) == "new"

    async def test_a_late_owner_saves_nothing(self, storage: AsyncStorageProtocol) -> None:
        experiment = await _with_state(storage, "old")
        with pytest.raises(LockLost):
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                assert await storage.release_algorithm_lock(experiment, new_state="operator's") == 1
                algorithm.set_state("late")
        assert await _state(storage, experiment) == "operator's"
        await _is_free(storage, experiment)

    @pytest.mark.usefixtures("cancels")
    async def test_the_body_of_a_late_owner_is_cancelled(self, opening: Open) -> None:
        storage = await opening(lock_lease=LEASE)
        experiment = await _with_state(storage, "old")
        with anyio.fail_after(20), pytest.raises(LockLost):
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state("late")
                await storage.release_algorithm_lock(experiment)
                await anyio.sleep_forever()
        assert algorithm.state == "old"
        assert await _state(storage, experiment) == "old"

    @pytest.mark.usefixtures("apart")
    async def test_an_error_of_a_late_owner_is_not_hidden(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await _with_state(storage, "old")
        with pytest.raises(LookupError):
            async with storage.acquire_algorithm_lock(experiment):
                await storage.release_algorithm_lock(experiment)
                async with other.acquire_algorithm_lock(experiment, timeout=5) as algorithm:
                    algorithm.set_state("new")
                raise LookupError
        assert await _state(storage, experiment) == "new"

    async def test_the_record_is_deleted_under_its_holder(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await _with_state(storage, "old")
        with pytest.raises(LockLost, match="deleted"):
            async with storage.acquire_algorithm_lock(experiment):
                assert await storage.delete_algorithm_lock(experiment) == 1
        assert await storage.get_algorithm_lock_info(experiment) is None


class LockRecordLaws:
    """Law 9: the record of the lock."""

    async def test_no_record(self, storage: AsyncStorageProtocol) -> None:
        with anyio.fail_after(5), pytest.raises(LockError) as raised:
            async with storage.acquire_algorithm_lock({"_id": "nobody"}):
                pass
        assert not isinstance(raised.value, LockAcquisitionTimeout)
        assert await storage.get_algorithm_lock_info(uid="nobody") is None
        assert await storage.release_algorithm_lock(uid="nobody") == 0
        assert await storage.delete_algorithm_lock(uid="nobody") == 0

    async def test_initialize_and_delete(self, storage: AsyncStorageProtocol) -> None:
        assert await storage.initialize_algorithm_lock("e", {"random": {}}) == 1
        with pytest.raises(DuplicateKeyError):
            await storage.initialize_algorithm_lock("e", {})
        with pytest.raises(DuplicateKeyError):
            await storage.write_algorithm_lock("e", {})
        info = await storage.get_algorithm_lock_info(uid="e")
        assert info is not None
        assert info.configuration == {"random": {}}
        assert (bool(info.locked), info.state, info.owner) == (False, None, None)
        assert await storage.delete_algorithm_lock(uid="e") == 1
        assert await storage.get_algorithm_lock_info(uid="e") is None

    async def test_info(self, storage: AsyncStorageProtocol) -> None:
        experiment = await _with_state(storage, [1])
        before = datetime.now(UTC) - timedelta(seconds=1)
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            info = await storage.get_algorithm_lock_info(experiment)
            assert info is not None
            assert info.locked
            assert info.owner == algorithm.owner
            assert info.since is not None
            assert info.heartbeat is not None
            assert before <= info.since <= info.heartbeat
            assert info.since.utcoffset() == timedelta(0)
            assert info.state == [1]
        info = await storage.get_algorithm_lock_info(uid=experiment.id)
        assert info is not None
        assert not info.locked

    async def test_write_as_it_is_told(self, storage: AsyncStorageProtocol) -> None:
        moment = datetime(2026, 1, 1, 12)  # noqa: DTZ001  is UTC
        written: Any = {"state": {"a": (1,)}, "heartbeat": moment}
        assert await storage.write_algorithm_lock("e", {"random": {}}, **written) == 1
        info = await storage.get_algorithm_lock_info(uid="e")
        assert info is not None
        assert info.state == {"a": (1,)}
        assert info.heartbeat == moment.replace(tzinfo=UTC)
        assert not info.locked

    @pytest.mark.parametrize("through", ["write_algorithm_lock", "create_experiment"])
    async def test_written_as_locked_is_free_after_a_lease(
        self, opening: Open, through: str
    ) -> None:
        storage = await opening(lock_lease=LEASE)
        start = anyio.current_time()
        if through == "write_algorithm_lock":
            await storage.write_algorithm_lock("e", {}, locked=1, state=5)
        else:
            await storage.create_experiment(make_config(_id="e"), algo_locked=1, algo_state=5)
        with pytest.raises(LockAcquisitionTimeout) as raised:
            async with storage.acquire_algorithm_lock({"_id": "e"}, timeout=0):
                pass
        assert raised.value.holder is None
        async with storage.acquire_algorithm_lock({"_id": "e"}, 30, 0.02) as algorithm:
            assert anyio.current_time() - start > 0.8 * LEASE
            assert algorithm.state == 5

    async def test_release_is_the_operators_override(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        await storage.write_algorithm_lock("e", {}, locked=1, state=5)
        assert await other.release_algorithm_lock(uid="e") == 1
        assert await other.release_algorithm_lock(uid="e") == 0
        async with storage.acquire_algorithm_lock({"_id": "e"}, timeout=0) as algorithm:
            assert algorithm.state == 5
        assert await storage.release_algorithm_lock({"_id": "e"}, new_state=6) == 0
        info = await storage.get_algorithm_lock_info(uid="e")
        assert info is not None
        assert info.state == 5


def _in_a_loop_of_its_own(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(function())
