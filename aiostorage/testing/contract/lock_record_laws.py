"""The contract on the record of the algorithm lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from aiostorage.errors import DuplicateKeyError, LockAcquisitionTimeout, LockError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Clock,
    Open,
    make_config,
    show_free,
    with_state,
)
from aiostorage.testing.contract.lock_loss_laws import LEASE
from aiostorage.testing.faults import FakeClock

__all__ = ["LockRecordLaws"]


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

    async def test_info(self, storage: AsyncStorageProtocol, now: Clock) -> None:
        experiment = await with_state(storage, [1])
        before = now() - timedelta(seconds=1)
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
        self, opening: Open, through: str, store_clock: FakeClock | None
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
        timeout = 30
        if store_clock is not None:
            store_clock.advance(0.9 * LEASE)
            with pytest.raises(LockAcquisitionTimeout):
                await show_free(storage, {"_id": "e"})
            store_clock.advance(0.2 * LEASE)
            timeout = 0
        async with storage.acquire_algorithm_lock({"_id": "e"}, timeout, 0.02) as algorithm:
            if store_clock is None:
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
