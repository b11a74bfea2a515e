"""The fixtures of the contracts of a storage, and what a subclass says of its engine."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import Clock, Open, PassTime
from aiostorage.testing.faults import FakeClock

__all__ = ["StorageFixtures"]


class StorageFixtures:
    """Opens the storages of a test; the base of `StorageContract` and `ApiContract`."""

    pytestmark: ClassVar[Any] = pytest.mark.anyio

    shared: bool = True
    shared_by_copies: bool = True
    threads: bool = True
    cancels: bool = True
    logs: bool = True
    resolution: timedelta = timedelta(microseconds=1)
    secrets: tuple[str, ...] = ()
    clock: FakeClock | None = None
    large_state: int = 17 << 20

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "durable" in vars(cls):  # its name until 0.2
            warnings.warn(
                f"{cls.__qualname__}.durable is called `shared_by_copies`; the old name goes away "
                "in aiostorage 0.3",
                DeprecationWarning,
                stacklevel=2,
            )
            cls.shared_by_copies = vars(cls)["durable"]

    async def open_storage(self, tmp_path: Path, **settings: Any) -> AsyncStorageProtocol:
        """Open a storage, empty at its first call in a test; the contract closes it.

        Parameters
        ----------
        tmp_path
            An empty directory for this test.
        settings
            Arguments of `aiostorage.Storage`, such as `lost_after` and `lock_lease`.
        """
        raise NotImplementedError

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run on asyncio alone."""
        return "asyncio"

    @pytest.fixture(name="opening")
    async def fixture_opening(self, tmp_path: Path) -> AsyncIterator[Open]:
        """Give a function that opens storages on this test's data."""
        async with AsyncExitStack() as stack:

            async def open_one(**settings: Any) -> AsyncStorageProtocol:
                storage = await self.open_storage(tmp_path, **settings)
                stack.push_async_callback(storage.aclose)
                return storage

            yield open_one

    @pytest.fixture(name="storage")
    async def fixture_storage(self, opening: Open) -> AsyncStorageProtocol:
        """Give a storage."""
        return await opening()

    @pytest.fixture(name="other")
    async def fixture_other(
        self, storage: AsyncStorageProtocol, opening: Open
    ) -> AsyncStorageProtocol:
        """Give a second storage on the same data, or the same one where there is no second."""
        return await opening() if self.shared else storage

    @pytest.fixture(name="store_clock")
    def fixture_store_clock(self) -> FakeClock | None:
        """Give the clock of the store if a test may advance it."""
        return self.clock

    @pytest.fixture(name="now")
    def fixture_now(self) -> Clock:
        """Give a function that returns the time by the store's clock, or nearly."""
        return self.clock or (lambda: datetime.now(UTC))

    @pytest.fixture(name="pass_time")
    def fixture_pass_time(self) -> PassTime:
        """Give a function that lets seconds pass on the store's clock."""

        async def pass_time(seconds: float) -> None:
            if self.clock is None:
                await anyio.sleep(seconds)
            else:
                self.clock.advance(seconds)

        return pass_time

    @pytest.fixture(name="needs_log")
    def fixture_needs_log(self) -> None:
        """Skip the test where the engine logs no changes."""
        if not self.logs:
            pytest.skip("the engine logs no changes")

    @pytest.fixture(name="shared")
    def fixture_shared(self) -> bool:
        """Give the capability."""
        return self.shared

    @pytest.fixture(name="shared_by_copies")
    def fixture_shared_by_copies(self) -> bool:
        """Give the capability."""
        return self.shared_by_copies

    @pytest.fixture(name="threads")
    def fixture_threads(self) -> None:
        """Skip a test that needs two threads."""
        if not (self.shared and self.threads):
            pytest.skip("the engine cannot be used in two threads")

    @pytest.fixture(name="needs_second_storage")
    def fixture_needs_second_storage(self) -> None:
        """Skip a test that needs two storages on the same data."""
        if not self.shared:
            pytest.skip("the engine has no second storage on the same data")

    @pytest.fixture(name="cancels")
    def fixture_cancels(self) -> None:
        """Skip a test that cancels a waiting call."""
        if not self.cancels:
            pytest.skip("a call that waits in a thread cannot be cancelled")

    @pytest.fixture(name="resolution")
    def fixture_resolution(self) -> timedelta:
        """Give the capability."""
        return self.resolution

    @pytest.fixture(name="large_state")
    def fixture_large_state(self) -> int:
        """Give the size of a large state."""
        return self.large_state

    @pytest.fixture(name="secrets")
    def fixture_secrets(self) -> tuple[str, ...]:
        """Give the texts that must not be shown."""
        return self.secrets
