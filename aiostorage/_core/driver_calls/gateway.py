"""The gateway to the engine: opens it, retries it, and refuses calls once it is closed.

Everything above talks to `Gateway`, and only `Gateway` and its helpers (`compensation`,
`lost_answers`) talk to a driver.

There are two ways to write. `execute` and `transact` are for what a token or a new ``_id`` finds
again, and for what may be done twice. `execute_once` and `transact_once` are for all the rest: they
leave a receipt, which costs one more record.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar, cast

import anyio

from aiostorage._core.cancellation import had_no_effect, mark_without_effect, shielded
from aiostorage._core.driver_calls.compensation import Compensations
from aiostorage._core.driver_calls.lost_answers import repeat, repeat_next, repeat_once
from aiostorage._core.driver_calls.retry import RetryPolicy, retrying
from aiostorage._core.driver_calls.time_limit import PRESENT_CALL, TimeLimit
from aiostorage._core.follow_ups.next_keys import documents_at_next_keys
from aiostorage._core.history import History
from aiostorage._core.ids import new_id
from aiostorage._core.layout import LAYOUT, RECEIPTS
from aiostorage._core.named_store import named_by
from aiostorage._core.slices import find_slices
from aiostorage._core.slow import said_when_slow
from aiostorage._core.telemetry import Telemetry
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    EventLoopError,
    OperationTimeout,
    StorageClosedError,
    TemporaryBackendError,
)
from aiostorage.operations import (
    Compare,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    InsertNext,
    LogPage,
    Operation,
    Receipt,
    StoreTime,
)
from aiostorage.protocols import Driver, LoggingDriver

__all__ = ["Gateway", "copy_of"]

T = TypeVar("T")
A = TypeVar("A")
E = TypeVar("E", bound=AioStorageError)

RECEIPT_LIFETIME: Final = 600.0
"""Seconds that a receipt is kept at least, beyond the time of all attempts."""

MAX_TOTAL: Final = 365 * 86400.0
"""Seconds that count of the time of all attempts, since no date is thousands of years ahead."""

SWEEP_INTERVAL: Final = 60.0
"""Seconds after which a write also deletes expired receipts, and trims the history."""

FIRST_TRIM_DELAY_RANGE: Final = 10.0, 60.0
"""Range of seconds of the first trim, at random, so that processes that end soon trim as well."""

EXPIRED_RECEIPTS: Final = Find(
    RECEIPTS, Compare("expires", "lte", StoreTime()), {"_id": True}, order=("expires",), limit=1000
)
"""The expired receipts that one write deletes: a limited number, so that it is quick."""


class Gateway:
    """A driver under a retry policy.

    Parameters
    ----------
    driver
        The engine.
    policy
        How often and how long to try.
    origin
        A clause that says who named the engine, for errors when it is opened.
    history
        The history that the engine keeps. Default: as the store has it.
    """

    def __init__(
        self,
        driver: Driver,
        policy: RetryPolicy,
        origin: str | None = None,
        history: History | None = None,
    ) -> None:
        self.driver = driver
        self.policy = policy
        self.origin = origin
        self.history: History = history or History(None)
        self.telemetry: Telemetry | None = None
        """The telemetry that counts retries, if there is one; a copy has none yet."""
        self._limit = TimeLimit(min(policy.attempt_timeout, policy.total))
        self._receipt_lifetime = RECEIPT_LIFETIME + min(policy.total, MAX_TOTAL)
        self._compensations = Compensations(driver, policy)
        self._closed = False
        self._sweep_at = 0.0
        self._trim_at = math.inf
        self._opened_in = 0
        self._opening = (0, anyio.Lock())
        self._begun = 0
        self._failed: tuple[int, AioStorageError] | None = None
        """The number of the last opening that has failed, and its error."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered_in, self._entering = 0, threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "driver": self.driver,
            "policy": self.policy,
            "origin": self.origin,
            "history": self.history,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew

    # ------------------------------------------------------------------------ open and close

    async def open(self) -> None:
        """Open the driver unless it is open in this process.

        Raises
        ------
        StorageClosedError
            After `aclose`.
        EventLoopError
            Another event loop uses it.
        """
        self._enter_loop()
        pid = os.getpid()
        if self._opening[0] != pid:  # a lock that the parent process held would never be released
            self._opening = (pid, anyio.Lock())
        begun = self._begun
        async with self._opening[1]:
            if self._closed:
                raise StorageClosedError
            if self._opened_in != pid:
                if self._failed is not None and self._failed[0] > begun:
                    raise copy_of(self._failed[1])  # each of many callers would wait as long again
                await self._connect()
                if self._closed:  # meanwhile, when there was nothing to close
                    await self.driver.aclose()
                    raise StorageClosedError
                self._opened_in = pid

    async def _connect(self) -> None:
        self._begun += 1
        try:
            with said_when_slow(self.driver, self.origin):
                await self._until_answered(lambda: self.driver.open(LAYOUT))
                try:
                    await self.history.begin(self.driver, self._execute_at_once)
                except BaseException:
                    await shielded(None, self.driver.aclose)
                    raise
                self._trim_at = time.monotonic() + random.uniform(*FIRST_TRIM_DELAY_RANGE)  # noqa: S311
        except AioStorageError as error:
            named_by(error, self.origin)
            self._failed = self._begun, copy_of(error)  # its traceback would refer to this
            raise
        if self.telemetry is not None:
            self.telemetry.locate()

    async def aclose(self) -> None:
        """Close the driver for good."""
        if not self._closed:
            if self._opened_in:
                self._enter_loop()
            self._closed = True
            if self._opened_in:
                await self._compensations.close()
                await self.driver.aclose()

    def _is_ready(self) -> bool:
        """Return whether the driver is open; if not, `_open_first` has to be awaited."""
        if self._closed:
            raise StorageClosedError
        try:
            same = self._loop is asyncio.get_running_loop()
        except RuntimeError:
            same = False
        if not same:
            self._enter_loop()
        return self._opened_in == os.getpid()

    async def _ready(self) -> None:
        if not self._is_ready():
            await self._open_first()

    async def _open_first(self) -> None:
        try:
            await self.open()
        except asyncio.CancelledError as error:
            mark_without_effect(error)
            raise

    def _enter_loop(self) -> None:
        """Belong to the event loop that runs in this thread, if no other one uses this.

        Raises
        ------
        EventLoopError
            Another one does, or it is none of asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise EventLoopError(
                "aiostorage needs an event loop of asyncio, and none runs here; with AnyIO, choose "
                "the backend asyncio, with Trio, use a SyncStorage in a thread"
            ) from None
        pid = os.getpid()
        if self._entered_in != pid:  # the loops of the parent process are not here
            self._loop, self._entered_in, self._entering = None, pid, threading.Lock()
        with self._entering:
            last = self._loop
            if last is loop:
                return
            # one that is not closed may go on, with what it has begun
            if (
                last is not None
                and not last.is_closed()
                and (last.is_running() or asyncio.all_tasks(last))
            ):
                raise EventLoopError(
                    f"the storage at {self.driver.location!r} is in use in another event loop; "
                    "open one for each event loop, or share a SyncStorage between threads"
                )
            self._loop, self._opening = loop, (pid, anyio.Lock())

    # ---------------------------------------------------------------------------- operations

    def execute(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        """Carry out one operation, safely more than once.

        It can be recognised by what it has written, or may be done twice.
        """
        return self._retried(
            self.driver.execute, operation, lambda: self._execute_again(operation), operation
        )

    async def _execute_again(self, operation: Operation[T]) -> T:
        return cast(T, (await repeat(self.driver, (operation,)))[0])

    def transact(self, operations: Sequence[Operation[Any]]) -> Coroutine[Any, Any, list[Any]]:
        """Carry out operations, all or none, safely more than once.

        If the first one is in place already, all of them are.
        """
        return self._retried(
            self.driver.transact,
            operations,
            lambda: repeat(self.driver, operations),
            operations[0],
        )

    async def execute_once(self, operation: Operation[T]) -> T:
        """Carry out one operation that nothing but a receipt can recognise; see `transact_once`."""
        return cast(T, (await self.transact_once((operation,)))[0])

    async def insert(self, insert: Insert, *, own_ids: bool) -> None:
        """Insert records, once although an answer may get lost.

        Parameters
        ----------
        own_ids
            Whether a caller has chosen an ``_id``: another record may have it. A new one needs no
            receipt, since whoever finds it finds this very record.
        """
        await (self.execute_once(insert) if own_ids else self.execute(insert))

    async def insert_next(self, look: Find, insert: InsertNext) -> list[Document]:
        """Insert documents under the next free keys, once although an answer may get lost.

        Parameters
        ----------
        look
            Finds which keys are taken.

        Returns
        -------
        list
            The documents with their keys; none if there were too few keys.
        """

        async def first(insert: InsertNext) -> list[Document]:
            taken, _ = await self.driver.transact((look, insert))
            return list(documents_at_next_keys(insert, taken))

        again = partial(repeat_next, self.driver, look, insert)
        return await self._retried(first, insert, again, insert)

    async def transact_once(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Carry out operations, all or none, once although an answer may get lost.

        They leave a receipt in the store. A repetition finds it there, with the results.
        """
        await self._ready()
        receipt = Receipt(RECEIPTS, new_id(), StoreTime(self._receipt_lifetime))
        first: tuple[Operation[Any], ...] = (*operations, receipt)
        expired: list[Any] = []
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_INTERVAL
            expired = await self._expired_receipts()
        if expired:
            first = (*first, Delete(RECEIPTS, Compare("_id", "in", tuple(expired))))
        results = await self._retried(
            self.driver.transact,
            first,
            lambda: repeat_once(self.driver, operations, receipt),
            operations[0],
        )
        if len(expired) == EXPIRED_RECEIPTS.limit:
            self._sweep_at = 0.0
        return results[: len(operations)]

    async def _execute_at_once(self, operation: Operation[T]) -> T:
        """Carry out an operation that may be done twice, while the engine is being opened."""
        return await self._until_answered(lambda: self.driver.execute(operation))

    async def _until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be made twice, and again after a failure that may pass."""
        return await retrying(
            self.policy,
            lambda _: call(),
            asked=self.driver.location,
            telemetry=self.telemetry,
        )

    async def _trim_history(self) -> None:
        self._trim_at = time.monotonic() + SWEEP_INTERVAL
        with anyio.move_on_after(self._limit.seconds), suppress(BackendError):
            if await self.history.trim(self.driver, self.driver.execute):
                self._trim_at = 0.0

    async def _expired_receipts(self) -> list[Any]:
        """Return the ids of receipts that have expired; none if the engine does not answer."""
        with anyio.move_on_after(self._limit.seconds), suppress(TemporaryBackendError):
            return [found["_id"] for found in await self.driver.execute(EXPIRED_RECEIPTS)]
        return []

    async def _retried(
        self,
        method: Callable[[A], Awaitable[T]],
        asked: A,
        again: Callable[[], Awaitable[T]],
        operation: Operation[Any],
    ) -> T:
        """Call the engine, and if it fails temporarily, as long as the policy allows.

        Parameters
        ----------
        method, asked
            The method of the engine, and what it is asked to do.
        again
            The call when an earlier attempt may have happened although its answer was lost.
        operation
            The first operation of the call.
        """
        if not self._is_ready():
            await self._open_first()
        start = time.monotonic()
        failed: TemporaryBackendError | None = None
        if not self._compensations.pending:
            # the first attempt, here and not in `retrying`: nearly every call ends with it
            limited = self._limit.begin()
            try:
                answer = await method(asked)
            except TemporaryBackendError as error:
                failed = error
            except asyncio.CancelledError as error:
                began = self._began(operation, error)
                if not limited.has_expired():
                    if not began:
                        mark_without_effect(error)
                    raise
                message = f"{self.driver.location}: no answer within {self._limit.seconds:.3g} s"
                failed = OperationTimeout(message, ambiguous=began)
            finally:
                self._limit.calls.pop(limited, None)  # not there if it has outlived its loop
                PRESENT_CALL.set(limited.outer)
                if limited.cancellations:
                    limited.take_back()
            if failed is None:
                if start >= self._trim_at:
                    await self._trim_history()
                return answer
        return await self._retry(lambda: method(asked), again, operation, start, failed)

    async def _retry(
        self,
        call: Callable[[], Awaitable[T]],
        again: Callable[[], Awaitable[T]],
        operation: Operation[Any],
        start: float,
        failed: TemporaryBackendError | None,
    ) -> T:
        """Go on after a first attempt that has failed, if there was one."""
        calling, unsure = False, failed is not None and failed.ambiguous

        async def attempt(uncertain: bool) -> T:
            nonlocal calling, unsure
            calling, unsure = False, uncertain
            if self._compensations.pending:
                await self._compensations.carry_out()
            calling = True
            try:
                return await (again() if uncertain else call())
            except TemporaryBackendError as error:
                calling, unsure = False, uncertain or error.ambiguous
                raise

        try:
            return await retrying(
                self.policy,
                attempt,
                start=start,
                failed=failed,
                asked=self.driver.location,
                telemetry=self.telemetry,
            )
        except asyncio.CancelledError as error:
            if not unsure and not (calling and self._began(operation, error)):
                mark_without_effect(error)
            raise

    def _began(self, operation: Operation[Any], error: asyncio.CancelledError) -> bool:
        """Return whether a call that was cancelled may have changed anything, or may still do so.

        An engine knows best; one from elsewhere may not tell.
        """
        if isinstance(operation, Find | Count) or had_no_effect(error):
            return False
        never_began = getattr(self.driver, "never_began", None)
        return never_began is None or not never_began(operation)

    async def compensate(
        self, operations: Sequence[Operation[Any]], error: BaseException, seconds: float, what: str
    ) -> None:
        """Take back what a failed call may have done; see `Compensations.compensate`."""
        await self._compensations.compensate(operations, error, seconds, what)

    # -------------------------------------------------------------------------------- reading

    async def pages(self, find: Find, size: int) -> AsyncIterator[list[Document]]:
        """Yield the matches page by page, by insertion."""
        await self._ready()
        cursor: object | None = None
        while True:
            documents, cursor = await self._until_answered(
                lambda after=cursor: self.driver.page(find, after, size)  # type: ignore[misc]
            )
            if documents:
                yield documents
            if cursor is None:
                return

    async def slices(self, find: Find, size: int) -> Iterator[list[Document]]:
        """Find documents; they are made `size` at a time, while the caller goes through them."""
        call = partial(find_slices, self.driver, size=size)
        return await self._retried(call, find, partial(call, find), find)

    async def now(self) -> datetime:
        """Return the time of the store's clock."""
        await self._ready()
        return await self._until_answered(self.driver.now)

    def read_log(
        self, log: str, owner: Any, after: str | None, limit: int
    ) -> Coroutine[Any, Any, LogPage]:
        """Return a page of a log; see `aiostorage.protocols.LoggingDriver.read_log`."""
        read = partial(cast(LoggingDriver, self.driver).read_log, log, owner, after)
        return self._retried(read, limit, partial(read, limit), Find(log))

    async def check_history(self) -> None:
        """Raise `ConfigurationError` if the store keeps no history."""
        await self._ready()
        self.history.check(self.driver.location)

    async def wait_for_change(
        self, collection: str, since: object | None, timeout: float
    ) -> object:
        """Wait for a change; see `aiostorage.protocols.Driver.wait_for_change`."""
        await self._ready()
        return await self.driver.wait_for_change(collection, since, timeout)


def copy_of(error: E) -> E:
    """Return an error like this one, without its traceback: several callers may raise it."""
    copied = error.__class__.__new__(error.__class__, *error.args)  # an engine's own class, too
    vars(copied).update(vars(error))
    copied.args = error.args  # which `OSError.__new__` leaves to its `__init__`
    return copied
