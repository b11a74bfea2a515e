"""The contract on the algorithm's state: saved by the holder of the lock, or left alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import pytest

from aiostorage.errors import EncodingError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    algorithm_state,
    case,
    make_config,
    show_free,
    with_state,
)

__all__ = ["LockStateLaws"]

STATES: Final[tuple[Any, ...]] = (
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
)


class _StopError(BaseException):
    """Stands for KeyboardInterrupt, which would end the event loop as well."""


class LockStateLaws:
    """Law 9: the state."""

    async def test_state_is_handed_out_and_saved(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state is None
            assert algorithm.configuration == {"random": {"seed": 1}}
            assert algorithm.locked
            assert algorithm.owner
            algorithm.set_state({"rng": [1, 2]})
            assert await algorithm_state(storage, experiment) is None
        assert await algorithm_state(storage, experiment) == {"rng": [1, 2]}
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state == {"rng": [1, 2]}
            algorithm.state["rng"].append(3)  # in place
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state == {"rng": [1, 2, 3]}
            algorithm.set_state({})
            algorithm.reset()
            assert algorithm.state == {"rng": [1, 2, 3]}
        assert await algorithm_state(storage, experiment) == {"rng": [1, 2, 3]}

    async def test_states_are_copies(self, storage: AsyncStorageProtocol) -> None:
        passed = {"rng": [1]}
        experiment = await with_state(storage, passed)
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
        assert await algorithm_state(storage, experiment) == {"new": [1]}

    async def test_state_is_put_back_on_any_exception(self, storage: AsyncStorageProtocol) -> None:
        for error in (LookupError, _StopError, asyncio.CancelledError):
            with case(error.__name__):
                experiment = await with_state(storage, {"rng": [1]}, error.__name__)
                with pytest.raises(error):
                    async with storage.acquire_algorithm_lock(experiment) as algorithm:
                        algorithm.state["rng"].append(2)
                        algorithm.set_state({"half": "made"})
                        raise error
                assert algorithm.state == {"rng": [1]}
                assert await algorithm_state(storage, experiment) == {"rng": [1]}
                await show_free(storage, experiment)

    @pytest.mark.parametrize("native", [True, False])
    async def test_state_is_put_back_on_cancellation(
        self, storage: AsyncStorageProtocol, native: bool
    ) -> None:
        experiment = await with_state(storage, {"rng": [1]})
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
        assert await algorithm_state(storage, experiment) == {"rng": [1]}
        await show_free(storage, experiment)

    async def test_a_state_that_cannot_be_stored(self, storage: AsyncStorageProtocol) -> None:
        experiment = await with_state(storage, {"rng": 1})
        with pytest.raises(EncodingError) as raised:
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state({"a": [object()]})
        assert "a" in raised.value.path
        assert await algorithm_state(storage, experiment) == {"rng": 1}
        await show_free(storage, experiment)
        with pytest.raises(EncodingError):
            await storage.release_algorithm_lock(experiment, new_state=object())
        with pytest.raises(EncodingError):
            await storage.create_experiment(make_config("other"), algo_state=object())
        assert len(await storage.fetch_experiments({})) == 1

    async def test_round_trip_of_states(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        for state in STATES:
            with case(state):
                async with storage.acquire_algorithm_lock(experiment) as algorithm:
                    algorithm.set_state(state)
                found = await algorithm_state(storage, experiment)
                assert found == state
                assert type(found) is type(state)

    async def test_round_trip_of_arrays(
        self, storage: AsyncStorageProtocol, large_state: int
    ) -> None:
        np = pytest.importorskip("numpy")
        experiment = await storage.create_experiment(make_config())
        large = np.random.default_rng(1).bytes(large_state)  # not to be compressed
        array = np.arange(6, dtype="float32").reshape(2, 3)
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.set_state({"array": array, "large": large})
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state["large"] == large
            assert algorithm.state["array"].dtype == array.dtype
            assert (algorithm.state["array"] == array).all()
            algorithm.set_state("small")
        assert await algorithm_state(storage, experiment) == "small"
