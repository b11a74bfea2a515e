"""The contract on leases, takeover, and holders of the lock that come back too late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

from aiostorage._core.holders import fingerprint
from aiostorage.errors import LockAcquisitionTimeout, LockLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Open,
    PassTime,
    algorithm_state,
    show_free,
    until,
    with_state,
)
from aiostorage.testing.faults import FakeClock

__all__ = ["LEASE", "LockLossLaws"]

LEASE: Final = 0.4
"""Seconds of a lease in tests that wait for its end."""


class LockLossLaws:
    """Law 9: leases, takeover, and holders that come back too late."""

    @pytest.mark.usefixtures("needs_second_storage")
    async def test_the_lease_is_renewed(self, opening: Open, store_clock: FakeClock | None) -> None:
        storage, other = await opening(lock_lease=LEASE), await opening(lock_lease=LEASE)
        experiment = await with_state(storage, 1)

        async def heartbeat() -> datetime | None:
            info = await other.get_algorithm_lock_info(experiment)
            assert info is not None
            return info.heartbeat

        async def renewed() -> bool:
            return await heartbeat() != before

        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            if store_clock is None:
                with pytest.raises(LockAcquisitionTimeout):
                    async with other.acquire_algorithm_lock(experiment, 3 * LEASE, 0.02):
                        pass
            else:
                for _ in range(3):
                    before = await heartbeat()
                    store_clock.advance(0.9 * LEASE)
                    await until(renewed)
                    with pytest.raises(LockAcquisitionTimeout):
                        await show_free(other, experiment)
            algorithm.set_state(2)
        assert await algorithm_state(storage, experiment) == 2

    @pytest.mark.usefixtures("threads")
    async def test_an_expired_lease_is_taken_over(self, opening: Open, pass_time: PassTime) -> None:
        storage = await opening(lock_lease=LEASE)
        experiment = await with_state(storage, "old")
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
        await pass_time(LEASE)
        async with storage.acquire_algorithm_lock(experiment, 30, 0.02) as algorithm:
            assert algorithm.state == "old"
            taken.set()
            with pytest.raises(LockLost) as raised:
                await holder
            assert raised.value.holder == algorithm.owner
            assert fingerprint(str(algorithm.owner)) in str(raised.value)
            assert str(algorithm.owner) not in str(raised.value)
            algorithm.set_state("new")
        assert await algorithm_state(storage, experiment) == "new"

    async def test_a_late_owner_saves_nothing(self, storage: AsyncStorageProtocol) -> None:
        experiment = await with_state(storage, "old")
        with pytest.raises(LockLost):
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                assert await storage.release_algorithm_lock(experiment, new_state="operator's") == 1
                algorithm.set_state("late")
        assert await algorithm_state(storage, experiment) == "operator's"
        await show_free(storage, experiment)

    @pytest.mark.usefixtures("cancels")
    async def test_the_body_of_a_late_owner_is_cancelled(self, opening: Open) -> None:
        storage = await opening(lock_lease=LEASE)
        experiment = await with_state(storage, "old")
        with anyio.fail_after(20), pytest.raises(LockLost):
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state("late")
                await storage.release_algorithm_lock(experiment)
                await anyio.sleep_forever()
        assert algorithm.state == "old"
        assert await algorithm_state(storage, experiment) == "old"

    @pytest.mark.usefixtures("needs_second_storage")
    async def test_an_error_of_a_late_owner_is_not_hidden(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await with_state(storage, "old")
        with pytest.raises(LookupError):
            async with storage.acquire_algorithm_lock(experiment):
                await storage.release_algorithm_lock(experiment)
                async with other.acquire_algorithm_lock(experiment, timeout=5) as algorithm:
                    algorithm.set_state("new")
                raise LookupError
        assert await algorithm_state(storage, experiment) == "new"

    async def test_the_record_is_deleted_under_its_holder(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await with_state(storage, "old")
        with pytest.raises(LockLost, match="deleted"):
            async with storage.acquire_algorithm_lock(experiment):
                assert await storage.delete_algorithm_lock(experiment) == 1
        assert await storage.get_algorithm_lock_info(experiment) is None


def _in_a_loop_of_its_own(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(function())
