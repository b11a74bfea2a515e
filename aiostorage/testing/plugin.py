"""Fixtures for tests of code that uses a storage.

Write ``pytest_plugins = ["aiostorage.testing.plugin"]`` into your ``conftest.py``. Asynchronous
tests and fixtures need AnyIO's pytest plugin or another one; these here are not asynchronous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aiostorage._core.storage import Storage
    from aiostorage.testing.faults import FakeClock

__all__ = ["aiostorage_memory", "fake_clock"]


@pytest.fixture
def fake_clock() -> FakeClock:
    """Give a clock that stands still until its `advance` is called."""
    from aiostorage.testing.faults import FakeClock  # noqa: PLC0415  only for those who ask

    return FakeClock()


@pytest.fixture
def aiostorage_memory(fake_clock: FakeClock) -> Storage:
    """Give an empty storage in memory, which goes by `fake_clock` and need not be closed."""
    from aiostorage._core.storage import Storage  # noqa: PLC0415
    from aiostorage.drivers.memory import MemoryDriver  # noqa: PLC0415

    return Storage(MemoryDriver(clock=fake_clock))
