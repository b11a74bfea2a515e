"""What holds for every test: one event loop, nothing that blocks it, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail whatever blocks the event loop."""
    with blockbuster_ctx() as detector:
        yield detector


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread of aiosqlite behind."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    left = [t.name for t in set(threading.enumerate()) - before if "_connection_worker" in t.name]
    assert not left, f"left behind: {left}"
