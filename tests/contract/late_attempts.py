"""An engine whose answer to the first attempt comes too late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiostorage import AioStorageError, TemporaryBackendError
from aiostorage.operations import Operation
from aiostorage.protocols import Driver
from aiostorage.testing import FaultyDriver

__all__ = ["LateDriver"]


class LateDriver(FaultyDriver):
    """Carries out the first attempt when it is told to, after its caller has given up waiting.

    Parameters
    ----------
    when
        When that is: "before the second" attempt, or "after the second".
    kind
        What such an attempt contains; others are carried out at once.
    """

    def __init__(self, driver: Driver, when: str, kind: type[Operation[Any]]) -> None:
        super().__init__(driver)
        self.when = when
        self.kind = kind
        self.first: Sequence[Operation[Any]] | None = None
        self.outcome: object = None

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        if not any(isinstance(one, self.kind) for one in operations):
            return await super().transact(operations)
        if self.first is None:
            self.first = operations
            raise TemporaryBackendError("no answer yet", ambiguous=True)
        if self.when == "before the second":
            await self.arrive()
        try:
            return await super().transact(operations)
        finally:
            if self.when == "after the second":
                await self.arrive()

    async def arrive(self) -> None:
        assert self.first is not None
        try:
            self.outcome = await self.driver.transact(self.first)
        except AioStorageError as error:
            self.outcome = error
