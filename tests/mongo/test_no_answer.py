"""A server that is there and does not answer: a call that has not begun is dropped at once."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from aiostorage import open_storage

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


async def test_the_first_call_ends_with_its_limit(library: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        storage = open_storage(f"mongodb://127.0.0.1:{port}/tune", client=library)
        start = time.monotonic()
        for call in (storage.reserve_trial({"_id": 1}), storage.open()):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await call
        await storage.aclose()
        assert time.monotonic() - start < 3
