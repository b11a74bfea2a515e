"""The contract of an engine, as tests: subclass `DriverContract` for your driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aiostorage.protocols import Driver
from aiostorage.testing.contract.driver_documents import LAYOUT
from aiostorage.testing.contract.driver_laws import (
    ChangeLaws,
    DriverLifetimeLaws,
    OpenDriver,
    PageLaws,
    TransactionLaws,
)
from aiostorage.testing.contract.driver_next_laws import InsertNextLaws
from aiostorage.testing.contract.driver_operation_laws import OperationLaws
from aiostorage.testing.contract.driver_outbox_laws import OutboxNoteLaws
from aiostorage.testing.contract.driver_receipt_laws import ReceiptLaws

__all__ = ["DriverContract", "DriverFixtures"]


class DriverFixtures:
    """Opens the drivers of a test; the base of `DriverContract`."""

    pytestmark: ClassVar[Any] = pytest.mark.anyio

    shared: bool = True
    resolution: timedelta = timedelta(microseconds=1)
    condition_seeds: Iterable[int] = range(20)

    def make_driver(self, tmp_path: Path) -> Driver:
        """Make a driver, not opened; the contract opens and closes it.

        Parameters
        ----------
        tmp_path
            An empty directory for this test.
        """
        raise NotImplementedError

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run on asyncio alone."""
        return "asyncio"

    @pytest.fixture(name="open_driver")
    async def fixture_open_driver(self, tmp_path: Path) -> AsyncIterator[OpenDriver]:
        """Give a function that opens one more driver."""
        async with AsyncExitStack() as stack:

            async def open_driver() -> Driver:
                driver = self.make_driver(tmp_path)
                stack.push_async_callback(driver.aclose)
                await driver.open(LAYOUT)
                return driver

            yield open_driver

    @pytest.fixture(name="driver")
    async def fixture_driver(self, open_driver: OpenDriver) -> Driver:
        """Give an empty driver."""
        return await open_driver()

    @pytest.fixture(name="other")
    async def fixture_other(self, driver: Driver, open_driver: OpenDriver) -> Driver:
        """Give a second driver on the same data, or the same one where there is no second."""
        return await open_driver() if self.shared else driver

    @pytest.fixture(name="shared")
    def fixture_shared(self) -> bool:
        """Give the capability."""
        return self.shared

    @pytest.fixture(name="resolution")
    def fixture_resolution(self) -> timedelta:
        """Give the capability."""
        return self.resolution

    @pytest.fixture(name="condition_seeds")
    def fixture_condition_seeds(self) -> Iterable[int]:
        """Give the seeds of the conditions that are compared."""
        return self.condition_seeds


class DriverContract(
    OperationLaws,
    TransactionLaws,
    ReceiptLaws,
    OutboxNoteLaws,
    InsertNextLaws,
    PageLaws,
    ChangeLaws,
    DriverLifetimeLaws,
    DriverFixtures,
):
    """Every law of `aiostorage.protocols.Driver`, for one engine.

    Runs under AnyIO's pytest plugin, on asyncio.

    Attributes
    ----------
    shared : bool
        Whether a second driver from `make_driver` is on the same data.
    resolution : timedelta
        How finely datetimes are kept.
    condition_seeds : iterable of int
        Each makes other documents and other conditions to compare by.

    Examples
    --------
    >>> class TestMine(DriverContract):
    ...     def make_driver(self, tmp_path):
    ...         return MyDriver(tmp_path / "data")
    """
