"""The gateway to the engine: opens it when needed, retries it, refuses after the end.

Everything above talks to `Gateway`, and only `Gateway` talks to a driver.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import anyio

from aiostorage._core.cancellation import clean_up
from aiostorage._core.layout import LAYOUT
from aiostorage._core.retry import RetryPolicy, retrying
from aiostorage.errors import (
    AioStorageError,
    DuplicateKeyError,
    StorageClosedError,
    TemporaryBackendError,
)
from aiostorage.operations import (
    Compare,
    Count,
    Document,
    Find,
    Insert,
    Operation,
    Take,
    Update,
)
from aiostorage.protocols import Driver

__all__ = ["Gateway"]

T = TypeVar("T")

log = logging.getLogger("aiostorage")

LAST = 1.0
"""Seconds for a last attempt to take back what may have been done for nobody."""


class Gateway:
    """A driver under a retry policy.

    Parameters
    ----------
    driver
        The engine.
    policy
        How often and how long to try.
    """

    def __init__(self, driver: Driver, policy: RetryPolicy) -> None:
        self.driver = driver
        self.policy = policy
        self._closed = False
        self._owed: list[tuple[Operation[Any], ...]] = []
        self._opened_in = 0
        self._opening = (0, anyio.Lock())

    def __getstate__(self) -> dict[str, Any]:
        return {"driver": self.driver, "policy": self.policy}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew

    async def open(self) -> None:
        """Open the driver unless it is open in this process.

        Raises
        ------
        StorageClosedError
            After `aclose`.
        """
        pid = os.getpid()
        if self._opening[0] != pid:  # a lock that a parent process held would never open
            self._opening = (pid, anyio.Lock())
        async with self._opening[1]:
            if self._closed:
                raise StorageClosedError
            if self._opened_in != pid:
                await retrying(self.policy, lambda _: self.driver.open(LAYOUT))
                self._opened_in = pid

    async def aclose(self) -> None:
        """Close the driver for good."""
        if not self._closed:
            self._closed = True
            if self._opened_in:
                if self._owed:
                    await clean_up(LAST, self._settle_up, "giving back what was taken for nobody")
                await self.driver.aclose()

    async def _ready(self) -> None:
        if self._closed:
            raise StorageClosedError
        if self._opened_in != os.getpid():
            await self.open()

    async def execute(self, operation: Operation[T]) -> T:
        """Carry out one operation, safely more than once."""
        await self._ready()

        async def attempt(uncertain: bool) -> T:
            if self._owed:
                await self._settle_up()
            if uncertain:
                return cast(T, (await self._again((operation,)))[0])
            return await self.driver.execute(operation)

        return await retrying(self.policy, attempt)

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Carry out operations, all or none, safely more than once.

        If the first one is in place already, all of them are.
        """
        await self._ready()

        async def attempt(uncertain: bool) -> list[Any]:
            if self._owed:
                await self._settle_up()
            if uncertain:
                return await self._again(operations)
            return await self.driver.transact(operations)

        return await retrying(self.policy, attempt)

    async def undo(
        self, operations: Sequence[Operation[Any]], error: BaseException, seconds: float, what: str
    ) -> None:
        """Take back what may have been done for nobody, as `error` happened.

        If the engine does not answer it is taken back with the next call. Where the policy has
        run out it has not answered for long enough: then that is tried only once.
        """
        self._owed.append(tuple(operations))
        if isinstance(error, TemporaryBackendError):
            await clean_up(min(LAST, seconds), self._settle_up, what)
        else:
            await clean_up(
                seconds, lambda: retrying(self.policy, lambda _: self._settle_up()), what
            )

    async def _settle_up(self) -> None:
        """Take back what could not be taken back before."""
        while self._owed:
            operations = self._owed.pop()
            try:
                await self.driver.transact(operations)
            except BaseException as error:
                if isinstance(error, AioStorageError) and not isinstance(
                    error, TemporaryBackendError
                ):
                    log.warning("what was taken for nobody cannot be given back: %s", error)
                    continue
                self._owed.append(operations)
                raise

    async def _again(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Carry out operations that may have happened already."""
        found = await self._applied(operations[0])
        if found is None:
            operations = [
                replace(operation, repeated=True) if isinstance(operation, Insert) else operation
                for operation in operations
            ]
            try:
                return await self.driver.transact(operations)
            except DuplicateKeyError:
                # the earlier attempt was under way still, and has come in between
                found = await self._applied(operations[0])
                if found is None:
                    raise
        return [found, *[0] * (len(operations) - 1)]

    async def _applied(self, operation: Operation[Any]) -> Any:
        """Answer the result of an operation that is in place already, else None."""
        match operation:
            case Insert(collection, documents):
                ids = tuple(document["_id"] for document in documents)
                there = Count(collection, Compare("_id", "in", ids), majority=True)
                return 0 if await self.driver.execute(there) == len(ids) else None
            case Update(collection, applied=applied) if applied is not None:
                there = Count(collection, applied, majority=True)
                return await self.driver.execute(there) or None
            case Take(collection, order=order, applied=applied) if applied is not None:
                taken = Find(collection, applied, order=order, majority=True)
                return await self.driver.execute(taken) or None
            case _:
                return None

    def as_kept(self, document: Document) -> Document:
        """Answer a document with times as finely as the engine keeps them."""
        step = self.driver.resolution // timedelta(microseconds=1)
        return document if step <= 1 else cast(Document, _cut(document, step))

    async def pages(self, find: Find, size: int) -> AsyncIterator[list[Document]]:
        """Answer matches page by page, by insertion."""
        await self._ready()
        mark: object | None = None
        while True:
            documents, mark = await retrying(
                self.policy,
                lambda _, after=mark: self.driver.page(find, after, size),  # type: ignore[misc]
            )
            if documents:
                yield documents
            if mark is None:
                return

    async def wait_for_change(
        self, collection: str, since: object | None, timeout: float
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        await self._ready()
        return await self.driver.wait_for_change(collection, since, timeout)


def _cut(value: Any, step: int) -> Any:
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // step * step)
    if isinstance(value, dict):
        return {key: _cut(item, step) for key, item in value.items()}
    return [_cut(item, step) for item in value] if isinstance(value, list) else value
