"""Cancelling a call at each of its awaits, one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import anyio

from aiostorage.drivers.memory import MemoryDriver

__all__ = ["How", "cancelled_at_every_await"]

How = Literal["pending", "answered", "twice", "scope"]
"""How a call is cancelled at an await.

``pending``
    By ``task.cancel()``, before the awaited event has happened.
``answered``
    By ``task.cancel()``, after the event and before the call has resumed.
``twice``
    By ``task.cancel()``, and at the next await once more, which is probably during its clean-up.
``scope``
    By an AnyIO cancel scope around it, which cancels again at each await that is not shielded.
"""

HOWS: tuple[How, ...] = get_args(How)

TOTAL_TIMEOUT = 60.0
"""Seconds for all runs together."""

MAX_AWAITS = 10_000
"""A call with more awaits counts as endless."""


async def cancelled_at_every_await(
    make_call: Callable[[], Awaitable[Any]],
    check: Callable[[], Awaitable[None]],
    *,
    hows: tuple[How, ...] = HOWS,
    deadline: float = TOTAL_TIMEOUT,
) -> int:
    """Run a call again and again, cancelled at its first await, at its second, and so on.

    Goes on, for each of `hows`, until a run ends before its await to be cancelled at has come.
    Meanwhile each call of a memory engine is an await; else only some let the event loop turn.

    Parameters
    ----------
    make_call
        Makes the call to cancel; called again for each run.
    check
        Awaited after each run: raises if the cancellation did any harm.
    hows
        In which ways to cancel.
    deadline
        Seconds that all of it may take.

    Returns
    -------
    int
        How many awaits were cancelled.

    Raises
    ------
    AssertionError
        The call swallowed the cancellation, or never ends.
    TimeoutError
        The deadline passed.
    """
    covered = 0
    with anyio.fail_after(deadline), _turns_at_each_call():
        for how in hows:
            for number in range(1, MAX_AWAITS):
                fired = await _cancelled_once(make_call(), number, how)
                try:
                    await check()
                except BaseException as error:
                    error.add_note(f"after a cancellation ({how}) at await {number}")
                    raise
                if not fired:
                    break
                covered += 1
            else:
                raise AssertionError(f"the call has more than {MAX_AWAITS} awaits")
    return covered


@contextmanager
def _turns_at_each_call() -> Iterator[None]:
    """Let each call of a memory engine await something, as those of all others do."""
    interval = MemoryDriver.turn_interval
    MemoryDriver.turn_interval = 0.0
    try:
        yield
    finally:
        MemoryDriver.turn_interval = interval


async def _cancelled_once(call: Awaitable[Any], number: int, how: How) -> bool:
    """Run a call, cancelled at one of its awaits; return whether it had so many."""
    watched = _WatchedCall(call, number, how)
    task = asyncio.create_task(watched.run())
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    if task.cancelled():
        if not watched.fired:
            raise AssertionError("the call was cancelled, but not by us")
        return True
    error = task.exception()
    if error is not None:
        error.add_note(f"while being cancelled ({how}) at await {number}")
        raise error
    # what a scope is shielded from until the end is not swallowed
    if watched.fired and how != "scope":
        raise AssertionError(f"the call swallowed the cancellation ({how}) at await {number}")
    return watched.fired


class _WatchedCall:
    """An awaitable around a call that counts its awaits."""

    def __init__(self, call: Awaitable[Any], number: int, how: How) -> None:
        self._call = call
        self._left = number
        self._how = how
        self._scope = anyio.CancelScope()
        self.fired = False

    async def run(self) -> None:
        """Await the call; a cancelled scope ends here."""
        with self._scope:
            await self

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._call.__await__()
        sent: Any = None
        thrown: BaseException | None = None
        while True:
            try:
                waited_for = steps.send(sent) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
            sent, thrown = None, None
            self._left -= 1
            if self._left == 0 or (self._left == -1 and self._how == "twice"):
                self._cancel(waited_for)
            try:
                sent = yield waited_for
            except BaseException as error:  # noqa: BLE001  it belongs to the call
                thrown = error

    def _cancel(self, waited_for: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._how == "scope":
            self.fired = True
            self._scope.cancel()
        elif self._how == "answered" and isinstance(waited_for, asyncio.Future):

            def cancel(_: Any) -> None:
                self.fired = True
                task.cancel()

            # the task itself asks to be called back after us
            waited_for.add_done_callback(cancel)
        else:
            self.fired = True
            task.cancel()
