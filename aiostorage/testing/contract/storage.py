"""The contract of a storage, as tests: subclass `StorageContract` for your engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.experiment_laws import BenchmarkLaws, ExperimentLaws, NameLaws
from aiostorage.testing.contract.helpers import Open
from aiostorage.testing.contract.lifetime_laws import LifetimeLaws
from aiostorage.testing.contract.lock_laws import LockLaws, LockLossLaws, LockRecordLaws
from aiostorage.testing.contract.reservation_laws import FencingLaws, ReservationLaws, WorkerLaws
from aiostorage.testing.contract.trial_laws import TrialLaws
from aiostorage.testing.contract.value_laws import QueryLaws, ValueLaws

__all__ = ["StorageContract"]


class StorageContract(
    NameLaws,
    ExperimentLaws,
    BenchmarkLaws,
    TrialLaws,
    ReservationLaws,
    FencingLaws,
    WorkerLaws,
    LockLaws,
    LockLossLaws,
    LockRecordLaws,
    ValueLaws,
    QueryLaws,
    LifetimeLaws,
):
    """Every law of `aiostorage.protocols.AsyncStorageProtocol`, for one engine.

    Runs under AnyIO's pytest plugin, on asyncio.

    Attributes
    ----------
    shared : bool
        Whether `open_storage`, called again, gives a second storage on the same data.
    durable : bool
        Whether a pickled copy of a storage is on the same data, too.
    threads : bool
        Whether two of them may be used in two threads at the same time.
    cancels : bool
        Whether a cancelled call ends at once, and a body can be cancelled; a thread cannot.
    resolution : timedelta
        How finely datetimes are kept.
    secrets : tuple of str
        What must not be shown, such as the password that `open_storage` uses.

    Examples
    --------
    >>> class TestMine(StorageContract):
    ...     async def open_storage(self, tmp_path, **settings):
    ...         storage = Storage(MyDriver(tmp_path), **settings)
    ...         await storage.open()
    ...         return storage
    """

    pytestmark: ClassVar[Any] = pytest.mark.anyio

    shared: bool = True
    durable: bool = True
    threads: bool = True
    cancels: bool = True
    resolution: timedelta = timedelta(microseconds=1)
    secrets: tuple[str, ...] = ()

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

    @pytest.fixture(name="shared")
    def fixture_shared(self) -> bool:
        """Give the capability."""
        return self.shared

    @pytest.fixture(name="durable")
    def fixture_durable(self) -> bool:
        """Give the capability."""
        return self.durable

    @pytest.fixture(name="threads")
    def fixture_threads(self) -> None:
        """Skip a test that needs two threads."""
        if not (self.shared and self.threads):
            pytest.skip("the engine cannot be used in two threads")

    @pytest.fixture(name="apart")
    def fixture_apart(self) -> None:
        """Skip a test that needs two storages on the same data."""
        if not self.shared:
            pytest.skip("the engine has no second storage on the same data")

    @pytest.fixture(name="cancels")
    def fixture_cancels(self) -> None:
        """Skip a test that cancels what waits."""
        if not self.cancels:
            pytest.skip("what waits in a thread cannot be cancelled")

    @pytest.fixture(name="resolution")
    def fixture_resolution(self) -> timedelta:
        """Give the capability."""
        return self.resolution

    @pytest.fixture(name="secrets")
    def fixture_secrets(self) -> tuple[str, ...]:
        """Give what must not be shown."""
        return self.secrets
