"""The portal: calls that are cancelled before they have begun, and what an error keeps alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from aiostorage import StorageClosedError
from aiostorage.sync.portal import Portal


async def nothing() -> None:
    """Close nothing."""


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal(nothing)
    yield portal
    portal.close()


def test_a_call_that_is_cancelled_before_it_runs_ends(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop finds the cancellation of a task before that has made its first step."""
    ran: list[str] = []

    async def current_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def never() -> None:
        ran.append("it ran all the same")

    loop = portal.call(current_loop)
    call = portal.prepare(never)
    create_task = loop.create_task

    def create(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        call.cancel()
        return create_task(coroutine)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "create_task", create)
        call.wait()
    assert call.done
    assert not ran
    with pytest.raises(StorageClosedError):
        call.result()
    portal.call(nothing)


def test_an_error_is_freed_with_its_last_reference(portal: Portal) -> None:
    class Failure(Exception):
        """An error that a weak reference can point to."""

    async def fail() -> None:
        raise Failure

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Failure) as caught:
            portal.call(fail)
        kept = weakref.ref(caught.value)
        del caught
        portal.call(nothing)  # the loop has let go of the task that failed
        assert kept() is None
    finally:
        gc.enable()
