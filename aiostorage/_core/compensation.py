"""Compensations: operations that undo the effect of a call whose caller never got the answer.

A reservation may have happened although its caller was cancelled or its answer was lost. Then it
holds a trial that no worker knows of. The compensation releases the trial: at once if the engine
answers, or else before the next call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiostorage._core.cancellation import clean_up
from aiostorage._core.event_log import EventLog
from aiostorage._core.retry import RetryPolicy, retrying
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import Operation
from aiostorage.protocols import Driver

__all__ = ["Compensations"]

events: Final = EventLog("cleanup")

LAST_ATTEMPT_TIMEOUT: Final = 1.0
"""Seconds for one last attempt, when the engine has not answered or the storage closes."""


class Compensations:
    """Pending compensations on one engine.

    Parameters
    ----------
    driver
        The engine.
    policy
        How often and how long to try.
    """

    def __init__(self, driver: Driver, policy: RetryPolicy) -> None:
        self._driver = driver
        self._policy = policy
        self.pending: list[tuple[Operation[Any], ...]] = []

    async def compensate(
        self, operations: Sequence[Operation[Any]], error: BaseException, seconds: float, what: str
    ) -> None:
        """Undo what a failed call may have done; on failure, the next call does it.

        Parameters
        ----------
        operations
            The operations that undo it, all or none.
        error
            Why the call failed. After a `TemporaryBackendError` the engine has not answered for as
            long as the policy allows, so there is only one more attempt.
        seconds
            How long this may take.
        what
            The name of the compensation in the log.
        """
        self.pending.append(tuple(operations))
        if isinstance(error, TemporaryBackendError):
            await clean_up(min(LAST_ATTEMPT_TIMEOUT, seconds), self.carry_out, what)
        else:
            await clean_up(seconds, self._carry_out_with_retries, what)

    async def carry_out(self) -> None:
        """Carry out all pending compensations; one that fails temporarily stays pending.

        Raises
        ------
        TemporaryBackendError
            The engine did not answer.
        """
        while self.pending:
            operations = self.pending.pop()
            try:
                await self._driver.transact(operations)
            except BaseException as error:
                if isinstance(error, AioStorageError) and not isinstance(
                    error, TemporaryBackendError
                ):
                    events.warning(
                        "compensation_failed",
                        "a compensation failed for good: %(error)s",
                        error=error,
                    )
                    continue
                self.pending.append(operations)
                raise

    async def close(self) -> None:
        """Make a last attempt at the pending compensations."""
        if self.pending:
            await clean_up(LAST_ATTEMPT_TIMEOUT, self.carry_out, "the last compensations")

    async def _carry_out_with_retries(self) -> None:
        await retrying(self._policy, lambda _: self.carry_out())
