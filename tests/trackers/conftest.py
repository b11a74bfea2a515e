"""The engines, and a tracker of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from blockbuster import BlockBuster

from aiostorage import Storage
from aiostorage._core.delivery.deliverer import DeliverySettings
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.protocols import Driver
from tests.contract.conftest import make_driver, sockets_collected
from tests.trackers.file_tracker import FileTracker, Seen

__all__ = ["make_driver", "sockets_collected"]

QUICK = DeliverySettings(
    on_close=5.0, lease=2.0, call_limit=0.8, linger=0.1, initial=0.02, maximum=0.1
)
"""Deliverers that take over soon, and do not wait long for a tracker."""


class Opening(Protocol):
    """Opens storages with the tracker."""

    async def __call__(self, settings: DeliverySettings = QUICK, **options: Any) -> Storage: ...


@pytest.fixture(scope="session", autouse=True)
def looks_may_block(no_blocking_call: BlockBuster) -> None:
    """Let the tests look into the tracker's file; the tracker itself must not be in the loop."""
    for function in no_blocking_call.functions.values():
        function.can_block_in("trackers/file_tracker.py", {"_rows", "switch", "log_metric"})
        function.can_block_in(
            "trackers/test_processes.py", {"worker", "<lambda>", "test_a_hundred_trials"}
        )


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    """Give what the tracker has, and its switches."""
    directory = tmp_path / "tracker"
    directory.mkdir()
    return Seen(directory)


@pytest.fixture
def make_memory() -> Callable[[], Driver]:
    """Give a store in memory."""
    driver = MemoryDriver()
    return lambda: driver


@pytest.fixture
async def opening(make_driver: Callable[[], Driver], seen: Seen) -> AsyncIterator[Opening]:
    """Give a function that opens storages on one store with one tracker."""
    async with AsyncExitStack() as stack:

        async def open_one(settings: DeliverySettings = QUICK, **options: Any) -> Storage:
            storage = Storage(make_driver(), tracker=FileTracker(seen.directory), **options)
            assert storage._mirror is not None
            storage._mirror.deliverer.settings = settings
            await storage.open()
            stack.push_async_callback(storage.aclose)
            return storage

        yield open_one


@pytest.fixture
async def storage(opening: Opening) -> Storage:
    """Give a storage with the tracker."""
    return await opening()
